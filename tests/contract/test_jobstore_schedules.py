"""Random schedules: whatever the order of claims, deaths, late answers, pauses and cancels, every file is counted once.

A schedule is a list of moves drawn from a seed. Each move is made on a pair of stores, which have to answer alike: the
one on Redis and its twin, or two twins in memory. Time passes on request: the twin has a clock of ours, and on Redis
the leases and delays are moved closer instead. A failure names its schedule; give that number to `SEEDS` to repeat it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import redis
from jobstores import LASTING, PROBLEM

from lookalike.jobstore import (
    Change,
    ChunkClaim,
    ChunkOutcome,
    IngestItem,
    JobStore,
    Phase,
    PlanClaim,
    Planned,
    Receipt,
)
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.jobstore.redis import PREFIX, RedisJobStore
from lookalike.records import (
    Failure,
    FolderSource,
    IngestRequest,
    JobKind,
    JobRecord,
    JobState,
    Priority,
    Stage,
    WaitingFor,
    Webhook,
)

FIRST: Final = random.SystemRandom().randrange(10**9)
SEEDS: Final = range(FIRST, FIRST + 200)
MEMORY_SEEDS: Final = range(FIRST + 1000, FIRST + 1500)
MOVES: Final = 40
ROUNDS: Final = 200  # In which a schedule has to come to its end, once nobody interferes any more.
CAP: Final = LASTING.max_attempts
CLOSER: Final = """
for _, key in ipairs(KEYS) do
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ARGV[1], member) end
end
"""
Claim = PlanClaim | ChunkClaim


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Side:
    """One of the two stores, with a way to let time pass in it."""

    store: JobStore
    pass_time: Callable[[int], None]
    jobs: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


def memory_side() -> Side:
    clock = Clock()

    def pass_time(seconds: int) -> None:
        clock.now_s += seconds

    return Side(MemoryJobStore(LASTING, clock=clock), pass_time)


def redis_side(client: "redis.Redis") -> Side:
    closer = client.register_script(CLOSER)

    def pass_time(seconds: int) -> None:
        closer(keys=[PREFIX + name for name in ("leases", "delayed", "webhooks")], args=[1000 * seconds])

    client.flushdb()
    return Side(RedisJobStore(client, LASTING), pass_time)


@dataclass
class Source:
    """What a job finds, and what has become of it by the store's receipts."""

    request: IngestRequest
    listed: list[str]
    gone: list[str]
    poison: set[str]  #: Files that kill whoever works on them.
    became: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, what: str) -> None:
        """Note what became of a file: once, whatever happens."""
        assert name not in self.became, f"{name} was {self.became[name]}, and is {what}"
        self.became[name] = what


FATES: Final = ("added", "changed", "moved", "unchanged", "failed")


def fate(name: str) -> str:
    """What a worker or planner makes of a file; the same whoever asks."""
    return FATES[sum(map(ord, name)) % len(FATES)]


def failure_of(name: str) -> Failure:
    return Failure(uri=f"file:///{name}", code="image_corrupt", message="", stage=Stage.DECODE, name=name)


