"""A chunk: skip what is stored unchanged, decode and embed the rest in overlapping batches, upsert, account once."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.decodepool import Decoded
from lookalike.errors import EmbeddingInvalid, ImageError, Quarantined, VectorStoreRejected
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, Receipt
from lookalike.records import Failure, IngestResult, Stage
from lookalike.roots import image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.ingest.planner import failure_of
from lookalike_worker.keeping import Keeper, result_of

log = logging.getLogger(__name__)

#: Errors of the decoder's environment rather than of the image's content; their stage is reading.
_READ_CODES: Final = frozenset(
    {"file_missing", "file_empty", "file_too_large", "not_regular_file", "permission_denied", "invalid_filename"}
)


class ChunkStopped(Exception):
    """The chunk is not to be gone on with. Nobody but the lane catches this."""

    def __init__(self, *, give_back: bool) -> None:
        super().__init__()
        self.give_back = give_back  #: The worker ends; otherwise the claim is lost.


@dataclass
class _Work:
    """What has become of a chunk's files so far."""

    images: list[StoredImage] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    stored_before: int = 0  #: By an earlier attempt at this chunk, which died before it could account.
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)


class ChunkRunner:
    """Processes chunk claims; `stopping` tells whether the worker has been asked to end."""

    def __init__(self, context: Context, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._stopping = stopping

    def run(self, claim: ChunkClaim) -> Receipt:
        """Process one chunk; raises `ChunkStopped`, and what the vector store raises."""
        context, request = self._context, claim.request
        if claim.attempts > context.settings.max_attempts:
            return self._isolate(claim)
        collection = context.vectors.bind(request.collection, context.embedder.model)
        work = _Work()
        keeper = Keeper(context.jobs, context.heart, [claim])

        def keep() -> None:
            keeper.keep()
            if self._stopping():
                raise ChunkStopped(give_back=True)
            if keeper.lost:
                raise ChunkStopped(give_back=False)

        items = self._changed(claim, work)
        for batch in self._decoded(claim, items, work, keep):
            if keeper.cancelled:
                break  # What was embedded before is stored and counted.
            self._embed(claim, batch, work)
        self._store(claim, work, keep)
        outcome = ChunkOutcome(
            stored=len(work.images) + work.stored_before, unchanged=work.unchanged, failures=tuple(work.failures)
        )
        result = IngestResult(collection=collection.name, model=context.embedder.model)
        return context.jobs.account(claim, outcome, result=result.model_dump(mode="json"))

    def _isolate(self, claim: ChunkClaim) -> Receipt:
        """Halve a chunk that workers died on, until the file that kills them stands alone."""
        if len(claim.items) > 1:
            log.warning("chunk %d of job %s has killed its workers; halving it", claim.number, claim.job_id)
            return Receipt.ACCEPTED if self._context.jobs.split(claim) else Receipt.REFUSED
        failure = failure_of(claim.items[0], Quarantined(), Stage.EMBED, attempts=claim.attempts - 1)
        return self._context.jobs.account(claim, ChunkOutcome(failures=(failure,)))

    def _changed(self, claim: ChunkClaim, work: _Work) -> list[IngestItem]:
        """The items that are not stored as they are; the others are counted."""
        items = {image_id(item.uri): item for item in claim.items}
        work.unchanged += len(claim.items) - len(items)  # The same upload, named twice.
        known = self._context.vectors.known(claim.request.collection, list(items))
        for stored in known.values():
            if not self._is_current(stored, claim):
                continue
            del items[stored.id]
            if stored.job == claim.job_id:
                work.stored_before += 1
            else:
                work.unchanged += 1
        return list(items.values())

    def _is_current(self, stored: StoredImage, claim: ChunkClaim) -> bool:
        if stored.metadata != claim.request.metadata:
            return False
        try:
            with self._context.sources.open(stored.uri) as file:
                # An upload's name is its content; its time only tells when it was last sent.
                same_age = stored.uri.startswith(UPLOAD_SCHEME) or stored.mtime_ns == file.mtime_ns
                return same_age and stored.size == file.size
        except ImageError:
            return False  # Decoding will say what is wrong with it.

    def _decoded(
        self, claim: ChunkClaim, items: list[IngestItem], work: _Work, keep: Callable[[], None]
    ) -> Iterator[list[tuple[IngestItem, Decoded]]]:
        """Decode ahead of the network: batches come as they fill, while later files are still being decoded."""
        futures: deque[tuple[IngestItem, Future[Decoded]]] = deque(
            (item, self._context.decoders.decode(item.uri)) for item in items
        )
        batch: list[tuple[IngestItem, Decoded]] = []
        try:
            while futures:
                item, future = futures.popleft()
                try:
                    batch.append((item, result_of(future, keep)))
                except ImageError as error:
                    stage = Stage.READ if error.code in _READ_CODES else Stage.DECODE
                    work.failures.append(failure_of(item, error, stage, attempts=claim.attempts))
                if len(batch) == self._context.embedder.engine.batch_images:
                    yield batch
                    batch = []
            if batch:
                yield batch
        finally:
            for _, future in futures:
                future.cancel()

    def _embed(self, claim: ChunkClaim, batch: list[tuple[IngestItem, Decoded]], work: _Work) -> None:
        try:
            vectors = self._context.embedder.engine.embed(np.stack([decoded.pixels for _, decoded in batch]))
        except ImageError as error:
            work.failures += [failure_of(item, error, Stage.EMBED, attempts=claim.attempts) for item, _ in batch]
            return
        usable = ~invalid_rows(vectors)
        for (item, decoded), fits in zip(batch, usable, strict=True):
            if fits:
                work.images.append(_row(claim, item, decoded))
            else:
                work.failures.append(failure_of(item, EmbeddingInvalid(), Stage.EMBED, attempts=claim.attempts))
        work.vectors.append(vectors[usable])

    def _store(self, claim: ChunkClaim, work: _Work, keep: Callable[[], None]) -> None:
        """Upsert what was embedded; where Milvus refuses the rows for good, find those it refuses one by one."""
        if not work.images:
            return
        name, vectors = claim.request.collection, np.concatenate(work.vectors)
        try:
            self._context.vectors.upsert(name, work.images, vectors)
        except VectorStoreRejected:
            log.warning("chunk %d of job %s was rejected; storing its rows one by one", claim.number, claim.job_id)
        else:
            return
        taken: list[StoredImage] = []
        for image, vector in zip(work.images, vectors, strict=True):
            keep()
            try:
                self._context.vectors.upsert(name, [image], vector[np.newaxis])
            except VectorStoreRejected as error:
                item = IngestItem(uri=image.uri, name=image.name)
                work.failures.append(failure_of(item, error, Stage.STORE, attempts=claim.attempts))
            else:
                taken.append(image)
        work.images = taken


def _row(claim: ChunkClaim, item: IngestItem, decoded: Decoded) -> StoredImage:
    return StoredImage(
        id=image_id(decoded.uri),
        uri=decoded.uri,
        name=item.name,
        sha256=decoded.sha256,
        size=decoded.size,
        mtime_ns=decoded.mtime_ns,
        width=decoded.width,
        height=decoded.height,
        job=claim.job_id,
        metadata=claim.request.metadata,
    )
