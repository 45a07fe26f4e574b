"""A chunk: look at what is stored of it, read and decode the rest, embed, store, and account once.

How far a chunk may be stopped: after any batch. What was embedded until then is stored. A cancelled chunk is accounted
for with that; one that is given back finds those rows again at its next attempt, by the job that stored them.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from lookalike.errors import ImageError, Quarantined, SourceUnavailable
from lookalike.jobstore import Change, ChunkClaim, ChunkOutcome, Receipt
from lookalike.records import IngestResult, Stage
from lookalike.roots import image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.ingest.duplicates import Duplicates
from lookalike_worker.ingest.embedding import Embedding
from lookalike_worker.ingest.ledger import failure_of, holds, wanted_metadata
from lookalike_worker.ingest.reading import Reader
from lookalike_worker.ingest.storing import store
from lookalike_worker.ingest.work import File, Work
from lookalike_worker.keeping import Keeper

log = logging.getLogger(__name__)


class ChunkStopped(Exception):
    """The chunk is not to be gone on with. Nobody but the lane catches this."""

    def __init__(self, *, give_back: bool) -> None:
        super().__init__()
        self.give_back = give_back  #: The worker ends, or the job is paused; otherwise the claim is lost.


class _Halt(Exception):
    """Stop reading and embedding; what was embedded is to be stored."""


class ChunkRunner:
    """Processes chunk claims; `stopping` tells whether the worker has been asked to end."""

    def __init__(self, context: Context, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._stopping = stopping
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="contents")

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(cancel_futures=True)

    def run(self, claim: ChunkClaim) -> Receipt:
        """Process one chunk; raises `ChunkStopped`, and what the vector store and the source raise."""
        context = self._context
        if claim.attempts > context.settings.max_attempts:
            return self._isolate(claim)
        keeper = Keeper(context.jobs, context.heart, [claim], lease_s=context.settings.lease_s)
        collection = context.vectors.bind(claim.request.collection, context.embedder.model)
        work = Work(claim)
        halted = self._process(claim, work, keeper)
        self._store(work, keeper)
        if halted and not keeper.cancelled:
            raise ChunkStopped(give_back=True)
        result = IngestResult(collection=collection.name, model=context.embedder.model)
        context.crash.reach("before_accounting")
        return keeper.persist(
            lambda: context.jobs.account(claim, work.outcome(), result=result.model_dump(mode="json"))
        )

    def _process(self, claim: ChunkClaim, work: Work, keeper: Keeper) -> bool:
        """Do what can be done before storing; returns whether it was stopped."""
        keep = _Keep(keeper, self._stopping)
        removed = [item for item in claim.items if item.change is Change.REMOVED]
        try:
            keep()
            if removed:
                self._remove(claim, work, keep)
            else:
                self._embed(claim, work, keep)
        except _Halt:
            return True
        except SourceUnavailable:
            self._store(work, keeper)  # The next attempt begins behind this.
            raise
        return False

    def _store(self, work: Work, keeper: Keeper) -> None:
        # Neither a pause nor a cancel ends this: there is little left to do, and much to lose.
        keeper.persist(lambda: store(self._context, work, _Keep(keeper)))

    def _embed(self, claim: ChunkClaim, work: Work, keep: Callable[[], None]) -> None:
        duplicates = Duplicates(self._context, claim, work, keep)
        embedding = Embedding(self._context, work, duplicates, self._executor, keep)
        reader = Reader(self._context, work, keep)
        with work.timed(Stage.STORE):
            files = self._outstanding(claim, work)
        files = [file for file in files if not self._is_untouched(claim, file, work)]
        readable = self._told(reader.fetched(files), claim, work)
        if claim.request.sync or claim.request.checksum:
            readable = self._not_known(reader, duplicates, work, readable)
        try:
            for file, decoded in reader.decoded(readable):
                embedding.add(file, decoded)
            embedding.finish()
        finally:
            embedding.drop()

    def _outstanding(self, claim: ChunkClaim, work: Work) -> list[File]:
        """The files that no earlier attempt has stored, with the rows of those that are stored at all."""
        files = {image_id(item.uri): File(item, image_id(item.uri)) for item in claim.items}
        work.counts["unchanged"] += len(claim.items) - len(files)  # The same file, named twice.
        asked = [file.id for file in files.values() if not claim.fresh or file.item.change is Change.CHANGED]
        rows = self._context.vectors.known(claim.request.collection, asked) if asked else {}
        for row in rows.values():
            if row.job == claim.job_id and not claim.fresh:
                work.stored_before(files.pop(row.id), row)
            else:
                files[row.id].row = row
        return list(files.values())

    def _is_untouched(self, claim: ChunkClaim, file: File, work: Work) -> bool:
        """Settle a local file that is as it was stored: only its metadata may have to be written."""
        row, request = file.row, claim.request
        if row is None or request.checksum or self._context.remote.is_remote(file.item.uri):
            return False
        try:
            with self._context.sources.open(row.uri) as opened:
                same_age = row.uri.startswith(UPLOAD_SCHEME) or row.mtime_ns == opened.mtime_ns
                if not same_age or row.size != opened.size:
                    return False
        except ImageError:
            return False  # Decoding will say what is wrong with it.
        self._settle_same(claim, file, row, work)
        return True

    def _settle_same(self, claim: ChunkClaim, file: File, row: StoredImage, work: Work) -> None:
        wanted = wanted_metadata(claim.request, file.item.metadata)
        if holds(row.metadata, wanted):
            work.counts["unchanged"] += 1
        else:
            image = replace(row, job=claim.job_id, metadata={**row.metadata, **wanted})
            work.write(file, image, None)

    def _told(self, files: Iterator[File], claim: ChunkClaim, work: Work) -> Iterator[File]:
        """Settle the remote files whose server says that they are as they were stored."""
        for file in files:
            if file.row and file.fetched and file.fetched.not_modified:
                self._settle_same(claim, file, file.row, work)
            else:
                yield file

    def _not_known(self, reader: Reader, duplicates: Duplicates, work: Work, files: Iterator[File]) -> Iterator[File]:
        """Hash files first, and settle those whose content is stored without decoding them."""
        probed = list(reader.probed(files))
        with work.timed(Stage.STORE):
            known = duplicates.look_up([probe.sha256 for _, probe in probed if probe])
            duplicates.look_for_moved([(file, probe.sha256) for file, probe in probed if probe], known)
        for file, probe in probed:
            if not (probe and duplicates.settle(file, probe, known.get(probe.sha256))):
                yield file

    def _remove(self, claim: ChunkClaim, work: Work, keep: Callable[[], None]) -> None:
        """Delete the rows of files that are gone, unless one has come back since."""
        gone: list[str] = []
        for item in claim.items:
            keep()
            if not self._context.lister.exists(item.uri):
                gone.append(image_id(item.uri))
        if gone:
            with work.timed(Stage.STORE):
                self._context.vectors.delete(claim.request.collection, gone)
        # Not what the store found to delete: an attempt that died before it could account may have deleted them.
        work.counts["removed"] += len(gone)

    def _isolate(self, claim: ChunkClaim) -> Receipt:
        """Halve a chunk that workers died on, until the file that kills them stands alone."""
        if len(claim.items) > 1:
            log.warning("chunk %d of job %s has killed its workers; halving it", claim.number, claim.job_id)
            return Receipt.ACCEPTED if self._context.jobs.split(claim) else Receipt.REFUSED
        failure = failure_of(claim.items[0], Quarantined(), Stage.EMBED, attempts=claim.attempts - 1)
        return self._context.jobs.account(claim, ChunkOutcome(failures=(failure,)))


class _Keep:
    """Keeps a chunk's claim; where it is told how, stops the chunk's work when that is asked for."""

    def __init__(self, keeper: Keeper, stopping: Callable[[], bool] | None = None) -> None:
        self._keeper = keeper
        self._stopping = stopping

    def __call__(self) -> None:
        self._keeper.keep()
        if self._keeper.lost:
            raise ChunkStopped(give_back=False)
        if self._stopping and (self._stopping() or self._keeper.paused or self._keeper.cancelled):
            raise _Halt
