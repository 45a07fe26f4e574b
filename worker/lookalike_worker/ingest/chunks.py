"""Reading a chunk: what is stored of it already, and the pixels of all that has to be embedded.

The first stage of the pipeline. What needs no network is settled here: unchanged and copied files, failures, removals.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from lookalike.decodepool import Decoded, Probe
from lookalike.errors import ImageError
from lookalike.jobstore import Change, ChunkClaim
from lookalike.records import Stage
from lookalike.roots import image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.ingest.chunk import Chunk
from lookalike_worker.ingest.duplicates import Duplicates, Known, TakenOver
from lookalike_worker.ingest.ledger import holds, wanted_metadata
from lookalike_worker.ingest.reading import Reader
from lookalike_worker.ingest.work import File, Work
from lookalike_worker.keeping import result_of

#: Contents looked up together, where batches are smaller: half of what such a call costs does not depend on it.
_SMALLEST_GROUP: Final = 16

_Read = tuple[File, Decoded]


class ChunkReader:
    """Reads chunks, one after the other, in one thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="contents")
        self._taken_over = TakenOver()

    def close(self) -> None:
        """End the thread that looks contents up."""
        self._executor.shutdown(cancel_futures=True)

    def read(self, chunk: Chunk, keep: Callable[[], None]) -> Iterator[_Read]:
        """Settle what can be settled, and yield what is to be embedded.

        `keep` is called between any two files, and every second; what it raises comes through. Raises what the vector
        store and the source raise.
        """
        claim, work, context = chunk.claim, chunk.work, self._context
        keep()
        record = context.vectors.bind(claim.request.collection, context.embedder.model)
        chunk.collection = record.name
        if any(item.change is Change.REMOVED for item in claim.items):
            self._remove(claim, work, keep)
            return
        duplicates = Duplicates(context, claim, work, keep, self._taken_over.of_chunk(claim.job_id))
        reader = Reader(context, work, keep, record.tiles.boxes if record.tiles else ())
        with work.timed(Stage.STORE):
            files = self._outstanding(claim, work)
        files = [file for file in files if not self._is_untouched(claim, file, work)]
        readable = self._told(reader.fetched(files), claim, work)
        if claim.request.sync or claim.request.checksum:
            readable = self._not_known(reader, duplicates, work, readable)
        yield from self._new(reader.decoded(readable), duplicates, work, keep)

    def _new(
        self, files: Iterator[_Read], duplicates: Duplicates, work: Work, keep: Callable[[], None]
    ) -> Iterator[_Read]:
        """Settle the files whose content is stored; a group is looked up while the next is decoded."""
        size = max(self._context.embedder.engine.batch_images, _SMALLEST_GROUP)
        asked: deque[tuple[list[_Read], Future[dict[str, Known]]]] = deque()

        def ask(group: list[_Read]) -> None:
            contents = [decoded.sha256 for _, decoded in group]
            asked.append((group, self._executor.submit(duplicates.look_up, contents)))

        def answered() -> Iterator[_Read]:
            group, answer = asked.popleft()
            with work.timed(Stage.STORE):
                known = result_of(answer, keep)
            for file, decoded in group:
                if not duplicates.settle(file, decoded, known.get(decoded.sha256)):
                    yield file, decoded

        try:
            group: list[_Read] = []
            for read in files:
                group.append(read)
                if len(group) >= size:
                    ask(group)
                    group = []
                while asked and (len(asked) > 1 or asked[0][1].done()):
                    yield from answered()
            if group:
                ask(group)
            while asked:
                yield from answered()
        finally:
            for _, answer in asked:
                answer.cancel()

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
            found = known.get(probe.sha256) if probe else None
            if not (probe and _is_hashed(file, probe, found) and duplicates.settle(file, probe, found)):
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


def _is_hashed(file: File, probe: Probe, known: Known | None) -> bool:
    """Tell whether the row that a file would be settled with has its picture's hash, for which it had to be decoded.

    Rows from before there was one get it so, without being embedded again.
    """
    row = file.row if file.row and file.row.sha256 == probe.sha256 else known.image if known else None
    return row is None or bool(row.picture_hash)
