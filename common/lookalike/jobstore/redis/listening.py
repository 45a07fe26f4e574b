"""One subscription per process, shared by all of its threads, and all without a thread, that wait for jobs.

A message may be lost: its connection breaks, or is dead without anybody having said so. So whoever waits looks at the
job by itself after a while, and everybody is woken to do so whenever the subscription begins anew.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis

log = logging.getLogger(__name__)

_TURN_S: Final = 1.0  # How often the thread looks at its clocks.
_ASK_EVERY_S: Final = 5.0  # A connection that leaves a ping unanswered for as long is dead.
_RECONNECT_S: Final = 0.5
_LINGER_S: Final = 30.0  # Without anybody waiting; then the thread ends, and the next to wait starts another.


class Listener:
    """Wakes who listens to a channel that has a message. Thread-safe; connects when it is first needed."""

    def __init__(self, client: "redis.Redis", *patterns: str) -> None:
        """Subscribe to channels of these patterns."""
        self._client: Any = client  # redis-py publishes no type for its subscriptions.
        self._patterns = patterns
        self._lock = threading.Lock()
        self._listening: dict[str, set[Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._used_s = 0.0

    @contextmanager
    def listen(self, channel: str) -> Iterator[threading.Event]:
        """Give an event that is set whenever there is, or may have been, a message; the caller clears it."""
        event = threading.Event()
        leave = self.heed(channel, event.set)
        try:
            yield event
        finally:
            leave()

    def heed(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever there is, or may have been, a message; returns what ends that, once or more.

        It is called in the subscription's thread, may be called just after the end, and must neither wait nor raise.
        """
        with self._lock:
            self._listening.setdefault(channel, set()).add(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()

        def leave() -> None:
            with self._lock:
                self._used_s = time.monotonic()
                listening = self._listening.get(channel, set())
                listening.discard(wake)
                if not listening:
                    self._listening.pop(channel, None)

        return leave

    def _run(self) -> None:
        while True:
            try:
                with self._client.pubsub() as subscription:
                    subscription.psubscribe(*self._patterns)
                    self._follow(subscription)
                    return
            except (redis.RedisError, OSError) as error:
                log.warning("changes of jobs are not heard at the moment: %s", error)
            except Exception:  # Without its thread a process would answer late for ever.
                log.exception("changes of jobs are not heard at the moment")
            self._wake_all()
            if self._ends(linger_s=0):
                return
            time.sleep(_RECONNECT_S)

    def _follow(self, subscription: Any) -> None:
        """Pass messages on until nobody has listened for a while; raises where the connection is dead."""
        heard_s = asked_s = time.monotonic()
        while not self._ends(linger_s=_LINGER_S):
            message = subscription.get_message(timeout=_TURN_S)
            now_s = time.monotonic()
            if message is not None:
                heard_s = now_s
                self._pass_on(message)
            elif now_s - asked_s >= _ASK_EVERY_S:
                if heard_s < asked_s:
                    raise redis.TimeoutError("the subscription's connection is silent")
                subscription.ping()
                asked_s = now_s

    def _pass_on(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "pmessage":
                with self._lock:
                    waking = list(self._listening.get(message["channel"], ()))
                for wake in waking:
                    wake()
            case "psubscribe":  # Also where redis-py has connected again: what was said before went unheard.
                self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            waking = [wake for listening in self._listening.values() for wake in listening]
        for wake in waking:
            wake()

    def _ends(self, *, linger_s: float) -> bool:
        with self._lock:
            if self._listening or time.monotonic() - self._used_s < linger_s:
                return False
            self._thread = None
            return True
