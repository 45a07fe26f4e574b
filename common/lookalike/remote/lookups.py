"""Look-ups of host names within a time limit, which the operating system's own do not have.

`getaddrinfo` cannot be interrupted. A look-up that nobody waits for any more runs on in its thread until the system
gives it up, so their number is bounded, and who asks for a name that is being looked up waits for the same answer: a
dead name server costs a thread for each host it is asked for, not for each address.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from lookalike.remote.addresses import Resolver

MAX_LOOKUPS: Final = 16  #: At a time.


class Lookups:
    """Asks a resolver in threads of its own, which no process waits for at its end. Remembers no answers."""

    def __init__(self, resolve: Resolver, *, at_most: int = MAX_LOOKUPS) -> None:
        self._resolve = resolve
        self._free = threading.BoundedSemaphore(at_most)
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[Sequence[str]]] = {}

    def find(self, host: str, port: int, *, timeout_s: float) -> Sequence[str]:
        """Return a host's addresses; raises what the resolver raises, and `TimeoutError`."""
        end = time.monotonic() + timeout_s
        with self._lock:
            answer = self._running.get((host, port))
        if answer is None:
            if not self._free.acquire(timeout=timeout_s):
                raise TimeoutError
            answer = self._begin(host, port)
        return answer.result(max(0.0, end - time.monotonic()))

    def _begin(self, host: str, port: int) -> Future[Sequence[str]]:
        """Look a host up with the thread that the caller has set aside, or join in where another has begun by now."""
        with self._lock:
            running = self._running.get((host, port))
            if running is not None:
                self._free.release()
                return running
            answer = self._running[host, port] = Future()
        threading.Thread(target=self._look_up, args=(host, port, answer), name="lookup", daemon=True).start()
        return answer

    def _look_up(self, host: str, port: int, answer: Future[Sequence[str]]) -> None:
        found: Sequence[str] = ()
        failure: BaseException | None = None
        try:
            found = self._resolve(host, port)
        except BaseException as error:  # noqa: BLE001 - Raised anew in the threads that wait for it.
            failure = error
        with self._lock:  # Before it is told: who asks afterwards asks anew.
            del self._running[host, port]
        self._free.release()
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)
