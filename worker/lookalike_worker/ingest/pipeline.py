"""The pipeline: chunks read, embedded and stored at the same time, so that none of the three waits for the others.

    reader thread              ring's thread             writer thread
    claim -> read, decode  ->  fill batches, embed  ->   store -> account -> report

Chunks go one way, and each is one stage's at a time; only what says that one has to stop is seen by all. How far a
chunk may be stopped: after any batch. What was embedded until then is stored. A cancelled chunk is accounted for with
that; one that is given back finds those rows again at its next attempt, by the job that stored them.

A chunk that was tried before is done alone: if it is what killed or broke a worker, it takes no other with it again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np

from lookalike.errors import MissingExtra, Quarantined, QueueUnavailable, SetupError, VectorStoreUnavailable
from lookalike.jobstore import ChunkClaim, ChunkOutcome, Lane, Receipt
from lookalike.records import IngestResult, Stage
from lookalike_worker.context import Context
from lookalike_worker.ingest.channel import Channel, Closed
from lookalike_worker.ingest.chunk import Chunk, Picture
from lookalike_worker.ingest.chunks import ChunkReader
from lookalike_worker.ingest.embedding import Embedding
from lookalike_worker.ingest.holding import Holding, Lost
from lookalike_worker.ingest.ledger import failure_of
from lookalike_worker.ingest.storing import store

log = logging.getLogger(__name__)

_NO_PIXELS: Final = np.empty(0, dtype=np.uint8)
#: What the next chunk meets as well: the others in hand are given back untried.
_OF_THIS_WORKER: Final = (VectorStoreUnavailable, QueueUnavailable, SetupError)


#: Celery's loop stands still meanwhile, and after 900 s a message that is not acknowledged is delivered once more.
_LONGEST_S: Final = 300.0


class GivenBack(Exception):
    """The chunk is undone for no fault of its own: the worker ends, or cannot go on, or the job is paused."""


class Desk(Protocol):
    """Where a pipeline has its chunks from, and says what became of them. Called from the pipeline's threads."""

    def claim(self) -> ChunkClaim | None:
        """Claim the next chunk, if one waits. Raises `QueueUnavailable`."""

    def report(self, claim: ChunkClaim, outcome: Receipt | Exception) -> None:
        """Take the job store's receipt for a chunk, or why there is none. Raises `QueueUnavailable`."""


class _End(Enum):
    END = auto()


class _Halt(Exception):
    """Stop reading a chunk."""


