"""The rate limit on submits: so many a minute from one API key, or from one address where there are no keys.

The counts lie in Redis, so that all front-end processes share them, and go by Redis' clock. They expire by themselves.
"""

import math
import time
from typing import Final, Self

import redis
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from lookalike.errors import QueueUnavailable, RateLimited
from lookalike.settings import Settings
from lookalike_web.errors import Problem

_KEYS: Final = "lookalike:rate"
_TIMEOUT_S: Final = 1.0

#: A piece of an upload counts that much less than a submit: a large file has many.
PIECES_PER_SUBMIT: Final = 20


class Throttle:
    """Counts submits by who sends them. Knows nothing of what is submitted."""

    def __init__(self, storage: RedisStorage, *, per_minute: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._submit = RateLimitItemPerMinute(per_minute)
        self._piece = RateLimitItemPerMinute(per_minute * PIECES_PER_SUBMIT, namespace="PIECES")

    @classmethod
    def connect(cls, settings: Settings) -> Self | None:
        """Make the throttle that the settings ask for, None for none. Connects with the first submit."""
        if not settings.rate_limit:
            return None
        url = settings.redis_url.get_secret_value()
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(ConstantBackoff(0.1), 1, supported_errors=(redis.ConnectionError,)),
        )
        storage = RedisStorage(url, connection_pool=pool, key_prefix=_KEYS, wrap_exceptions=True)
        return cls(storage, per_minute=settings.rate_limit)

    def admit(self, who: str, *, piece: bool = False) -> None:
        """Count a submit, or a piece of an upload.

        Refuses it with `rate_limited` and a Retry-After where there were too many.

        Raises `QueueUnavailable` without Redis: the job could not be written either.
        """
        item = self._piece if piece else self._submit
        try:
            if self._limiter.hit(item, who):
                return
            free_at = self._limiter.get_window_stats(item, who).reset_time
        except StorageError as error:
            raise QueueUnavailable from error
        seconds = max(1, math.ceil(free_at - time.time()))
        raise Problem(RateLimited(), headers={"Retry-After": str(seconds)})