class Schedule:
    """One schedule on two stores. Every answer of one is compared with the other's."""

    def __init__(self, seed: int, sides: Sequence[Side]) -> None:
        self.random = random.Random(seed)
        self.sides = sides
        self.sources: list[Source] = []
        self.listed: dict[int, int] = {}  # How far the planner with a claim has come.

    def both(self, call: Callable[[Side], Any]) -> Any:
        first, second = (call(side) for side in self.sides)
        assert first == second
        return first

    # --- Moves ---

    def submit(self) -> None:
        draw, number = self.random, len(self.sources)
        files = [f"{number}-{index}" for index in range(draw.randrange(14))]
        sync = draw.random() < 0.4
        request = IngestRequest(
            source=FolderSource(path=str(number)),
            sync=sync,
            dry_run=draw.random() < 0.2,
            priority=draw.choice(list(Priority)),
            webhook=Webhook(url="https://example.com") if draw.random() < 0.5 else None,
        )
        gone = [f"{number}-gone-{index}" for index in range(draw.randrange(6))] if sync else []
        poison = set(draw.sample(files, len(files) // 8))
        self.sources.append(Source(request, files, gone, poison))
        self.both(lambda side: side.jobs.append(side.store.create(JobKind.INGEST, request)[0].id))

    def claim(self) -> bool:
        def call(side: Side) -> object:
            claim = side.store.claim_ingest()
            if claim is None:
                return None
            side.claims.append(claim)
            told = {name: value for name, value in vars(claim).items() if name not in {"token", "job_id"}}
            return type(claim), side.jobs.index(claim.job_id), told

        if self.both(call) is None:
            return False
        claim = self.sides[0].claims[-1]
        assert claim.attempts <= CAP + 1
        if claim.attempts > CAP:  # As every worker does first of all.
            self.isolate(len(self.sides[0].claims) - 1)
        return True

    def isolate(self, index: int) -> None:
        claim = self.sides[0].claims[index]
        if isinstance(claim, PlanClaim):
            self.both(lambda side: side.store.fail(side.claims[index], PROBLEM))
        elif len(claim.items) > 1:
            self.both(lambda side: side.store.split(cast("ChunkClaim", side.claims[index])))
        else:
            self.account(index, dict.fromkeys((item.name for item in claim.items), "failed"))

    def work(self, index: int) -> None:
        """One step on a claim, whether or not it still holds."""
        claim = self.sides[0].claims[index]
        if isinstance(claim, PlanClaim):
            self.plan(index, claim)
        elif not self.source(claim).poison.intersection(item.name for item in claim.items):
            fates = {item.name: "removed" if item.change is Change.REMOVED else fate(item.name) for item in claim.items}
            self.account(index, fates)

    def source(self, claim: Claim) -> Source:
        return self.sources[self.sides[0].jobs.index(claim.job_id)]

    def account(self, index: int, fates: dict[str, str]) -> None:
        counts = Counter(fates.values())
        failures = tuple(failure_of(name) for name, what in fates.items() if what == "failed")
        told = {what: counts[what] for what in (*FATES[:4], "removed")}
        outcome = ChunkOutcome(**told, duplicates=counts["added"] // 2, failures=failures, stage_ms={Stage.READ: 7})
        receipt = self.both(lambda side: side.store.account(cast("ChunkClaim", side.claims[index]), outcome))
        if receipt is not Receipt.REFUSED:
            for name, what in fates.items():
                self.source(self.sides[0].claims[index]).take(name, what)

    def plan(self, index: int, claim: PlanClaim) -> None:
        """List to the end of the look-ahead, or a few chunks only: the planner died, or is very slow."""
        source = self.source(claim)
        files = source.listed if claim.phase is Phase.LIST else source.gone
        position: int = self.listed.get(index, int(claim.cursor or 0))
        room: int | None = claim.room
        steps = self.random.randrange(1, 9)
        while room and position < len(files):
            if not steps:
                return
            following = min(len(files), position + self.random.randrange(1, 5))
            room = self.add_chunk(index, files[position:following], str(following))
            self.listed[index] = position = following
            steps -= 1
        finished = room is not None and position == len(files)
        self.both(lambda side: side.store.end_plan(cast("PlanClaim", side.claims[index]), finished=finished))

    def add_chunk(self, index: int, names: Sequence[str], cursor: str) -> int | None:
        claim = cast("PlanClaim", self.sides[0].claims[index])
        source, prune = self.source(claim), claim.phase is Phase.PRUNE
        fates = {name: "removed" if prune else fate(name) for name in names}
        if not source.request.dry_run:  # The planner deals with what is unchanged, and leaves the rest to workers.
            fates = {name: what for name, what in fates.items() if what == "unchanged" and name not in source.poison}
        counts = Counter(fates.values())
        failures = tuple(failure_of(name) for name, what in fates.items() if what == "failed")
        planned = Planned(**{what: counts[what] for what in (*FATES[:4], "removed")}, failures=failures)
        change = Change.REMOVED if prune else Change.ADDED
        items = [IngestItem(uri=f"file:///{name}", name=name, change=change) for name in names if name not in fates]
        if source.request.dry_run:
            items = []

        def call(side: Side) -> int | None:
            return side.store.add_chunk(cast("PlanClaim", side.claims[index]), items, cursor=cursor, planned=planned)

        room = self.both(call)
        if self.random.random() < 0.2:
            assert self.both(call) == room  # A repeat, as after a lost answer.
        if room is not None:
            for name, what in fates.items():
                source.take(name, what)
        return cast("int | None", room)

    def give_back(self, index: int) -> None:
        delay_s, burn = self.random.choice([0, 0, 10, 30]), self.random.random() < 0.5
        waiting_for = self.random.choice([None, *WaitingFor])
        self.both(
            lambda side: side.store.give_back(
                side.claims[index], delay_s=delay_s, burn_attempt=burn, waiting_for=waiting_for
            )
        )

    def sweep(self, seconds: int) -> None:
        for side in self.sides:
            side.pass_time(seconds)
        self.both(lambda side: side.store.sweep())

    def meddle(self, name: str) -> None:
        job = self.random.randrange(len(self.sources))
        self.both(lambda side: getattr(side.store, name)(side.jobs[job]).state)

    def move(self) -> None:
        claims = len(self.sides[0].claims)
        move = self.random.choices(
            ["submit", "claim", "work", "renew", "give_back", "sweep", "pause", "resume", "cancel", "fail"],
            [2, 10, 14, 3, 2, 4, 1.5, 1, 0.4, 0.15],
        )[0]
        # Old claims are as good as new ones: those are the late answers and the doubled ones.
        index = claims - 1 - min(int(self.random.expovariate(0.4)), claims - 1) if claims else None
        if move == "submit":
            self.submit()
        elif move == "claim":
            self.claim()
        elif move == "sweep":
            self.sweep(self.random.choice([5, 25, 70]))
        elif move in {"pause", "resume", "cancel"}:
            self.meddle(move)
        elif index is not None:
            if move == "renew":
                self.both(lambda side: side.store.renew(side.claims[index]))
            elif move == "fail":
                self.both(lambda side: side.store.fail(side.claims[index], PROBLEM))
            else:
                getattr(self, move)(index)

    # --- The end ---

    def records(self) -> Iterator[tuple[Source, JobRecord]]:
        for source, *pair in zip(self.sources, *(side.jobs for side in self.sides), strict=True):
            records = [side.store.get(job_id) for side, job_id in zip(self.sides, pair, strict=True)]
            volatile = {"id", "created_at", "started_at", "finished_at", "progress"}
            first, second = (record.model_dump(exclude=volatile) for record in records)
            assert first == second
            first, second = (record.progress.model_dump(exclude={"images_per_s", "eta_s"}) for record in records)
            assert first == second
            yield source, records[0]

    def wind_down(self) -> None:
        """From here on nobody interferes, and workers die only of poison."""
        self.both(lambda side: [side.store.resume(job_id).paused for job_id in side.jobs])
        for _ in range(ROUNDS):
            self.sweep(75)
            while self.claim():
                self.work(len(self.sides[0].claims) - 1)
            if all(self.sides[1].store.get(job_id).state.final for job_id in self.sides[1].jobs):
                return
        raise AssertionError("a job did not end")

    def check(self) -> None:
        for source, record in self.records():
            progress, became = record.progress, Counter(source.became.values())
            for what in (*FATES, "removed"):
                assert getattr(progress, what) == became[what], what
            assert progress.done == sum(became[what] for what in FATES)
            if record.state is JobState.SUCCEEDED:
                assert set(source.became) == {*source.listed, *source.gone}
                assert progress.total == progress.done
            assert (record.paused, record.waiting_for) == (False, None)

    def deliver(self) -> None:
        wanted = sum(source.request.webhook is not None for source in self.sources)
        for _ in range(wanted):
            claims = [side.store.claim_webhook() for side in self.sides]
            for side, claim in zip(self.sides, claims, strict=True):
                assert claim is not None
                side.store.end_webhook(claim)
        assert self.both(lambda side: side.store.claim_webhook()) is None

    def run(self) -> None:
        self.submit()
        for _ in range(MOVES):
            self.move()
        self.wind_down()
        self.check()
        self.deliver()


def run(seed: int, sides: Sequence[Side]) -> None:
    try:
        Schedule(seed, sides).run()
    except Exception as error:
        error.add_note(f"in the schedule with the seed {seed}")
        raise


def test_random_schedules_end_with_each_file_in_one_state_and_leave_no_key_for_ever(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for seed in SEEDS:
            run(seed, [redis_side(client), memory_side()])
            keys = cast("list[str]", client.keys("*"))
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.pttl(key)
            lasting = [key for key, ttl in zip(keys, pipe.execute(), strict=True) if ttl == -1]
            assert lasting == [], f"after the schedule with the seed {seed}"


def test_many_more_random_schedules_end_alike_in_memory() -> None:
    for seed in MEMORY_SEEDS:
        run(seed, [memory_side(), memory_side()])