class Pipeline:
    """Processes chunks; `stopping` tells whether the worker has been asked to end."""

    def __init__(self, context: Context, desk: Desk, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._desk = desk
        self._stopping = stopping
        self._reader = ChunkReader(context)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pipeline")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
        self._reader.close()

    def run(self, claim: ChunkClaim) -> None:
        """Process a chunk, and after it all others that the desk has, until there is none."""
        flow = _Flow(self._context, self._desk, self._stopping, self._reader)
        aside = [self._threads.submit(flow.read, claim), self._threads.submit(flow.write)]
        flow.embed()
        wait(aside)
        flow.end()


class _Flow:
    """One run of a pipeline: its stages, and the channels between them."""

    def __init__(self, context: Context, desk: Desk, stopping: Callable[[], bool], reader: ChunkReader) -> None:
        self._context = context
        self._desk = desk
        self._stopping = stopping
        self._reader = reader
        settings, heart = context.settings, context.heart
        batch = context.embedder.engine.batch_images
        # One is stored, one is read, and the others fill the batch that is embedded and the next.
        self._most = 2 + -(-2 * batch // settings.chunk_images)
        self._holding = Holding(context.jobs, heart, stopping, most=self._most, lease_s=settings.lease_s)
        self._read: Channel[Picture | Chunk | _End] = Channel(heart.beat, room=2 * batch)
        self._done: Channel[Chunk | _End] = Channel(heart.beat, room=self._most + 1)
        self._suspect_waits = False  # For nothing else to be in hand.
        self._has_failed = False  # Then what is in hand is the last of this run.
        self._is_broken = False  # By what the others in hand would meet as well.
        self._died_of: BaseException | None = None
        self._began_s = time.monotonic()

    def end(self) -> None:
        """Give up what a defect left in hand; raises what is none."""
        if self._died_of is None:
            return
        if not isinstance(self._died_of, Exception):
            raise self._died_of
        for chunk in self._holding.chunks():
            self._report(chunk.claim, self._died_of)

    # --- Reading ---

    def read(self, claim: ChunkClaim | None) -> None:
        """Read chunks until there are no more. In a thread of its own."""
        with self._stage():
            while claim:
                self._begin(claim)
                claim = self._next()
            self._read.put(_End.END)

    def _next(self) -> ChunkClaim | None:
        """Claim the next chunk as soon as there is room for it; None where there is none, and nothing is in hand."""
        while True:
            # Nothing is claimed ahead while a suspect waits, or those of other jobs would have its turns for ever.
            may_claim = self._has_nothing if self._suspect_waits else self._holding.has_room
            if not may_claim():
                self._wait_until(may_claim)
            if self._is_broken or self._stopping():
                return None
            if self._has_failed or time.monotonic() - self._began_s > _LONGEST_S:
                self._context.doorbell.ring(Lane.INGEST)
                return None
            in_hand = len(self._holding.chunks())
            try:
                with self._read.idle():  # The desk may have to plan before.
                    claim = self._desk.claim()
            except QueueUnavailable as error:
                log.warning("no more is claimed for now: %s", error)
                claim = None
            if claim and self._is_suspect(claim) and not self._has_nothing():
                # If one of those in hand kills this worker, the attempt of one that is held is burnt, though not begun.
                self._suspect_waits = True
                self._report(claim, GivenBack())
                continue
            if claim or not in_hand:
                return claim
            # What is in hand may be the last of its look-ahead.
            self._wait_until(lambda: len(self._holding.chunks()) < in_hand)  # noqa: B023 - it is called at once

    def _begin(self, claim: ChunkClaim) -> None:
        if claim.attempts > self._context.settings.max_attempts:
            self._report(claim, self._isolate(claim))
            return
        chunk = Chunk(claim)
        self._holding.take(chunk)
        if self._holding.overlaps(chunk):
            self._wait_until(lambda: self._holding.chunks() == [chunk])
        self._read_chunk(chunk)
        if self._is_suspect(claim):
            self._suspect_waits = False
            self._wait_until(self._has_nothing)

    def _is_suspect(self, claim: ChunkClaim) -> bool:
        """Tell whether a chunk may be what killed or broke a worker."""
        return 1 < claim.attempts <= self._context.settings.max_attempts

    def _has_nothing(self) -> bool:
        return not self._holding.chunks()

    def _read_chunk(self, chunk: Chunk) -> None:
        def keep() -> None:
            self._context.heart.beat()
            if self._holding.must_stop(chunk):
                raise _Halt

        try:
            for file, decoded in self._reader.read(chunk, keep):
                facts = replace(decoded, pixels=_NO_PIXELS)
                self._read.put(Picture(chunk, file, facts, decoded.pixels))
        except _Halt:
            chunk.is_cut = True
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 - the desk says what becomes of it
            self._fail(chunk, error)
        self._read.put(chunk)

    def _isolate(self, claim: ChunkClaim) -> Receipt | Exception:
        """Halve a chunk that workers died on, until the file that kills them stands alone."""
        jobs = self._context.jobs
        try:
            if len(claim.items) > 1:
                log.warning("chunk %d of job %s has killed its workers; halving it", claim.number, claim.job_id)
                return Receipt.ACCEPTED if jobs.split(claim) else Receipt.REFUSED
            failure = failure_of(claim.items[0], Quarantined(), Stage.EMBED, attempts=claim.attempts - 1)
            return jobs.account(claim, ChunkOutcome(failures=(failure,)))
        except QueueUnavailable as error:
            return error

    def _wait_until(self, met: Callable[[], bool]) -> None:
        with self._read.idle():
            self._holding.wait_until(lambda: met() or self._died_of is not None)
        if self._died_of:
            raise Closed

    # --- Embedding ---

    def embed(self) -> None:
        """Embed what is read until there is no more. In the thread that holds the network."""
        embedding = Embedding(self._context, self._holding.must_stop, most=self._most)
        with self._stage():
            while True:
                self._keep()
                thing = self._read.take(when_idle=embedding.is_waiting)
                if isinstance(thing, Picture):
                    embedding.take(thing)
                elif isinstance(thing, Chunk):
                    embedding.end(thing)
                elif thing is _End.END or self._read.runs_dry:
                    while embedding.is_waiting:
                        self._keep()
                        embedding.embed()
                for chunk in embedding.complete():
                    self._done.put(chunk)
                if thing is _End.END:
                    self._done.put(_End.END)
                    return

    def _keep(self) -> None:
        try:
            self._holding.keep()
        except QueueUnavailable as error:
            for chunk in self._holding.chunks():
                self._fail(chunk, error)

    # --- Storing ---

    def write(self) -> None:
        """Store and account for what is embedded until there is no more. In a thread of its own."""
        with self._stage():
            while (chunk := self._done.take()) is not _End.END:
                if chunk is None:
                    continue
                outcome = self._settle(chunk)
                if isinstance(outcome, Exception):
                    self._fail(chunk, outcome)
                if outcome:
                    self._report(chunk.claim, outcome)
                self._holding.let_go(chunk)

    def _settle(self, chunk: Chunk) -> Receipt | Exception | None:
        """Store a chunk and account for it; None where its claim is lost."""
        context, claim, holding = self._context, chunk.claim, self._holding
        if chunk.is_void:
            return None if chunk.is_lost else chunk.error
        try:
            # Neither a pause nor a cancel ends this: there is little left to do, and much to lose.
            holding.persist(chunk, lambda: store(context, chunk.work, lambda: holding.confirm(chunk)))
            if chunk.error or (chunk.is_cut and not chunk.is_cancelled):
                return chunk.error or GivenBack()
            context.crash.reach("before_accounting")
            result = IngestResult(collection=chunk.collection, model=context.embedder.model).model_dump(mode="json")
            return holding.persist(chunk, lambda: context.jobs.account(claim, chunk.work.outcome(), result=result))
        except Lost:
            return None
        except Exception as error:  # noqa: BLE001 - the desk says what becomes of it
            return error

    def _report(self, claim: ChunkClaim, outcome: Receipt | Exception) -> None:
        try:
            self._desk.report(claim, outcome)
        except QueueUnavailable as error:
            log.warning("work in hand lapses with its lease: %s", error)
        self._context.crash.reach("after_accounting")

    # --- All of them ---

    def _fail(self, chunk: Chunk, error: Exception) -> None:
        """Stop a chunk, and where they would meet the same, all others."""
        chunk.stop(error)
        if isinstance(error, GivenBack):
            return
        self._has_failed = True
        if isinstance(error, _OF_THIS_WORKER) and not isinstance(error, MissingExtra):
            self._is_broken = True
            for other in self._holding.chunks():
                other.stop(GivenBack())

    @contextmanager
    def _stage(self) -> Iterator[None]:
        try:
            with self._context.heart.at_work():
                yield
        except Closed:
            pass
        except BaseException as error:  # noqa: BLE001 - the ring's thread raises it
            self._died_of = self._died_of or error
            self._read.close()
            self._done.close()
