"""The connection to Milvus: one client per process, bounded times, and errors in this project's words.

A call either answers, or raises `VectorStoreUnavailable` where trying again may help, or `Refusal` where it will not.
Nothing here knows collections of images.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TypeVar

import grpc

from lookalike.errors import SetupError, VectorStoreRejected, VectorStoreUnavailable
from lookalike.settings import Settings
from lookalike.vectorstore.indexes import ServerKind

_T = TypeVar("_T")

CONNECT_TIMEOUT_S: Final = 2.0
#: After a failed connect the threads that waited for it fail with it, instead of each trying in turn.
CONNECT_PAUSE_S: Final = 0.5
CHANNEL_OPTIONS: Final = {
    # gRPC would let minutes pass between attempts after a long outage.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 500,
    "grpc.max_reconnect_backoff_ms": 1000,
    # pymilvus pings an idle connection every 10 s, which a Python gRPC server (Milvus Lite) answers by hanging up.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_permit_without_calls": 0,
    # Else a new channel to the same address is given the old one's connection, dead or not.
    "grpc.use_local_subchannel_pool": 1,
}

PERMANENT_RPC: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
#: Milvus' own codes (pkg/util/merr): not ready, unavailable, memory limit, request limit, disk limit, rate limit,
#: quota. Milvus Lite uses the same small numbers for other things.
TRANSIENT_CODES: Final = frozenset({1, 2, 3, 4, 7, 8, 9})
DRAIN_S: Final = 1.0  #: For the reads under way when an index is replaced.
GAVE_UP: Final = "Retry timeout"  #: pymilvus' own words for a time that ran out, under no code of its own.
NOT_FOUND_CODES: Final = frozenset({100, 1600})  #: Collection, alias.
NOT_LOADED_CODES: Final = frozenset({101, 103})  #: Not, or not fully.


class RefusalKind(StrEnum):
    """What a refusal is about, where the store can do something about it."""

    NOT_FOUND = "not_found"
    NOT_LOADED = "not_loaded"
    OTHER = "other"


class Refusal(Exception):
    """Milvus refused a request for good. Stays inside this package; the store turns it into a domain error."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Connection:
    """A MilvusClient that connects on first use, and again by itself when the server returns. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        if settings.milvus_uri.endswith(".db"):
            raise SetupError(
                "LOOKALIKE_MILVUS_URI names a file, which only one process could open. "
                "Start `milvus-lite server --data-dir DIR --host 127.0.0.1` and give its address."
            )
        self._uri = settings.milvus_uri
        self._token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
        self._lock = threading.Lock()
        self._client: Any = None
        self._kind = ServerKind.MILVUS
        self._paused_until = 0.0
        self._longest_call_s = settings.milvus_timeout_s

    @property
    def kind(self) -> ServerKind:
        """What answers at the address, as found when connecting."""
        self._connected()
        return self._kind

    def call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """Call a method of MilvusClient, once; raises `VectorStoreUnavailable` or `Refusal`."""
        from pymilvus.exceptions import MilvusException

        client = self._connected()
        try:
            return getattr(client, method)(*args, timeout=timeout_s, **kwargs)
        except (grpc.RpcError, grpc.FutureTimeoutError, MilvusException) as error:
            if _code(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._give_up(client)
            raise self._translated(error) from error

    def discard(self, method: str, name: str, *, timeout_s: float) -> None:
        """Call a method that removes something, which may be gone already."""
        try:
            self.call(method, name, timeout_s=timeout_s)
        except Refusal as refusal:
            if refusal.kind is not RefusalKind.NOT_FOUND:
                raise

    def create(
        self,
        collection: str,
        schema: Callable[[], Any],
        index: Mapping[str, Any],
        *,
        consistency: str,
        timeout_s: float,
    ) -> None:
        """Create a collection with an index on its field `vector`, and load it; finish what a crash left half done."""
        if not self.call("has_collection", collection, timeout_s=timeout_s):
            self.call(
                "create_collection", collection, schema=schema(), consistency_level=consistency, timeout_s=timeout_s
            )
        self.load(collection, index, timeout_s=timeout_s)

    def load(self, collection: str, index: Mapping[str, Any], *, timeout_s: float) -> None:
        """Load a collection, with this index where it has none."""
        from pymilvus import MilvusClient

        if not self.call("list_indexes", collection, timeout_s=timeout_s):
            params = MilvusClient.prepare_index_params()
            if self.kind is ServerKind.LITE:
                # pymilvus flattens `params`, and Lite reads what is in a field of that name: without this, nothing.
                index = {**index, "params": {"params": index["params"]}}
            params.add_index("vector", **index)
            # Loading waits for what it needs; waiting for the index as well only sleeps.
            self.call("create_index", collection, params, sync=False, timeout_s=timeout_s)
        self.call("load_collection", collection, timeout_s=timeout_s)

    def replace_index(self, collection: str, index: Mapping[str, Any], *, alias: str, timeout_s: float) -> None:
        """Give a collection another index. The caller holds its lock; whoever reads by the alias meanwhile finds none.

        A collection that is being released answers with some of its rows, or none. So its alias goes first, and who
        reads by it already is given the time to end.
        """
        self.call("drop_alias", alias, timeout_s=timeout_s)
        time.sleep(DRAIN_S)
        self.call("release_collection", collection, timeout_s=timeout_s)
        self.call("drop_index", collection, "vector", timeout_s=timeout_s)
        self.load(collection, index, timeout_s=timeout_s)
        self.point(alias, collection, timeout_s=timeout_s)

    def point(self, alias: str, collection: str, *, timeout_s: float) -> None:
        """Make an alias stand for a collection."""
        try:
            self.call("alter_alias", collection, alias, timeout_s=timeout_s)
        except Refusal:  # Servers differ in how they say that there is none yet.
            self.call("create_alias", collection, alias, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _give_up(self, client: Any) -> None:
        """Have the next call connect anew: a connection that is dead without being closed stays silent for ever."""
        with self._lock:
            if self._client is not client:
                return
            self._client = None
        # Other threads may be in the middle of a call on it.
        closing = threading.Timer(2 * self._longest_call_s, client.close)
        closing.daemon = True
        closing.start()

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                if time.monotonic() < self._paused_until:
                    raise VectorStoreUnavailable
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException

        _quieten()
        try:
            client = MilvusClient(
                self._uri,
                token=self._token,
                timeout=CONNECT_TIMEOUT_S,
                dedicated=True,
                grpc_options=CHANNEL_OPTIONS,
            )
            # A Milvus 2.3 from the wheel calls itself v2.3.5-lite, and is none.
            lite = client.get_server_version(timeout=CONNECT_TIMEOUT_S).startswith("milvus_lite")
            self._kind = ServerKind.LITE if lite else ServerKind.MILVUS
        except (grpc.RpcError, MilvusException) as error:
            self._paused_until = time.monotonic() + CONNECT_PAUSE_S
            raise VectorStoreUnavailable from error
        # pymilvus retries a lost connection until the call's timeout, and lets threads reconnect one after the other.
        # gRPC reconnects a channel by itself, and our callers decide about trying again; so its hook ends the call.
        client._handler._on_rpc_error = _fail_at_once
        return client

    def _translated(self, error: Exception) -> Exception:
        code = _code(error)
        if isinstance(error, grpc.RpcError | grpc.FutureTimeoutError) or isinstance(code, grpc.StatusCode):
            return Refusal(RefusalKind.OTHER, str(error)) if code in PERMANENT_RPC else VectorStoreUnavailable()
        reason = str(getattr(error, "message", error))
        if code in NOT_FOUND_CODES:
            return Refusal(RefusalKind.NOT_FOUND, reason)
        if code in NOT_LOADED_CODES:
            return Refusal(RefusalKind.NOT_LOADED, reason)
        transient = getattr(error, "retriable", False) or code in TRANSIENT_CODES
        if GAVE_UP in reason or (transient and self._kind is not ServerKind.LITE):
            return VectorStoreUnavailable(f"The vector store (Milvus) cannot serve at the moment: {reason}")
        return Refusal(RefusalKind.OTHER, reason)


def _code(error: Exception) -> object:
    # Where pymilvus gave up on a gRPC error, that error's status is the code.
    return error.code() if isinstance(error, grpc.Call) else getattr(error, "code", None)


def loaded(work: Callable[[], _T], reload: Callable[[], None]) -> _T:
    """Do work that needs a loaded collection; where it is not loaded, `reload` and do it once more.

    A collection is not loaded after its server restarted (Milvus Lite), and while its index is rebuilt.
    """
    try:
        return work()
    except Refusal as refusal:
        if refusal.kind is not RefusalKind.NOT_LOADED:
            raise
    reload()
    return work()


@contextmanager
def as_errors() -> Iterator[None]:
    """Turn a refusal that nobody within made something of into `VectorStoreRejected`."""
    try:
        yield
    except Refusal as refusal:
        raise VectorStoreRejected(f"The vector store (Milvus) refused the request: {refusal.reason}") from refusal


def _fail_at_once(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        raise error
    return False


def _quieten() -> None:
    # pymilvus prints every failed call with a traceback, through a handler of its own. Here each is raised, with its
    # cause, and whoever handles it decides what to log.
    logger = logging.getLogger("pymilvus")
    logger.handlers.clear()
    logger.propagate = True
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
