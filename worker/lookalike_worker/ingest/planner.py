"""The planner: lists a source, a bounded look-ahead at a time, and cuts what is new or changed into chunks.

It stops when the look-ahead is full and is rung again when half of it is done, so neither Redis nor this process ever
holds more of a listing than that. A listing left open is kept for the next step; a planner elsewhere, or one after a
crash, opens it anew behind the cursor. Unchanged files only move the cursor and a count. A dry run makes no chunks: all
it finds is counted.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from lookalike.jobstore import Change, IngestItem, Lane, Phase, PlanClaim, Planned, Receipt
from lookalike.listing import Listed
from lookalike.records import CollectionSource, Failure, Stage
from lookalike_worker.context import Context
from lookalike_worker.ingest import reembedding
from lookalike_worker.ingest.comparing import Comparer, Verdict
from lookalike_worker.ingest.forecast import Forecast
from lookalike_worker.ingest.foresight import Foresight
from lookalike_worker.ingest.ledger import failure_of
from lookalike_worker.ingest.prune import Moves, Pruner
from lookalike_worker.keeping import Keeper

_REPORT_FILES: Final = 4_096  #: Unchanged files that may pass before they are reported...
_REPORT_S: Final = 1.0  #: ...or this long, where no chunk is being filled meanwhile...
_FLUSH_S: Final = 3.0  #: ...or this long: then what there is of a chunk goes, as of a slow listing.
_LOOK_EVERY: Final = 64  #: Files between two looks at the clock.


class PlanStopped(Exception):
    """The job is cancelled or paused, or the claim is lost: the plan is not to be gone on with."""


@dataclass
class _Cut:
    """The part of a listing that is gathered for the next report: a chunk's items, and counts of the rest."""

    cursor: str | None = None
    items: list[IngestItem] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    passed: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def take(self, listed: Listed) -> None:
        self.passed += 1
        self.cursor = listed.cursor
        if listed.error:
            item = IngestItem(uri=listed.uri, name=listed.name, metadata=listed.metadata)
            self.failures.append(failure_of(item, listed.error, Stage.LIST))

    def add(self, listed: Listed, change: Change) -> None:
        self.items.append(IngestItem(uri=listed.uri, name=listed.name, change=change, metadata=listed.metadata))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def is_due(self, chunk_images: int) -> bool:
        if len(self.items) + len(self.failures) >= chunk_images:
            return True
        if not self.items and self.passed >= _REPORT_FILES:
            return True
        if self.passed % _LOOK_EVERY:
            return False
        waited_s = time.monotonic() - self.began_s
        return waited_s >= _FLUSH_S or (not self.items and waited_s >= _REPORT_S)

    def planned(self, foreseen: int) -> Planned:
        return Planned(failures=tuple(self.failures), foreseen=foreseen, **self.counts)


class Planner:
    """Turns plan claims into chunks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="states")
        self._comparer = Comparer(vectors=context.vectors, decoders=context.decoders, executor=self._executor)
        self._foresight = Foresight(context)
        self._pruner = Pruner(context)
        self._forecast = Forecast(context.lister)
        self._keeper: Keeper | None = None  # Of the claim in hand; a listing that was kept open is older than it.
        self._open: tuple[str, str | None, Iterator[Verdict]] | None = None

    def plan(self, claim: PlanClaim) -> Receipt:
        """Fill the look-ahead; raises `InvalidPath` and the like where the source is not there.

        And `SourceEmpty` where everything would be removed, `SourceUnavailable` and `VectorStoreUnavailable`.
        """
        context = self._context
        self._keeper = Keeper(context.jobs, context.heart, [claim], lease_s=context.settings.lease_s)
        try:
            finished = self._prune(claim) if claim.phase is Phase.PRUNE else self._list(claim, self._keep)
        except PlanStopped:
            finished = False
        return context.jobs.end_plan(claim, finished=finished)

    def close(self) -> None:
        """Drop the listing that was left open, and end the threads."""
        self._open = None
        self._forecast.close()
        self._executor.shutdown(cancel_futures=True)

    def _prune(self, claim: PlanClaim) -> bool:
        source = claim.request.source
        if isinstance(source, CollectionSource):
            return reembedding.finish(self._context, claim, source, keep=self._keep, add=self.add)
        return self._pruner.prune(claim, self._keep, self.add)

    def _list(self, claim: PlanClaim, keep: Callable[[], None]) -> bool:
        """Cut the listing until it ends or there is no room; returns whether it has ended."""
        verdicts = self._verdicts(claim)
        moves = self._moves(claim, keep)
        chunk_images = self._context.settings.chunk_images
        dry = claim.request.dry_run
        room: int | None = claim.room
        cut = _Cut(cursor=claim.cursor)
        while room:
            verdict = next(verdicts, None)
            if verdict is None:
                break
            listed, change = verdict
            cut.take(listed)
            if listed.error is None:
                if change is None:
                    cut.count("unchanged")
                elif dry:
                    cut.count(
                        "moved" if moves and change is Change.ADDED and moves.take(listed, keep) else change.value
                    )
                else:
                    cut.add(listed, change)
            if cut.passed % _LOOK_EVERY == 0:
                keep()
            if cut.is_due(chunk_images):
                room = self._flush(claim, cut)
                cut = _Cut(cursor=cut.cursor)
        if room == 0:
            self._open = (claim.job_id, cut.cursor, verdicts)
            return False
        if room and cut.passed:
            room = self._flush(claim, cut)
        return room is not None

    def _flush(self, claim: PlanClaim, cut: _Cut) -> int | None:
        # Not before there is something to report: the listing of a small folder needs no forecast.
        self._forecast.begin(claim)
        return self.add(claim, cut.items, cut.cursor, cut.planned(self._forecast.tell(claim.job_id)))

    def add(self, claim: PlanClaim, items: list[IngestItem], cursor: str | None, planned: Planned) -> int | None:
        """Hand a chunk, or a report without one, to the job store; returns the room that is left, as that does."""
        room = self._context.jobs.add_chunk(claim, items, cursor=cursor, planned=planned)
        self._context.crash.reach("after_plan_chunk")
        if items and room is not None:
            self._context.doorbell.ring_enough(Lane.INGEST)
        return room

    def _verdicts(self, claim: PlanClaim) -> Iterator[Verdict]:
        kept, self._open = self._open, None
        if kept and kept[:2] == (claim.job_id, claim.cursor):
            return kept[2]
        source = claim.request.source
        if isinstance(source, CollectionSource):
            return reembedding.list_images(self._context, claim.request, source, after=claim.cursor, keep=self._keep)
        listing = self._context.lister.list(claim.request, after=claim.cursor, keep=self._keep)
        verdicts = self._comparer.compare(listing, claim.request, self._keep)
        return self._foresight.settle(verdicts, claim.request, self._keep) if claim.request.dry_run else verdicts

    def _moves(self, claim: PlanClaim, keep: Callable[[], None]) -> Moves | None:
        if claim.request.dry_run and claim.request.sync:
            return self._pruner.gone(claim, keep)
        return None

    def _keep(self) -> None:
        if self._keeper:
            self._keeper.keep()
            if self._keeper.lost or self._keeper.cancelled or self._keeper.paused:
                raise PlanStopped
