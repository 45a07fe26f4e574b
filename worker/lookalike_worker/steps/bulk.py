"""Bulk search: a source is listed, and with each step some of its images are searched for; then sheets are drawn.

The checkpoint says where the listing stands, and each step writes its part of the files anew: a worker that takes over
from a dead one leaves each query in them once.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Final

from lookalike.contact_sheet import MAX_GROUPS
from lookalike.jobstore import Step, StepClaim
from lookalike.records import BulkSearchRequest, BulkSearchResult, Collection, Failure, UploadSource, URLsSource
from lookalike_worker.answering import background_of
from lookalike_worker.context import Context
from lookalike_worker.routing import collection_of
from lookalike_worker.steps.bulk_asking import Answered, answer_all, failures_of, listing_of, set_aside
from lookalike_worker.steps.bulk_files import Part, Sheet, draw_sheet

STEP_S: Final = 1.5  #: A step takes no more queries after this long.
READ_QUERIES: Final = 32  #: Read and answered together; fewer where each may have thousands of hits.
STEP_QUERIES: Final = 512  #: In one step at most; with `STEP_HITS`, what bounds the part that it holds and writes.
STEP_HITS: Final = 10_000
_SURE_AFTER: Final = 2  #: Tries after which a query that was alone is what its workers died on.

Keep = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class _State:
    """Where a job stands: what was done, and where its next step begins."""

    cursor: str | None = None
    part: int = 0
    queries: int = 0
    failed: int = 0
    without_hits: int = 0
    hits: int = 0
    alone: int = 0  #: Queries that are to have a step of their own, since one of them may be what killed a worker.
    drawing: bool = False  #: All queries are answered.
    sheets: int = 0
    drawn: int = 0  #: Queries on sheets.
    offset: int = 0  #: Of the next one to be drawn, in the JSON lines.

    @property
    def answered(self) -> int:
        return self.queries - self.failed


def search_in_bulk(context: Context, claim: StepClaim, keep: Keep) -> Step:
    """Count the source, then search for some of its images with each step, then draw a sheet with each.

    Raises `ModelMismatch` where another model's worker has to do it, and what listing the source raises.
    """
    request = claim.request
    assert isinstance(request, BulkSearchRequest)  # noqa: S101
    if claim.checkpoint is None:
        return Step(total=_foreseen(context, request, keep), checkpoint=asdict(_State()))
    state = _State(**claim.checkpoint)
    return (
        _draw(context, claim, request, state, keep) if state.drawing else _go_on(context, claim, request, state, keep)
    )


def _foreseen(context: Context, request: BulkSearchRequest, keep: Keep) -> int | None:
    match request.source:
        case UploadSource() as source:
            return len({file.sha256 for file in source.files})
        case URLsSource() as source:
            return len(source.urls)
        case _:
            return context.lister.count(listing_of(request), keep=keep)


def _go_on(context: Context, claim: StepClaim, request: BulkSearchRequest, state: _State, keep: Keep) -> Step:
    collection_of(context, request.collection, request.model)  # Before anything is read: it may be for another worker.
    listing = context.listing.after(
        state.cursor, job_id=claim.job_id, lister=context.lister, request=listing_of(request), keep=keep
    )
    part, before, ended = Part(state.part), state, False
    failures: list[Failure] = []
    # A step that failed is tried again with one query, and so are those behind it.
    alone = STEP_QUERIES if claim.attempts > 1 else state.alone
    until_s = time.monotonic() + STEP_S
    at_once = 1 if alone else max(1, min(READ_QUERIES, STEP_HITS // request.limit))
    while _has_room(state, before, until_s):
        found = list(islice(listing, at_once))
        if not found:
            ended = True
            break
        if alone and claim.attempts > _SURE_AFTER:
            answers = [set_aside(claim, found[0])]
        else:
            answers = answer_all(context, claim, request, found, keep)
        part.add(answers, first=state.queries + 1)
        failures += failures_of(answers)
        state = replace(_counted(state, answers), cursor=found[-1].cursor)
        if alone:
            break
    part.write(context, claim.job_id)
    state = replace(state, part=state.part + 1, alone=max(0, alone - 1), drawing=ended)
    done = Step(processed=state.answered - before.answered, failures=tuple(failures), checkpoint=asdict(state))
    if not ended:
        context.listing.put_back(listing, job_id=claim.job_id, cursor=state.cursor)
        return done
    if request.sheets and state.answered:
        return replace(done, total=state.queries)
    return replace(done, total=state.queries, result=_result(context, request, state))


def _has_room(state: _State, before: _State, until_s: float) -> bool:
    if state is before:
        return True
    is_full = state.queries - before.queries >= STEP_QUERIES or state.hits - before.hits >= STEP_HITS
    return not is_full and time.monotonic() < until_s


def _counted(state: _State, answers: list[Answered]) -> _State:
    failed = sum(one.failure is not None for one in answers)
    return replace(
        state,
        queries=state.queries + len(answers),
        failed=state.failed + failed,
        without_hits=state.without_hits + sum(not one.result.hits for one in answers) - failed,
        hits=state.hits + sum(len(one.result.hits) for one in answers),
    )


def _draw(context: Context, claim: StepClaim, request: BulkSearchRequest, state: _State, keep: Keep) -> Step:
    left = state.answered - state.drawn
    is_last = state.sheets + 1 >= request.sheets or left <= MAX_GROUPS
    number = state.sheets + 1
    sheet = Sheet(
        number=number,
        title=f"{request.collection}: queries with their hits, sheet {number}",
        offset=state.offset,
        left_out=max(0, left - MAX_GROUPS) if is_last else 0,
    )
    drawn, offset = draw_sheet(context, claim.job_id, sheet, keep)
    state = replace(state, sheets=state.sheets + 1, drawn=state.drawn + drawn, offset=offset)
    return Step(result=_result(context, request, state)) if is_last else Step(checkpoint=asdict(state))


def _result(context: Context, request: BulkSearchRequest, state: _State) -> dict[str, object]:
    collection: Collection = collection_of(context, request.collection, request.model)
    result = BulkSearchResult(
        collection=request.collection,
        metric=collection.metric,
        model=collection.model,
        background=background_of(collection),
        queries=state.queries,
        failed=state.failed,
        without_hits=state.without_hits,
        hits=state.hits,
        sheets=state.sheets,
        not_on_sheets=state.answered - state.drawn,
    )
    return result.model_dump(mode="json")
