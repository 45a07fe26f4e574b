"""One timetable for all processes, in a real Valkey."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from lookalike.remote.politeness import SharedTimetable, take_turn

INTERVAL_S = 0.1

#: Another process that takes turns, and says when each began.
TAKE_TURNS = f"""
import sys, time
from lookalike.remote.politeness import SharedTimetable, take_turn
timetable = SharedTimetable(sys.argv[1], {INTERVAL_S})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    take_turn(timetable, "a.test", time.sleep)
    print(time.time(), flush=True)
"""


@pytest.fixture
def timetable(redis_url: str) -> Iterator[SharedTimetable]:
    shared = SharedTimetable(redis_url, INTERVAL_S)
    yield shared
    shared.close()


def test_two_processes_share_a_hosts_turns(redis_url: str) -> None:
    command = [sys.executable, "-c", TAKE_TURNS, redis_url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        times = sorted(float(at) for out in _finish(processes) for at in out.split())
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(times) == 10
    # Sleeping ends late and never early: each start is at its place or behind it, so the first to the last is safe.
    assert times[-1] - times[0] >= 9 * INTERVAL_S - 0.05


def _finish(processes: "list[subprocess.Popen[str]]") -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=20)[0] for process in processes]


def test_a_hold_is_heard_by_other_processes_and_by_those_that_wait_already(
    redis_url: str, timetable: SharedTimetable
) -> None:
    other = SharedTimetable(redis_url, INTERVAL_S)
    take_turn(other, "a.test", time.sleep)
    began_s = time.monotonic()
    ended_s: list[float] = []

    def second() -> None:
        take_turn(other, "a.test", time.sleep)
        ended_s.append(time.monotonic())

    waiter = threading.Thread(target=second)
    waiter.start()
    timetable.hold("a.test", 0.5)
    timetable.hold("a.test", 0.1)  # does not shorten it
    waiter.join()
    assert ended_s[0] - began_s >= 0.45
    assert timetable.turn("b.test").wait_s == 0
    other.close()


def test_every_key_expires(redis_url: str, timetable: SharedTimetable) -> None:
    for _ in range(3):
        timetable.turn("a.test")
    timetable.hold("a.test", 5.0)
    with redis.Redis.from_url(redis_url) as client:
        lives_ms = {key: client.pttl(key) for key in client.keys("*")}
    assert len(lives_ms) == 2
    assert all(0 < life <= 5000 for life in lives_ms.values())


def test_without_redis_a_process_is_polite_on_its_own() -> None:
    timetable = SharedTimetable("redis://127.0.0.1:1/0", INTERVAL_S)
    timetable.hold("a.test", 0.2)
    began_s = time.monotonic()
    for _ in range(3):
        take_turn(timetable, "a.test", time.sleep)
    assert time.monotonic() - began_s >= 0.2 + 2 * INTERVAL_S - 0.01
    timetable.close()
