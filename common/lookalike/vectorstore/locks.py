"""Locks by name, for the writes that must not overlap.

Milvus Lite loses rows when two clients write to a collection at once, and no Milvus makes several structural changes
(create, index, load, alias) one. Between processes the lock is Redis'; `ThreadLocks` is for a store of one process.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from lookalike.errors import QueueUnavailable, VectorStoreUnavailable
from lookalike.settings import Settings

log = logging.getLogger(__name__)

NamedLock = Callable[[str], AbstractContextManager[None]]

#: A holder prolongs its lock as long as it lives; a dead one's lapses after one write's time and this.
MARGIN_S: Final = 5.0
_RELEASE_AGAIN_S: Final = 0.5


class ThreadLocks:
    """One lock per name, within this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Hold the lock of this name."""
        with self._guard:
            lock = self._locks[name]
        with lock:
            yield


class RedisLocks:
    """One lock per name, between all processes that share a Redis.

    Each holding has a token of its own, so that a holder that was too slow cannot release its successor's lock.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url
        self._ttl_s = settings.milvus_timeout_s + MARGIN_S
        self._guard = threading.Lock()
        self._client: Any = None

    def _redis(self) -> Any:
        import redis

        with self._guard:
            if self._client is None:
                self._client = redis.Redis.from_url(
                    self._url.get_secret_value(), socket_timeout=3, socket_connect_timeout=3
                )
        return self._client

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Hold the lock of this name; raises `QueueUnavailable`, or `VectorStoreUnavailable` where it stays taken."""
        from redis.exceptions import RedisError

        lock = self._redis().lock(
            f"lookalike:lock:milvus:{name}",
            timeout=self._ttl_s,
            sleep=0.02,
            blocking_timeout=self._ttl_s,
            thread_local=False,  # A thread of its own prolongs it.
        )
        try:
            taken = lock.acquire()
        except RedisError as error:
            raise QueueUnavailable from error
        if not taken:
            raise VectorStoreUnavailable("The vector store is busy with another write. Try again in a few seconds.")
        try:
            with self._prolonged(lock, name):
                yield
        finally:
            self._release(lock, name)

    def _release(self, lock: Any, name: str) -> None:
        """Release a lock; where Redis is away, as soon as it is back: restarted, it remembers the lock for its time."""
        from redis.exceptions import LockNotOwnedError, RedisError

        token = lock.local.token

        def try_again() -> None:
            gives_up_s = time.monotonic() + self._ttl_s
            while time.monotonic() < gives_up_s:
                time.sleep(_RELEASE_AGAIN_S)
                try:
                    lock.do_release(token)
                except LockNotOwnedError:
                    return
                except RedisError:
                    continue
                return

        try:
            lock.do_release(token)
        except LockNotOwnedError:
            log.warning("the write lock of %s had lapsed before it was released", name)
        except RedisError as error:
            # The write is done, and raising now would say it was not.
            log.warning("the write lock of %s will be released later: %s", name, error)
            threading.Thread(target=try_again, name=f"unlock {name}", daemon=True).start()

    @contextmanager
    def _prolonged(self, lock: Any, name: str) -> Iterator[None]:
        """Keep a lock from lapsing while it is held: several calls to Milvus, each with a time limit, may add up."""
        from redis.exceptions import LockError, RedisError

        done = threading.Event()

        def prolong() -> None:
            while not done.wait(self._ttl_s / 3):
                try:
                    lock.reacquire()
                except (LockError, RedisError) as error:
                    log.warning("the write lock of %s could not be prolonged: %s", name, error)

        thread = threading.Thread(target=prolong, name=f"lock {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """Close the connection to Redis."""
        with self._guard:
            client, self._client = self._client, None
        if client is not None:
            client.close()
