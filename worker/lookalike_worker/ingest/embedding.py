"""Embedding: pictures gathered into full batches, whatever chunks they are of, and their vectors put into rows.

The second stage of the pipeline, in the thread that holds the network. Of several pictures of the same content one goes
through the network, and the others are linked to it. Knows neither files nor Milvus.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import EmbeddingInvalid, ImageError
from lookalike.records import Stage
from lookalike_worker.context import Context
from lookalike_worker.engines import Vectors, invalid_rows
from lookalike_worker.ingest.chunk import Chunk, Picture
from lookalike_worker.ingest.work import Work, Written, image_of


@dataclass(eq=False)
class _Open:
    """A chunk of which pictures may come: what they came to, and how many of them wait."""

    work: Work
    pictures: list[Picture] = field(default_factory=list)
    waiting: int = 0
    is_read: bool = False  #: No more will come.


class Embedding:
    """Embeds pictures. `must_stop` tells which chunks are not gone on with: their pictures are dropped.

    At most `most` chunks are in hand at a time, from before they are read until after they are stored.
    """

    def __init__(self, context: Context, must_stop: Callable[[Chunk], bool], *, most: int) -> None:
        self._context = context
        self._must_stop = must_stop
        self._batch: list[Picture] = []
        self._open: dict[Chunk, _Open] = {}
        self._by_content: dict[tuple[str, str], Picture] = {}  # Of what nobody can have found stored yet.
        # A chunk that was handed on may not be stored yet, or not have been when another one's contents were looked up.
        # Twice as many later neither can be.
        self._handed_on: deque[list[Picture]] = deque()
        self._remembered = 2 * most

    @property
    def is_waiting(self) -> bool:
        """Whether pictures wait for their batch to be full."""
        return bool(self._batch)

    def take(self, picture: Picture) -> None:
        """Take a picture; embeds as soon as a batch is full."""
        if self._must_stop(picture.chunk):
            picture.chunk.is_cut = True
            return
        self._opened(picture.chunk).waiting += 1
        self._place(picture)
        # Without tiles, a picture is a row, and nothing has to be added up.
        waiting = sum(one.rows for one in self._batch) if picture.rows > 1 else len(self._batch)
        if waiting >= self._context.embedder.engine.batch_images:
            self.embed()

    def end(self, chunk: Chunk) -> None:
        """Note that all of a chunk has been read."""
        self._opened(chunk).is_read = True

    def embed(self) -> None:
        """Embed a batch of what waits, be it full or not."""
        self._drop_stopped()
        batch = self._next_batch()
        if not batch:
            return
        began_s = time.monotonic()
        try:
            vectors = self._context.embedder.engine.embed(_stacked(batch))
        except ImageError as error:
            for picture in batch:
                self._fail(picture, error)
        except Exception as error:  # noqa: BLE001 - the desk says what becomes of their chunks
            for picture in batch:
                picture.chunk.stop(error)
            self._batch = batch + self._batch
            self._drop_stopped()
            return
        else:
            self._write(batch, vectors)
        each_s = (time.monotonic() - began_s) / len(batch)
        for picture in batch:
            self._opened(picture.chunk).work.stage_s[Stage.EMBED] += each_s
        if any(self._open[picture.chunk].waiting or not self._open[picture.chunk].is_read for picture in batch):
            self._context.crash.reach("mid_batch")

    def complete(self) -> Iterator[Chunk]:
        """Hand on the chunks of which nothing is left to embed."""
        self._drop_stopped()
        for chunk, opened in list(self._open.items()):
            if opened.is_read and not opened.waiting:
                del self._open[chunk]
                self._remember(opened.pictures)
                chunk.work.add(opened.work)
                yield chunk

    def _next_batch(self) -> list[Picture]:
        """Take as many of the pictures that wait as fill a batch with their rows, and one in any case."""
        most, rows, count = self._context.embedder.engine.batch_images, 0, 0
        for picture in self._batch:
            if count and rows + picture.rows > most:
                break
            rows, count = rows + picture.rows, count + 1
        batch, self._batch = self._batch[:count], self._batch[count:]
        return batch

    def _opened(self, chunk: Chunk) -> _Open:
        if chunk not in self._open:
            self._open[chunk] = _Open(Work(chunk.claim))
        return self._open[chunk]

    def _place(self, picture: Picture) -> None:
        """Put a picture into the batch, unless one of its content is there, or was."""
        first = self._by_content.get(picture.content)
        if first is None or first.chunk.is_void or first.file.id == picture.file.id:
            self._by_content[picture.content] = picture
            self._opened(picture.chunk).pictures.append(picture)
            self._batch.append(picture)
        elif first.written:
            self._link(picture, first.written)
        else:
            if first.chunk is picture.chunk:
                picture.pixels = None  # They are dropped together, if at all.
            first.followers.append(picture)

    def _write(self, batch: list[Picture], vectors: Vectors) -> None:
        ends = np.cumsum([picture.rows for picture in batch])
        parted = zip(batch, np.split(vectors, ends[:-1]), np.split(invalid_rows(vectors), ends[:-1]), strict=True)
        for picture, rows, invalid in parted:
            if invalid.any():
                self._fail(picture, EmbeddingInvalid())
                continue
            opened = self._opened(picture.chunk)
            image = image_of(picture.chunk.claim, picture.file, picture.facts)
            vector = rows if picture.pixels is not None and picture.pixels.ndim == 4 else rows[0]
            picture.written = opened.work.write(picture.file, image, vector)
            picture.pixels = None
            opened.waiting -= 1
            followers, picture.followers = picture.followers, []
            for follower in followers:
                self._link(follower, picture.written)

    def _link(self, picture: Picture, original: Written) -> None:
        """Give a picture the vector of another one."""
        opened = self._opened(picture.chunk)
        of = original.image.duplicate_of or original.image.id
        image = image_of(picture.chunk.claim, picture.file, picture.facts, duplicate_of=of)
        opened.work.write(picture.file, image, original.vector, shared=True)
        opened.waiting -= 1

    def _fail(self, picture: Picture, error: ImageError) -> None:
        self._forget(picture)
        for failed in (picture, *picture.followers):
            opened = self._opened(failed.chunk)
            opened.work.fail(failed.file, error, Stage.EMBED)
            opened.waiting -= 1

    def _drop_stopped(self) -> None:
        """Drop what waits of chunks that are to stop; what followed that waits for itself then."""
        stopped = {chunk for chunk in self._open if self._must_stop(chunk)}
        if not stopped:
            return
        waiting, self._batch = self._batch, []
        for picture in waiting:
            followers = picture.followers
            picture.followers = []
            if picture.chunk in stopped:
                self._forget(picture)
                self._drop(picture)
            else:
                self._batch.append(picture)
            for follower in followers:
                if follower.chunk in stopped:
                    self._drop(follower)
                else:
                    self._place(follower)

    def _drop(self, picture: Picture) -> None:
        picture.chunk.is_cut = True
        self._opened(picture.chunk).waiting -= 1

    def _remember(self, pictures: list[Picture]) -> None:
        self._handed_on.append(pictures)
        if len(self._handed_on) > self._remembered:
            for picture in self._handed_on.popleft():
                self._forget(picture)

    def _forget(self, picture: Picture) -> None:
        if self._by_content.get(picture.content) is picture:
            del self._by_content[picture.content]


def _stacked(batch: list[Picture]) -> NDArray[np.uint8]:
    """Return the network's input of some pictures: (rows, 224, 224, 3), the rows of each together."""
    pixels = [picture.pixels for picture in batch if picture.pixels is not None]
    return np.concatenate([one if one.ndim == 4 else one[np.newaxis] for one in pixels])
