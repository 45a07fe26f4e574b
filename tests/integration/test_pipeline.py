"""Several chunks in hand at once: what overlaps, shown by stages that wait for each other, and what ends them.

Real decoders and a real vector store around a job store in memory, whose clock is the test's.
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from ingest_parts import after_batches, counts, draw, engine_of, many, pool_of, submit, work_off
from lookalike.errors import VectorStoreUnavailable
from lookalike.jobstore import ChunkClaim, Lane, Limits
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.records import FolderSource, JobState, WaitingFor
from lookalike.vectorstore import StoredImage
from lookalike_worker import lanes
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane

pytestmark = pytest.mark.usefixtures("keen_keepers")

PATIENCE_S: Final = 30.0  #: How long a stage waits for another: what never comes is a failure.

Make = Callable[..., "Worker"]


class Worker:
    """A worker's parts around a job store in memory, and what its stages have come to."""

    def __init__(self, context: Context) -> None:
        self.now_s = time.time()
        self.jobs = MemoryJobStore(Limits.from_settings(context.settings), clock=lambda: self.now_s)
        self.context = replace(context, jobs=self.jobs)
        self.stopping = False
        self.lane = IngestLane(self.context, lambda: self.stopping)

    def begin(self, collection: str) -> str:
        """Submit the root, and plan it."""
        job_id = submit(self.context, collection)
        self.lane.ring()
        return job_id

    def finish(self, job_id: str) -> dict[str, int]:
        """Work a job off, and return its counts."""
        record = work_off(self.context, job_id, wait_s=0)
        assert record.state is JobState.SUCCEEDED
        return counts(record)

    def asked_for(self, name: str) -> Callable[[], bool]:
        """Tell whether a file is being decoded: then the chunk it is in is in hand."""
        return lambda: ("decode", name) in pool_of(self.context).asked

    def upserts(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[list[StoredImage]], None]) -> None:
        """Have something done before each write of rows."""
        upsert = self.context.vectors.upsert

        def wrapped(name: str, images: list[StoredImage], vectors: NDArray[np.float32]) -> None:
            before(images)
            upsert(name, images, vectors)

        monkeypatch.setattr(self.context.vectors, "upsert", wrapped)


def until(met: Callable[[], bool]) -> None:
    """Hold a stage up until another one has got somewhere."""
    ends_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < ends_s, "the stages wait for each other"
        time.sleep(0.005)


@pytest.fixture
def make(make_worker: Callable[..., Context]) -> Any:
    made: list[Worker] = []

    def worker(**settings: object) -> Worker:
        made.append(Worker(make_worker(**{"chunk_images": 4, "lease_s": 60, **settings})))
        return made[-1]

    yield worker
    for one in made:
        one.lane.close()


# --- What overlaps --------------------------------------------------------------------------------------------------


def test_a_chunk_is_embedded_while_the_one_before_it_is_stored(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 8)
    worker = make()
    job_id = worker.begin("storing")
    worker.upserts(monkeypatch, lambda _: until(lambda: len(engine_of(worker.context).seen) == 2))
    worker.lane.ring()
    assert counts(worker.jobs.get(job_id)) == {"added": 8}


def test_a_chunk_is_decoded_while_the_one_before_it_is_embedded(make: Make, image_root: Path) -> None:
    many(image_root, 8)
    worker = make()
    job_id = worker.begin("decoding")
    after_batches(worker.context, 0, lambda: until(worker.asked_for("p07.png")))
    worker.lane.ring()
    assert counts(worker.jobs.get(job_id)) == {"added": 8}


def test_batches_are_filled_from_one_chunk_to_the_next_and_the_last_does_not_wait(make: Make, image_root: Path) -> None:
    many(image_root, 17)
    worker = make(chunk_images=6)
    assert worker.finish(worker.begin("filled")) == {"added": 17}
    assert engine_of(worker.context).seen == [4, 4, 4, 4, 1]


