"""Answering: from vectors to hits. Searches that look the same way share a Milvus call; then each gets its own answer.

A search whose every found image is a hit is answered by one call. One that leaves images out (itself, the same content
again, the same group again) is looked for in rounds: at first only for what that is decided by, of ever more images,
and in the end for the rows of those that became hits.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import LookalikeError
from lookalike.records import (
    Background,
    BackgroundInfo,
    Band,
    Collection,
    Hit,
    JobError,
    Metric,
    QueryResult,
    SearchResult,
    score,
)
from lookalike.vectorstore import Candidate, Found, How, StoredImage
from lookalike_worker.asking import Asked, Search
from lookalike_worker.context import Context
from lookalike_worker.selecting import Match, Rules, merged, selected

MOST_CANDIDATES: Final = 16_384  #: That Milvus returns to one query.
_ENOUGH_CANDIDATES: Final = 4_096  #: Looked at where images are left out; or four times what is asked for.
_MORE: Final = 4  #: Times as many in the next round.
_SPARE: Final = 8
#: Two vectors of one picture differ by rounding: float32 keeps 7 digits, and adds thousands of products.
SAME_COSINE: Final = 1e-5
THRESHOLDS: Final = (0.01, 0.1, 1.0, 10.0)  #: Expected false matches that a result states distances for.

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Ready:
    """A query that has its vectors."""

    search: Search
    asked: Asked
    rules: Rules

    @property
    def needed(self) -> int:
        """Hits that the answer ends with, those before its offset included."""
        return self.search.request.offset + self.search.request.limit


def answer(context: Context, searches: Sequence[Search]) -> None:
    """Find the hits of all queries that have vectors. A refusal fails the searches that share the call."""
    groups: dict[_Key, list[_Ready]] = defaultdict(list)
    for search in searches:
        if search.error is None and search.collection and search.collection.model:
            for asked in search.asked:
                if asked.error is None:
                    rules = Rules.of(search.request, search.collection.metric, asked.own_ids, asked.own_contents)
                    groups[_key(search, rules)].append(_Ready(search, asked, rules))
    for group in groups.values():
        try:
            in_rounds = _in_rounds(group[0].search, group[0].rules)
            (_answer_picky if in_rounds else _answer_plain)(context, group)
        except LookalikeError as error:
            for ready in group:
                ready.search.error = error


def _key(search: Search, rules: Rules) -> _Key:
    """Tell which searches can share their calls."""
    request = search.request
    shared = (request.collection, request.filter, request.params, request.consistency)
    return (*shared, _in_rounds(search, rules), request.group_by)


def _in_rounds(search: Search, rules: Rules) -> bool:
    """Tell whether more has to be looked at than becomes hits: with tiles, several of what is found are one image."""
    return rules.is_picky or (search.collection is not None and search.collection.tiles is not None)


def _how(search: Search) -> How:
    request = search.request
    params = request.params.model_dump(exclude_none=True) if request.params else {}
    return How(filter=request.filter, params=params, consistency=request.consistency)


def _vectors(group: Sequence[_Ready]) -> NDArray[np.float32]:
    return np.stack([vector for ready in group for vector in ready.asked.vectors])


def _answer_plain(context: Context, group: Sequence[_Ready]) -> None:
    most = max(ready.needed for ready in group)
    request = group[0].search.request
    how = _how(group[0].search)
    answers = iter(
        context.vectors.search(
            request.collection,
            _vectors(group),
            limit=most,
            filter=how.filter,
            params=how.params,
            consistency=how.consistency,
        )
    )
    for ready in group:
        lists = [
            [_match(found, turn) for found in next(answers)[: ready.needed]]
            for turn, _ in zip(ready.search.turns, ready.asked.vectors, strict=False)
        ]
        matches, more = merged(lists, ready.rules.metric, asked_for=ready.needed)
        hits, _ = selected(matches, ready.rules, needed=ready.needed)
        _settle(context, ready, hits, more=more)


def _answer_picky(context: Context, group: Sequence[_Ready]) -> None:
    waiting = list(group)
    request, how = group[0].search.request, _how(group[0].search)
    most = max(ready.needed for ready in group)
    tiles = group[0].search.collection.tiles if group[0].search.collection else None
    # An image may be found by all of its tiles.
    bound = min(MOST_CANDIDATES, max(_ENOUGH_CANDIDATES, _MORE * most) * (1 + tiles.count if tiles else 1))
    spare = max(len(ready.rules.own_ids) for ready in group) + _SPARE
    limit = min(bound, most + spare + (most if request.distinct or request.group_by or tiles else 0))
    done: list[tuple[_Ready, list[Match], bool, bool]] = []
    while waiting:
        look: dict[str, Any] = {"limit": limit, "how": how, "group_by": request.group_by}
        answers = iter(context.vectors.candidates(request.collection, _vectors(waiting), **look))
        parts = iter(context.vectors.tile_candidates(request.collection, _vectors(waiting), **look) if tiles else ())
        still = []
        for ready in waiting:
            lists = [
                [_light(candidate, turn) for candidate in next(source)]
                for source in ((answers, parts) if tiles else (answers,))
                for turn, _ in zip(ready.search.turns, ready.asked.vectors, strict=False)
            ]
            matches, more = merged(lists, ready.rules.metric, asked_for=limit)
            hits, is_over = selected(matches, ready.rules, needed=ready.needed)
            if is_over or not more or limit == bound:
                done.append((ready, hits, more or is_over, more and not is_over))
            else:
                still.append(ready)
        waiting, limit = still, min(bound, limit * _MORE)
    # Only what is shown is fetched whole.
    ids = list({match.key for ready, hits, _, _ in done for match in hits[ready.search.request.offset :]})
    rows = context.vectors.images(request.collection, ids, consistency=how.consistency) if ids else {}
    for ready, hits, more, gave_up in done:
        whole = [replace(match, row=rows.get(match.key)) for match in hits]
        _settle(context, ready, whole, more=more, gave_up=gave_up)


def _match(found: Found, turn: Any) -> Match:
    image = found.image
    return Match(key=image.id, distance=found.distance, sha256=image.sha256, variant=turn, row=image)


def _light(candidate: Candidate, turn: Any) -> Match:
    return Match(
        key=candidate.id,
        distance=candidate.distance,
        sha256=candidate.sha256,
        group=candidate.group,
        variant=turn,
        box=candidate.box,
        is_stale=candidate.is_stale,
    )


def _settle(context: Context, ready: _Ready, hits: Sequence[Match], *, more: bool, gave_up: bool = False) -> None:
    """Make the answer of a query of its hits."""
    request, collection = ready.search.request, ready.search.collection
    assert collection is not None  # noqa: S101 - `answer` looked.
    following = request.offset + request.limit
    goes_on = more and len(hits) == ready.needed and following < context.settings.max_limit
    shown = [
        _hit(rank, match, ready.asked, collection)
        for rank, match in enumerate(hits[request.offset :], request.offset + 1)
        if match.row is not None  # Somebody deleted it since it was found.
    ]
    ready.asked.answer = QueryResult(
        query=_told(ready.asked),
        hits=tuple(shown),
        next_offset=following if goes_on else None,
        gave_up=gave_up,
    )


def _hit(rank: int, match: Match, asked: Asked, collection: Collection) -> Hit:
    image: StoredImage = match.row
    percentile, band = rated(match.distance, _background(collection))
    if _is_identical(match, asked, collection.metric):
        band = Band.IDENTICAL
    return Hit(
        rank=rank,
        id=image.id,
        uri=image.uri,
        name=image.name,
        distance=match.distance,
        score=score(match.distance, collection.metric),
        percentile=percentile,
        band=band,
        group=match.group,
        variant=match.variant,
        box=match.box,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        duplicate_of=image.duplicate_of,
        metadata=image.metadata,
    )


def _background(collection: Collection) -> Background | None:
    """Return a collection's background, where it is of the vectors that are searched."""
    known, model = collection.background, collection.model
    return known if known and model and known.fingerprint == model.fingerprint else None


