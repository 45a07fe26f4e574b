"""Random schedules of faults over a running service, each from a seed that its name shows."""

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

import pytest

from invariants import assert_invariants
from parts import CHUNK_IMAGES, SLOW_S, WORKERS, Parts
from proxy import Way

SEED: Final = int(os.environ.get("SEED", "20261123"))
SCHEDULES: Final = 12
FAULTS_EACH: Final = 3

#: What happens, and is over when the next thing happens. `chance` says for how long, or to whom.
Fault = Callable[[Parts, random.Random], None]


def _worker_killed(parts: Parts, chance: random.Random) -> None:
    name = chance.choice(WORKERS)
    parts.workers[name].kill()
    time.sleep(chance.uniform(0, 1))
    parts.start_workers(name)


def _worker_ended(parts: Parts, chance: random.Random) -> None:
    name = chance.choice(WORKERS)
    parts.workers[name].signal(signal.SIGTERM)
    parts.workers[name].process.wait(120)
    parts.start_workers(name)


def _worker_stopped(parts: Parts, chance: random.Random) -> None:
    with parts.workers[chance.choice(WORKERS)].stopped():
        time.sleep(chance.uniform(0.5, 5))


def _redis_stopped(parts: Parts, chance: random.Random) -> None:
    with parts.redis.stopped():
        time.sleep(chance.uniform(0.5, 4))


def _milvus_stopped(parts: Parts, chance: random.Random) -> None:
    with parts.milvus.stopped():
        time.sleep(chance.uniform(0.5, 4))


def _milvus_killed(parts: Parts, chance: random.Random) -> None:
    parts.milvus.kill()
    time.sleep(chance.uniform(0, 1))
    parts.start_milvus()


def _web_killed(parts: Parts, chance: random.Random) -> None:
    parts.web.kill()
    time.sleep(chance.uniform(0, 1))
    parts.start_web()


def _redis_reset(parts: Parts, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        parts.redis_proxy.reset_once()
        time.sleep(chance.uniform(0, 0.5))


def _milvus_reset(parts: Parts, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        parts.milvus_proxy.reset_once()
        time.sleep(chance.uniform(0, 0.5))


def _redis_cut(parts: Parts, chance: random.Random) -> None:
    parts.redis_proxy.cut()
    time.sleep(chance.uniform(0.2, 3))
    parts.redis_proxy.heal()


def _milvus_cut(parts: Parts, chance: random.Random) -> None:
    parts.milvus_proxy.cut()
    time.sleep(chance.uniform(0.2, 3))
    parts.milvus_proxy.heal()


def _milvus_deaf(parts: Parts, chance: random.Random) -> None:
    parts.milvus_proxy.swallow(Way.REPLIES)
    time.sleep(chance.uniform(0.2, 3))
    parts.milvus_proxy.heal()


def _messages_lost(parts: Parts, chance: random.Random) -> None:
    with parts.client() as client:
        client.delete("ingest")
    time.sleep(chance.uniform(0, 0.5))


FAULTS: Final[tuple[Fault, ...]] = (
    _worker_killed,
    _worker_ended,
    _worker_stopped,
    _redis_stopped,
    _milvus_stopped,
    _milvus_killed,
    _web_killed,
    _redis_reset,
    _milvus_reset,
    _redis_cut,
    _milvus_cut,
    _milvus_deaf,
    _messages_lost,
)


@pytest.mark.parametrize("seed", [SEED + number for number in range(SCHEDULES)])
def test_a_job_ends_exactly_whatever_happens_meanwhile(parts: Parts, seed: int) -> None:
    chance = random.Random(seed)
    paths = parts.draw(CHUNK_IMAGES * chance.randint(6, 14))
    broken = chance.sample(paths, 3)
    for path in broken:
        path.write_bytes(b"no picture")
    parts.milvus_proxy.delay(SLOW_S)
    ingest = parts.ingest_all(paths)
    for fault in chance.sample(FAULTS, FAULTS_EACH):
        time.sleep(chance.uniform(0, 1))
        fault(parts, chance)
    failed = dict.fromkeys(ingest.uris(broken), "unsupported_format")
    assert_invariants(parts, ingest, failed=failed)
