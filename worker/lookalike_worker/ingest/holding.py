"""What a worker has in hand: the claims of its chunks, renewed together while any of them is worked on.

Chunks are taken by the stage that reads, renewed by the one that embeds, and let go by the one that stores.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lookalike.errors import QueueUnavailable
from lookalike.jobstore import JobStore, Renewal
from lookalike_worker import keeping
from lookalike_worker.heart import Heart
from lookalike_worker.ingest.chunk import Chunk

log = logging.getLogger(__name__)

T = TypeVar("T")


class Lost(Exception):
    """The claim is somebody else's by now, or the job is over: the chunk is dropped without a word."""


class Holding:
    """The chunks in hand, at most `most`."""

    def __init__(
        self, jobs: JobStore, heart: Heart, stopping: Callable[[], bool], *, most: int, lease_s: float
    ) -> None:
        self._jobs = jobs
        self._heart = heart
        self._stopping = stopping
        self._most = most
        self._lease_s = lease_s
        self._changed = threading.Condition()
        self._chunks: list[Chunk] = []
        self._asked_s = time.monotonic()

    def chunks(self) -> list[Chunk]:
        """The chunks in hand, oldest first."""
        with self._changed:
            return list(self._chunks)

    def take(self, chunk: Chunk) -> None:
        """Begin to keep a claim, which was just made."""
        with self._changed:
            self._chunks.append(chunk)

    def let_go(self, chunk: Chunk) -> None:
        """Forget a chunk that is settled."""
        with self._changed:
            self._chunks.remove(chunk)
            self._changed.notify_all()

    def has_room(self) -> bool:
        """Tell whether one more may be taken."""
        return len(self._chunks) < self._most

    def overlaps(self, chunk: Chunk) -> bool:
        """Tell whether another chunk in hand writes a row that this one looks at."""
        return any(other is not chunk and other.ids & chunk.ids for other in self.chunks())

    def wait_until(self, met: Callable[[], bool]) -> None:
        """Wait until so much is settled that a condition is met; beats meanwhile."""
        with self._changed:
            while not met():
                self._heart.beat()
                self._changed.wait(keeping.wait_s())

    def keep(self) -> None:
        """Renew all claims, about once a second however often it is called. Raises `QueueUnavailable` past a lease.

        Not while a stage hangs: who finds nothing renewed takes the work over.
        """
        self._heart.beat()
        now_s = time.monotonic()
        if now_s - self._asked_s < keeping.KEEP_EVERY_S or self._heart.silence_s() > self._lease_s:
            return
        self._asked_s = now_s
        for chunk in self.chunks():
            if not chunk.is_lost and not self._renew(chunk):
                return  # Each other one would have to be waited for as long.

    def must_stop(self, chunk: Chunk) -> bool:
        """Tell whether a chunk is not to be read or embedded any further."""
        asked = chunk.is_cancelled or chunk.is_paused or chunk.is_lost or chunk.error is not None
        return asked or self._stopping()

    def confirm(self, chunk: Chunk) -> None:
        """Make sure that a claim was held a second ago; raises `Lost`, and `QueueUnavailable` past its lease.

        Who was held up for longer than the lease must not write what its successor, or a removal, has settled.
        """
        self._heart.beat()
        if not chunk.is_lost and time.monotonic() - chunk.kept_s >= keeping.KEEP_EVERY_S:
            self._renew(chunk)
        if chunk.is_lost:
            raise Lost

    def persist(self, chunk: Chunk, call: Callable[[], T]) -> T:
        """Make a last call about a chunk, again and again while the job store is away and the lease may last."""
        while True:
            try:
                return call()
            except QueueUnavailable as error:
                if time.monotonic() - chunk.kept_s >= self._lease_s:
                    raise
                log.warning("the job store is not there; trying again while the lease lasts: %s", error)
            self._heart.beat()
            time.sleep(keeping.KEEP_EVERY_S)

    def _renew(self, chunk: Chunk) -> bool:
        """Renew one claim; False where the job store is not there, which is put up with until the lease is out."""
        now_s = time.monotonic()
        try:
            renewal = self._jobs.renew(chunk.claim)
        except QueueUnavailable:
            if now_s - chunk.kept_s >= self._lease_s:
                raise
            log.warning("the job store is not there; going on while the lease lasts")
            return False
        chunk.kept_s = now_s
        match renewal:
            case Renewal.CANCELLED:
                chunk.is_cancelled = True
            case Renewal.PAUSED:
                chunk.is_paused = True
            case Renewal.LOST:
                chunk.is_lost = True
        return True
