"""The connection to the server, and how scripts run on it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from lookalike.errors import QueueUnavailable
from lookalike.jobstore.base import Limits
from lookalike.settings import Settings

PREFIX: Final = "lookalike:"
_SOCKET_TIMEOUT_S: Final = 2.0  # To connect and to answer: both together stay under the 5 s a submit may take.
_MILLISECOND_FIELDS: Final = {"lease_s", "search_lease_s", "result_ttl_s", "tombstone_ttl_s"}
#: What a server that cannot take writes answers with, where the client has a class for it (it then drops the word) and
#: where not; anything else it refuses is a defect of ours.
_REFUSAL_CLASSES: Final = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
)
_REFUSALS: Final = ("OOM", "MISCONF", "READONLY", "LOADING", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")


@cache
def _source(name: str) -> str:
    folder = files("lookalike.jobstore") / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


@contextmanager
def reachable() -> Iterator[None]:
    """Turn what a server that cannot be used makes of a call into `QueueUnavailable`."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise QueueUnavailable from error
    except redis.ResponseError as error:
        if isinstance(error, _REFUSAL_CLASSES) or any(word in str(error) for word in _REFUSALS):
            raise QueueUnavailable from error
        raise


class RedisConnection:
    """A server, the limits that the scripts work with, and the server's clock."""

    def __init__(self, client: "redis.Redis", limits: Limits) -> None:
        self._redis = client
        self._limits = limits
        milliseconds = {
            name.removesuffix("_s") if name in _MILLISECOND_FIELDS else name: (
                int(getattr(limits, name) * 1000) if name in _MILLISECOND_FIELDS else getattr(limits, name)
            )
            for name in limits.__dataclass_fields__
        }
        self._limits_json = json.dumps(milliseconds)
        self._scripts: dict[str, Any] = {}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Make a store that fails within 5 seconds where the server does not answer."""
        client = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            decode_responses=True,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=10,
            # A connection that went stale is worth a second try; a server that hangs is not, and tries would add up.
            retry=Retry(ConstantBackoff(0.1), 1, supported_errors=(redis.ConnectionError,)),
        )
        return cls(client, Limits.from_settings(settings))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def ping(self) -> None:
        with reachable():
            self._redis.ping()

    def now(self) -> datetime:
        with reachable():
            seconds, microseconds = self._redis.time()
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)

    def _run(self, name: str, *args: str | int) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(_source(name))
        with reachable():
            return script(keys=[PREFIX], args=[self._limits_json, *args])