def rated(distance: float, background: Background | None) -> tuple[float | None, Band | None]:
    """Return a distance's percentile and band; nothing where there is no background to tell them by."""
    if background is None:
        return None, None
    return round(background.percentile(distance), 6), background.band(distance)


def _is_identical(match: Match, asked: Asked, metric: Metric) -> bool:
    """Tell whether an image has the content of the query, or its vector but for rounding."""
    if asked.query.is_combined:
        return False
    part = asked.parts[0]
    if match.variant is None and part.example.box is None:
        if part.sha256 and part.sha256 == match.sha256:
            return True
        if part.example.image_id == match.key:
            return True
    if metric is Metric.IP or match.box is not None:
        return False  # Inner products with others can be larger than that with itself, and a part is not the picture.
    if metric is Metric.COSINE:
        return match.distance >= 1 - SAME_COSINE
    square = float(np.square(asked.vectors[0].astype(np.float64)).sum())
    return match.distance <= 2 * SAME_COSINE * square


def outcome(search: Search, took_ms: float) -> dict[str, Any] | JobError:
    """Return a search's result, or why it has none."""
    if search.error or not search.collection:
        error = search.error or LookalikeError()
        return JobError(code=error.code, message=error.message)
    result = SearchResult(
        collection=search.collection.name,
        metric=search.collection.metric,
        model=search.collection.model,
        took_ms=round(took_ms, 1),
        background=background_of(search.collection),
        queries=tuple(_final(asked) for asked in search.asked),
    )
    return result.model_dump(mode="json")


def background_of(collection: Collection) -> BackgroundInfo | None:
    """Return what a result says of the background that its hits were rated by."""
    background = _background(collection)
    if background is None:
        return None
    return BackgroundInfo(
        rows=background.rows,
        pairs=background.pairs,
        measured_at=background.measured_at,
        thresholds=tuple(background.threshold(number) for number in THRESHOLDS),
    )


def _final(asked: Asked) -> QueryResult:
    if asked.error:
        error = JobError(code=asked.error.code, message=asked.error.message)
        return QueryResult(query=_told(asked), error=error)
    return asked.answer or QueryResult(query=_told(asked))


def _told(asked: Asked) -> dict[str, Any]:
    """Return a query as its result names it."""
    query = asked.query.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for example in (query, *query.get("positive", ()), *query.get("negative", ())):
        if "vector" in example:
            # Its sender has it; a result of many need not.
            example["vector"] = f"{len(example['vector'])} values"
    return query
