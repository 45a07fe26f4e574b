"""Politeness: one request at a time is begun to a host, over all workers, and a host that asks for a pause gets it.

Each request takes the next free place in its host's timetable. The timetable is in Redis, where all processes share it;
without a Redis it is this process's own. Nothing here knows what the requests are.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

_PREFIX: Final = "lookalike:host:"
_TIMEOUT_S: Final = 3.0
_MOST_HOSTS: Final = 10_000  #: In one process's own timetable; then those whose time is past are forgotten.

#: KEYS: the host's timetable, and its hold. ARGV: milliseconds between requests. Returns the milliseconds to wait,
#: and whether that is because the host is held: then no place was taken, and the caller asks again.
_TURN: Final = """
local held = redis.call('PTTL', KEYS[2])
if held > 0 then return {held, 1} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local turn = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local interval = tonumber(ARGV[1])
if interval > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', turn + interval), 'PX', turn - now + interval)
end
return {turn - now, 0}
"""

#: KEYS: the host's hold. ARGV: its milliseconds. A shorter hold does not end a longer one.
_HOLD: Final = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
"""


class Turn(NamedTuple):
    """When a request may begin."""

    wait_s: float
    held: bool  #: The host asked for a pause: ask for a turn again after it.


class Timetable(Protocol):
    """When which host may be asked next."""

    def turn(self, host: str) -> Turn:
        """Take the next free place of a host."""

    def held_s(self, host: str) -> float:
        """Return for how long the host is still held."""

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody ask this host for a while."""

    def close(self) -> None:
        """Let go of what it holds."""


class NoTimetable:
    """For requests that wait for nobody."""

    def turn(self, host: str) -> Turn:  # noqa: ARG002
        """Take no place: there is always one."""
        return Turn(0.0, held=False)

    def held_s(self, host: str) -> float:  # noqa: ARG002
        """Hold nobody."""
        return 0.0

    def hold(self, host: str, seconds: float) -> None:
        """Hold nobody."""

    def close(self) -> None:
        """Nothing is held."""


class OwnTimetable:
    """The timetable of one process."""

    def __init__(self, interval_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._holds: dict[str, float] = {}

    def turn(self, host: str) -> Turn:
        """Take the next free place of a host."""
        with self._lock:
            now = self._clock()
            held_s = self._holds.get(host, now) - now
            if held_s > 0:
                return Turn(held_s, held=True)
            turn = max(now, self._next.get(host, now))
            self._forget(now)
            self._next[host] = turn + self._interval_s
            return Turn(turn - now, held=False)

    def held_s(self, host: str) -> float:
        """Return for how long the host is still held."""
        with self._lock:
            return max(0.0, self._holds.get(host, 0.0) - self._clock())

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody ask this host for a while."""
        with self._lock:
            self._holds[host] = max(self._holds.get(host, 0.0), self._clock() + seconds)

    def close(self) -> None:
        """Nothing is held."""

    def _forget(self, now: float) -> None:
        if len(self._next) >= _MOST_HOSTS:
            self._next = {host: then for host, then in self._next.items() if then > now}
            self._holds = {host: then for host, then in self._holds.items() if then > now}


class SharedTimetable:
    """The timetable of all processes that use one Redis; falls back to one's own while that cannot be reached."""

    def __init__(self, url: str, interval_s: float) -> None:
        # No retries: a fetch that waits for its turn has its own way on without Redis.
        self._redis = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._interval_ms = round(interval_s * 1000)
        self._turn = self._redis.register_script(_TURN)
        self._hold = self._redis.register_script(_HOLD)
        self._own = OwnTimetable(interval_s)

    def turn(self, host: str) -> Turn:
        """Take the next free place of a host."""
        key = _PREFIX + host
        try:
            wait_ms, held = self._turn(keys=[key, f"{key}:hold"], args=[self._interval_ms])
        except redis.RedisError as error:
            log.warning("the hosts' timetable cannot be read, so this process keeps its own: %s", error)
            return self._own.turn(host)
        return Turn(wait_ms / 1000, held=bool(held))

    def held_s(self, host: str) -> float:
        """Return for how long the host is still held."""
        try:
            left_ms = self._redis.pttl(f"{_PREFIX}{host}:hold")
        except redis.RedisError:
            return self._own.held_s(host)
        return max(0.0, float(left_ms) / 1000)

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody ask this host for a while."""
        # In its own timetable too: that is the one in use when Redis goes away meanwhile.
        self._own.hold(host, seconds)
        if seconds <= 0:
            return
        try:
            self._hold(keys=[f"{_PREFIX}{host}:hold"], args=[max(1, round(seconds * 1000))])
        except redis.RedisError as error:
            log.warning("other workers do not hear that %s asks for a pause: %s", host, error)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def take_turn(timetable: Timetable, host: str, wait: Callable[[float], None]) -> None:
    """Wait until a request to `host` may begin; `wait` sleeps, and may raise to give up."""
    while True:
        turn = timetable.turn(host)
        wait(turn.wait_s)
        # Somebody else may have been told to pause meanwhile; who has not waited has just been told there is no hold.
        if not turn.held and (turn.wait_s == 0 or timetable.held_s(host) == 0):
            return