def test_copies_in_two_chunks_in_hand_are_embedded_once_and_linked(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 4)
    draw(image_root, q0=0, q1=9)
    worker = make()
    job_id = worker.begin("copies")
    looked_up: list[int] = []
    same_content = worker.context.vectors.same_content

    def counted(name: str, sha256s: list[str]) -> Any:
        try:
            return same_content(name, sha256s)
        finally:
            looked_up.append(len(sha256s))

    monkeypatch.setattr(worker.context.vectors, "same_content", counted)
    # The first chunk is not stored before the second one's contents were looked for, in vain.
    worker.upserts(monkeypatch, lambda _: until(lambda: len(looked_up) == 2))
    worker.lane.ring()
    assert counts(worker.jobs.get(job_id)) == {"added": 6, "duplicates": 1}
    assert sum(engine_of(worker.context).seen) == 5


def test_a_worker_holds_no_more_chunks_than_it_can_begin(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 32)
    worker = make()
    worker.begin("hoarding")
    waiting: list[int] = []
    worker.upserts(monkeypatch, lambda _: waiting.append(worker.jobs.sweep().waiting[Lane.INGEST]))
    worker.lane.ring()
    # One is stored, one is read, and two fill a batch each: of eight, four are left to others.
    assert waiting[0] >= 4


# --- What stops them ------------------------------------------------------------------------------------------------


def two_in_hand(worker: Worker, act: Callable[[], object]) -> None:
    """Do something in the midst of the first chunk of eight, while the second is being read."""

    def once() -> None:
        until(worker.asked_for("p08.png"))
        act()

    after_batches(worker.context, 1, once)


def held(worker: Worker) -> list[ChunkClaim]:
    """Claim all chunks that wait."""
    claims = []
    while claim := worker.jobs.claim_ingest():
        assert isinstance(claim, ChunkClaim)
        claims.append(claim)
    return claims


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_a_worker_that_is_to_stop_gives_all_chunks_back_untried_and_keeps_what_it_embedded(
    make: Make, image_root: Path, how: str
) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin(f"stopped_{how}")

    def stop() -> None:
        if how == "pause":
            worker.jobs.pause(job_id)
        worker.stopping = how == "stop"

    two_in_hand(worker, stop)
    worker.lane.ring()
    assert engine_of(worker.context).seen == [4, 4], "the batch under way, and none after it"
    assert worker.context.vectors.count(f"stopped_{how}") == 8
    progress = worker.jobs.get(job_id).progress
    worker.jobs.resume(job_id)
    claims = held(worker)
    # The first chunk may have been complete with that batch.
    assert progress.done + 8 * len(claims) == 16
    assert {claim.attempts for claim in claims} == {1}
    for claim in claims:
        worker.jobs.give_back(claim, burn_attempt=False)
    assert worker.finish(job_id) == {"added": 16}
    assert sum(engine_of(worker.context).seen) == 16, "nothing is embedded twice"


def test_a_cancel_with_two_chunks_in_hand_counts_what_is_stored(make: Make, image_root: Path) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin("cancelled_both")
    two_in_hand(worker, lambda: worker.jobs.cancel(job_id))
    worker.lane.ring()
    record = worker.jobs.get(job_id)
    assert record.state is JobState.CANCELLED
    assert record.progress.stored == worker.context.vectors.count("cancelled_both") == 8


def test_claims_that_lapse_behind_the_network_write_nothing(make: Make, image_root: Path) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin("lapsed")
    successor: list[ChunkClaim] = []

    def lapse() -> None:
        worker.now_s += 61
        assert worker.jobs.sweep().lapsed == 2
        successor.extend(held(worker))

    two_in_hand(worker, lapse)
    worker.lane.ring()
    assert worker.context.vectors.count("lapsed") == 0, "they may have been removed again by now"
    assert [claim.attempts for claim in successor] == [2, 2]
    for claim in successor:
        worker.jobs.give_back(claim)
    assert worker.finish(job_id) == {"added": 16}


