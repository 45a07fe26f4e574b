"""Embedding: decoded files gathered into full batches, without those whose content is known.

While one batch goes through the network, a thread asks the collection for the contents of the next.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future

import numpy as np
from numpy.typing import NDArray

from lookalike.decodepool import Decoded
from lookalike.errors import EmbeddingInvalid, ImageError
from lookalike.records import Stage
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.ingest.duplicates import Duplicates, Known
from lookalike_worker.ingest.work import File, Work, Written, image_of
from lookalike_worker.keeping import result_of

_Read = tuple[File, Decoded]


class Embedding:
    """Embeds the files of one chunk."""

    def __init__(
        self, context: Context, work: Work, duplicates: Duplicates, executor: Executor, keep: Callable[[], None]
    ) -> None:
        self._context = context
        self._work = work
        self._duplicates = duplicates
        self._executor = executor
        self._keep = keep
        self._batch: list[_Read] = []
        self._asked: deque[tuple[list[_Read], Future[dict[str, Known]]]] = deque()
        self._ready: list[_Read] = []
        self._followers: dict[str, list[_Read]] = {}  # By the content of a file that waits to be embedded.
        self._embedded: dict[str, Written] = {}

    def add(self, file: File, decoded: Decoded) -> None:
        """Take a file; embeds as soon as a batch is full."""
        self._batch.append((file, decoded))
        if len(self._batch) >= self._context.embedder.engine.batch_images:
            self._ask()
            if len(self._asked) > 1:
                self._take_answer()
            while len(self._ready) >= self._context.embedder.engine.batch_images:
                self._embed()

    def finish(self) -> None:
        """Embed what is left."""
        if self._batch:
            self._ask()
        while self._asked:
            self._take_answer()
        while self._ready:
            self._embed()

    def drop(self) -> None:
        """Forget what is not embedded."""
        for _, answer in self._asked:
            answer.cancel()
        self._batch, self._ready = [], []
        self._asked.clear()

    def _ask(self) -> None:
        contents = [decoded.sha256 for _, decoded in self._batch]
        self._asked.append((self._batch, self._executor.submit(self._duplicates.look_up, contents)))
        self._batch = []

    def _take_answer(self) -> None:
        files, answer = self._asked.popleft()
        with self._work.timed(Stage.STORE):
            known = result_of(answer, self._keep)
        for file, decoded in files:
            if self._duplicates.settle(file, decoded, known.get(decoded.sha256)):
                continue
            if decoded.sha256 in self._embedded:
                self._duplicates.link(file, decoded, self._embedded[decoded.sha256])
            elif decoded.sha256 in self._followers:
                self._followers[decoded.sha256].append((file, decoded))
            else:
                self._followers[decoded.sha256] = []
                self._ready.append((file, decoded))

    def _embed(self) -> None:
        self._keep()
        most = self._context.embedder.engine.batch_images
        batch, self._ready = self._ready[:most], self._ready[most:]
        try:
            with self._work.timed(Stage.EMBED):
                vectors = self._context.embedder.engine.embed(np.stack([decoded.pixels for _, decoded in batch]))
        except ImageError as error:
            self._fail(batch, error)
            return
        for (file, decoded), vector, invalid in zip(batch, vectors, invalid_rows(vectors), strict=True):
            if invalid:
                self._fail([(file, decoded)], EmbeddingInvalid())
            else:
                self._write(file, decoded, vector)
        if self._ready or self._batch or self._asked:
            self._context.crash.reach("mid_batch")

    def _write(self, file: File, decoded: Decoded, vector: NDArray[np.float32]) -> None:
        written = self._work.write(file, image_of(self._work.claim, file, decoded), vector)
        self._embedded[decoded.sha256] = written
        for follower, its in self._followers.pop(decoded.sha256, []):
            self._duplicates.link(follower, its, written)

    def _fail(self, batch: list[_Read], error: ImageError) -> None:
        for file, decoded in batch:
            for failed, _ in [(file, decoded), *self._followers.pop(decoded.sha256, [])]:
                self._work.fail(failed, error, Stage.EMBED)
