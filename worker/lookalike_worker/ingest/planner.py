"""The planner: lists a source, a bounded look-ahead at a time, and cuts it into chunks.

It stops when the look-ahead is full and is rung again when half of it is done, so neither Redis nor this process ever
holds more of a listing than that. A listing left open is kept for the next step; a planner elsewhere, or one after a
crash, opens it anew behind the cursor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lookalike.broker import Doorbell
from lookalike.errors import LookalikeError
from lookalike.jobstore import IngestItem, JobStore, Lane, PlanClaim, Receipt
from lookalike.listing import Listed, list_folder
from lookalike.records import Failure, FolderSource, IngestRequest, Stage, UploadSource
from lookalike.roots import Roots
from lookalike.uploads import upload_uri
from lookalike_worker.heart import Heart
from lookalike_worker.keeping import Keeper


@dataclass
class _Cut:
    """The part of a listing that is gathered for the next chunk."""

    items: list[IngestItem] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    cursor: str | None = None

    def take(self, listed: Listed) -> None:
        if listed.error:
            self.failures.append(failure_of(IngestItem(uri=listed.uri, name=listed.name), listed.error, Stage.LIST))
        else:
            self.items.append(IngestItem(uri=listed.uri, name=listed.name))
        self.cursor = listed.cursor

    def __len__(self) -> int:
        return len(self.items) + len(self.failures)


class Planner:
    """Turns plan claims into chunks."""

    def __init__(self, jobs: JobStore, doorbell: Doorbell, roots: Roots, heart: Heart, *, chunk_images: int) -> None:
        self._jobs = jobs
        self._doorbell = doorbell
        self._roots = roots
        self._heart = heart
        self._chunk_images = chunk_images
        self._keeper: Keeper | None = None  # Of the claim in hand; a listing that was kept open is older than it.
        self._open: tuple[str, str | None, Iterator[Listed]] | None = None

    def plan(self, claim: PlanClaim) -> Receipt:
        """Fill the look-ahead; raises `InvalidPath` or `FolderNotFound` where the source is not there."""
        room: int | None = claim.room
        self._keeper = Keeper(self._jobs, self._heart, [claim])
        listing = self._listing(claim)
        cut = _Cut(cursor=claim.cursor)
        while room and (listed := next(listing, None)):
            self._keep()
            cut.take(listed)
            if len(cut) >= self._chunk_images:
                room = self._add(claim, cut)
                cut = _Cut(cursor=cut.cursor)
        if room == 0:
            self._open = (claim.job_id, cut.cursor, listing)
            return self._jobs.end_plan(claim, finished=False)
        if room and len(cut):
            room = self._add(claim, cut)
        return self._jobs.end_plan(claim, finished=room is not None)

    def _add(self, claim: PlanClaim, cut: _Cut) -> int | None:
        room = self._jobs.add_chunk(claim, cut.items, cursor=cut.cursor, failures=cut.failures)
        if cut.items and room is not None:
            self._doorbell.ring(Lane.INGEST)
        return room

    def _keep(self) -> None:
        if self._keeper:
            self._keeper.keep()

    def _listing(self, claim: PlanClaim) -> Iterator[Listed]:
        kept, self._open = self._open, None
        if kept and kept[:2] == (claim.job_id, claim.cursor):
            return kept[2]
        return self._list(claim.request, claim.cursor)

    def _list(self, request: IngestRequest, after: str | None) -> Iterator[Listed]:
        match request.source:
            case FolderSource() as source:
                return list_folder(
                    self._roots.resolve_folder(source.path),
                    recursive=source.recursive,
                    include=source.include,
                    exclude=source.exclude,
                    after=after,
                    on_folder=self._keep,
                )
            case UploadSource() as source:
                return _list_uploads(source, after)


def _list_uploads(source: UploadSource, after: str | None) -> Iterator[Listed]:
    files = list({file.sha256: file for file in source.files}.values())  # The same picture sent twice is one image.
    begin = int(after) + 1 if after else 0
    for position, file in enumerate(files[begin:], begin):
        yield Listed(uri=upload_uri(file.sha256), name=file.name, cursor=str(position))


def failure_of(item: IngestItem, error: LookalikeError, stage: Stage, *, attempts: int = 1) -> Failure:
    """Write what a file failed by down as a line of the ledger."""
    return Failure(uri=item.uri, code=error.code, message=error.message, stage=stage, attempts=attempts, name=item.name)