def test_a_store_that_fails_gives_all_chunks_back_untried(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_PAUSE_S", 0.0)
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin("failing")
    failing = threading.Event()
    failing.set()

    def fail(_: list[StoredImage]) -> None:
        if failing.is_set():
            until(worker.asked_for("p08.png"))
            raise VectorStoreUnavailable

    worker.upserts(monkeypatch, fail)
    worker.lane.ring()
    assert worker.jobs.get(job_id).waiting_for is WaitingFor.VECTOR_STORE
    worker.now_s += 3
    worker.jobs.sweep()
    claims = held(worker)
    assert [claim.attempts for claim in claims] == [1, 1]
    for claim in claims:
        worker.jobs.give_back(claim, burn_attempt=False)
    failing.clear()
    assert worker.finish(job_id) == {"added": 16}


def test_a_chunk_that_was_tried_before_is_done_alone(make: Make, image_root: Path) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin("suspect")
    burnt = held(worker)[0]
    worker.now_s += 61
    worker.jobs.sweep()  # Both have been tried once.
    left: list[int] = []
    engine_of(worker.context).before = lambda: left.append(worker.jobs.sweep().waiting[Lane.INGEST])
    worker.lane.ring()
    assert burnt.attempts == 1
    assert left == [1, 1, 0, 0]
    assert counts(worker.jobs.get(job_id)) == {"added": 16}


class Now(BaseException):
    """The process is gone."""


class Killed:
    """Crash points that raise what nobody catches, in the place of a SIGKILL, once two chunks are in hand."""

    def __init__(self, point: str, in_hand: Callable[[], bool]) -> None:
        self.point = point
        self.in_hand = in_hand

    def reach(self, point: str) -> None:
        if point == self.point:
            until(self.in_hand)
            raise Now


@pytest.mark.parametrize(
    "point", ["mid_batch", "before_upsert", "after_upsert", "before_accounting", "after_accounting"]
)
def test_a_worker_that_dies_with_two_chunks_in_hand_loses_and_doubles_nothing(
    make: Make, image_root: Path, point: str
) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    job_id = worker.begin(f"died_{point}")
    dead: Any = Killed(point, worker.asked_for("p08.png"))
    lane = IngestLane(replace(worker.context, crash=dead), lambda: False)
    with pytest.raises(Now):
        lane.ring()
    lane.close()
    worker.now_s += 61
    assert worker.jobs.sweep().lapsed == (1 if point == "after_accounting" else 2)
    assert worker.finish(job_id) == {"added": 16}
    assert worker.context.vectors.count(f"died_{point}") == 16


def test_a_chunk_that_was_tried_before_is_not_burnt_by_what_is_in_hand_before_it(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 16)
    worker = make(chunk_images=8)
    worker.begin("innocent")
    fresh, tried = held(worker)
    worker.jobs.give_back(fresh, burn_attempt=False)
    worker.jobs.give_back(tried)
    claimed: list[object] = []
    claim_ingest = worker.jobs.claim_ingest

    def counted(**how: Any) -> Any:
        claim = claim_ingest(**how)
        claimed.append(claim)
        return claim

    monkeypatch.setattr(worker.jobs, "claim_ingest", counted)
    dead: Any = Killed("before_upsert", lambda: len(claimed) == 2)
    lane = IngestLane(replace(worker.context, crash=dead), lambda: False)
    with pytest.raises(Now):
        lane.ring()
    lane.close()
    worker.now_s += 61
    worker.jobs.sweep()
    assert {claim.number: claim.attempts for claim in held(worker)} == {fresh.number: 2, tried.number: 2}


def test_a_chunk_that_was_tried_before_has_its_turn_although_another_job_goes_on(
    make: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 32)
    worker = make(chunk_images=8)
    going_on = worker.begin("going_on")
    job_id = submit(worker.context, "in_between", source=FolderSource(path=".", include=("p00.png",)))
    worker.lane.ring()
    for claim in held(worker):
        worker.jobs.give_back(claim, burn_attempt=claim.job_id == job_id)
    claim_ingest, turns = worker.jobs.claim_ingest, itertools.cycle([going_on, job_id])

    def by_turns(**how: Any) -> Any:
        turn, claims = next(turns), []
        while isinstance(claim := claim_ingest(**how), ChunkClaim):
            claims.append(claim)
        claims.sort(key=lambda claim: claim.job_id != turn)
        for other in claims[1:]:
            worker.jobs.give_back(other, burn_attempt=False)
        return claims[0] if claims else None

    monkeypatch.setattr(worker.jobs, "claim_ingest", by_turns)
    done: list[int] = []
    engine_of(worker.context).before = lambda: done.append(worker.jobs.get(job_id).progress.done)
    worker.lane.ring()
    assert done[-1] == 1, "it is not the last of all"
