"""Pruning: what is stored from a source, and gone from it.

The second phase of a job that syncs. What exists at the source is never removed, whatever the job's globs take: the
stored rows are walked, and each is looked for at its place.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from lookalike.errors import SourceEmpty
from lookalike.jobstore import Change, IngestItem, PlanClaim, Planned
from lookalike.listing import Listed
from lookalike.records import SYNCABLE
from lookalike.roots import image_id
from lookalike.vectorstore import RowPlace
from lookalike_worker.context import Context
from lookalike_worker.ingest.foresight import content_of

_PAGE_ROWS: Final = 16_000  #: Each page is a scan of the collection.

#: Hands a chunk to the job store; see `Planner.add`.
Add = Callable[[PlanClaim, list[IngestItem], str | None, Planned], int | None]


@dataclass
class Moves:
    """The rows of a source whose files are gone, for a dry run to tell what was moved: their contents by size."""

    context: Context
    gone: dict[int, Counter[bytes]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, row: RowPlace) -> None:
        """Remember a row whose file is gone."""
        self.gone[row.size][bytes.fromhex(row.sha256)] += 1

    def take(self, listed: Listed, keep: Callable[[], None]) -> bool:
        """Tell whether a new file has the content of one that is gone, each of which is found only once.

        Files of another size are not read.
        """
        contents = self.gone.get(listed.size) if listed.size is not None else None
        sha256 = content_of(self.context, listed.uri, keep) if contents else None
        if not contents or not sha256 or not contents[bytes.fromhex(sha256)]:
            return False
        contents[bytes.fromhex(sha256)] -= 1
        return True


class _Witness:
    """A file that the source still holds: what else is missing is gone then, and not the place itself.

    A disk that was unmounted since it was listed leaves an empty folder behind.
    """

    def __init__(self, context: Context, claim: PlanClaim, keep: Callable[[], None]) -> None:
        self._lister = context.lister
        self._request = claim.request
        self._keep = keep
        self._uri: str | None = None

    def check(self) -> None:
        """Raise `SourceEmpty` where the source holds no file any more."""
        if self._uri is None or not self._lister.exists(self._uri):
            listing = self._lister.list(self._request, after=None, keep=self._keep)
            self._uri = next((listed.uri for listed in listing if listed.error is None), None)
        if self._uri is None:
            raise SourceEmpty


class Pruner:
    """Finds the rows whose files are gone."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def prune(self, claim: PlanClaim, keep: Callable[[], None], add: Add) -> bool:
        """Add the removal of what is gone, as far as there is room; returns whether that is all.

        Raises `SourceEmpty` before anything is removed.
        """
        if claim.request.dry_run:
            return self._count(claim, keep, add)
        room: int | None = claim.room
        items: list[IngestItem] = []
        witness = _Witness(self._context, claim, keep)
        for row in self._gone_rows(claim, keep, after=claim.cursor):
            items.append(IngestItem(uri=row.uri, change=Change.REMOVED))
            if len(items) == self._context.settings.chunk_images:
                witness.check()
                room = add(claim, items, row.id, Planned())
                items = []
                if not room:
                    return False
        if items:
            witness.check()
            room = add(claim, items, image_id(items[-1].uri), Planned())
        return room is not None

    def gone(self, claim: PlanClaim, keep: Callable[[], None]) -> Moves:
        """Gather what is gone before a dry run lists what is there."""
        moves = Moves(self._context)
        for row in self._walk(claim, keep, after=None):
            moves.note(row)
        return moves

    def _count(self, claim: PlanClaim, keep: Callable[[], None], add: Add) -> bool:
        # One report at the end: what was moved is gone as well, and a count that was cut short could not tell them.
        gone, last = 0, ""
        for row in self._gone_rows(claim, keep, after=None):
            gone, last = gone + 1, row.id
        removed = gone - self._context.jobs.get(claim.job_id).progress.moved
        return removed <= 0 or add(claim, [], last, Planned(removed=removed)) is not None

    def _gone_rows(self, claim: PlanClaim, keep: Callable[[], None], *, after: str | None) -> Iterator[RowPlace]:
        nothing_listed = after is None and self._context.jobs.get(claim.job_id).progress.total == 0
        for row in self._walk(claim, keep, after=after):
            if nothing_listed:
                raise SourceEmpty
            yield row

    def _walk(self, claim: PlanClaim, keep: Callable[[], None], *, after: str | None) -> Iterator[RowPlace]:
        context, collection = self._context, claim.request.collection
        source = claim.request.source
        if not isinstance(source, SYNCABLE):  # Which a request that syncs cannot say.
            return
        first, last = context.lister.span(source)
        while True:
            rows = context.vectors.under(collection, first, last, after=after, limit=_PAGE_ROWS)
            for row in rows:
                keep()  # Looking whether an object is there may take a second.
                if not context.lister.exists(row.uri):
                    yield row
            if not rows:
                return
            after = rows[-1].id
