"""The whole service in parts that a test can break one by one: processes to kill, and proxies between them.

Everything is real; only the network is small, and the times are short. Front end and workers reach Valkey and Milvus
Lite through proxies, tests reach them directly.
"""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import numpy as np
import redis
from PIL import Image
from pydantic import SecretStr

from lookalike.jobstore.redis import RedisJobStore
from lookalike.roots import file_uri
from lookalike.settings import Settings
from lookalike.supervisor.environment import child_environment
from lookalike.supervisor.servers import milvus_command, redis_command
from lookalike.vectorstore import VectorStore
from ports import free_ports
from proxy import Proxy
from redis_server import valkey_binary
from servers import await_milvus
from service import Service, until

INTERPOSED: Final = Path(__file__).with_name("interposed")
LEASE_S: Final = 3.0
SWEEP_S: Final = 0.5
CHUNK_IMAGES: Final = 4
MAX_ATTEMPTS: Final = 3
START_S: Final = 180.0  #: What a busy machine is given to start a process, which loads torch and a network.
JOB_IMAGES: Final = 8 * CHUNK_IMAGES
#: Milvus' way there, and its way back: with some calls a chunk, a job of two workers takes seconds.
SLOW_S: Final = 0.06
WORKERS: Final = ("worker-a", "worker-b")

SETTINGS: Final[dict[str, Any]] = {
    "model": "shufflenet_v2_x0_5",
    "weights": "untrained",
    "consistency": "Strong",
    "lease_s": LEASE_S,
    "search_lease_s": LEASE_S,
    "sweep_s": SWEEP_S,
    "heartbeat_s": 0.5,
    "heartbeat_ttl_s": 4.0,
    "task_limit_s": 60.0,
    "chunk_images": CHUNK_IMAGES,
    "lookahead_chunks": 4,
    "max_attempts": MAX_ATTEMPTS,
    "milvus_timeout_s": 3.0,
    "decode_timeout_s": 5.0,
    "decode_processes": 1,
    "batch_images": 2,
    "decode_memory_bytes": 400 << 20,
    "max_file_bytes": 1 << 20,
    "min_free_bytes": 1 << 20,
    "web_processes": 1,
    "web_threads": 8,
}


class Part:
    """A process that can be killed and started again; what it says goes to a file."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._command = tuple(command)
        self._environ = environ
        self._folder = folder
        self.redis_folder = folder / "redis"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process, f"{self.name} was never started"
        return self._process

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}.log"

    def start(self, *, through: Sequence[str] = (), **more: str) -> None:
        """Start it, by a command that takes its own as arguments if need be; `more` is added to its environment."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                (*through, *self._command),
                env={**self._environ, **more},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children, as to a container."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it without a word, if it lives."""
        if self.is_alive():
            self.signal(signal.SIGKILL)
            self.process.wait(60)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze it for the length of the block."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self.is_alive():
                self.signal(signal.SIGCONT)


@dataclass(frozen=True)
class Ingest:
    """A job under test."""

    job_id: str
    collection: str  #: Its own.
    paths: list[Path]
    others: frozenset[str] = frozenset()  #: URIs of files that are no paths of Python's, or no files.

    @property
    def files(self) -> set[str]:
        return self.uris(self.paths) | self.others

    @staticmethod
    def uris(paths: Sequence[Path]) -> set[str]:
        return {file_uri(path) for path in paths}


class Parts(Service):
    """Valkey, Milvus Lite, gunicorn and workers, each in a process of its own. Starts all but the workers."""

    def __init__(self, folder: Path, models: Path) -> None:
        redis_port, milvus_port, self._web_port = free_ports(3)
        super().__init__(f"http://127.0.0.1:{self._web_port}", self._tails)
        self.root = folder / "root"
        self.data_dir = folder / "data"
        for made in (self.root, self.data_dir, folder / "redis", folder / "milvus"):
            made.mkdir()
        (self.data_dir / "models").symlink_to(models)
        self._folder = folder
        self.redis_folder = folder / "redis"
        self._exits = ExitStack()
        self.redis_proxy = self._exits.enter_context(Proxy(redis_port))
        self.milvus_proxy = self._exits.enter_context(Proxy(milvus_port))
        self.settings = self._settings(self.redis_proxy.port, self.milvus_proxy.port)
        self.direct = self._settings(redis_port, milvus_port)  #: For tests to look with, past the proxies.
        path = os.pathsep.join(filter(None, [str(INTERPOSED), os.environ.get("PYTHONPATH")]))
        self.environ = child_environment(self.settings, more={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
        python = sys.executable
        self.redis = self._part("redis", redis_command(Path(valkey_binary()), redis_port, folder / "redis"))
        self.milvus = self._part("milvus", milvus_command(milvus_port, folder / "milvus"))
        gunicorn = (python, "-m", "gunicorn", "-c", "python:lookalike_web.gunicorn_conf", "lookalike_web.wsgi:app")
        self.web = self._part("web", gunicorn)
        self.workers = {
            name: self._part(name, (python, "-m", "lookalike_worker", "ingest", "--name", name)) for name in WORKERS
        }
        self.searcher = self._part("searcher", (python, "-m", "lookalike_worker", "search", "--name", "searcher"))
        self.jobs = RedisJobStore.connect(self.direct)
        self.vectors = VectorStore.connect(self.direct)
        self._drawn = 0

    def __enter__(self) -> Self:
        self.start_redis()
        self.start_milvus()
        self.start_web()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        for part in (*self.workers.values(), self.searcher, self.web, self.milvus, self.redis):
            part.kill()
        self.vectors.close()
        self.jobs.close()
        self._exits.close()

    def _settings(self, redis_port: int, milvus_port: int) -> Settings:
        return Settings(
            redis_url=SecretStr(f"redis://127.0.0.1:{redis_port}/0"),
            milvus_uri=f"http://127.0.0.1:{milvus_port}",
            data_dir=self.data_dir,
            roots=(self.root,),
            port=self._web_port,
            **SETTINGS,
        )

    def _part(self, name: str, command: Sequence[str]) -> Part:
        return Part(name, command, self.environ, self._folder)

    def _tails(self) -> str:
        tails = []
        for log in sorted(self._folder.glob("*.log")):
            tails.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]))
        return "\n".join(tails)

    # --- Starting ---

    def start_redis(self) -> None:
        self.redis.start()
        until(self._redis_answers, START_S, self.logs)

    def _redis_answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def start_milvus(self) -> None:
        self.milvus.start()
        await_milvus(self.direct.milvus_uri, self.milvus.process, timeout_s=START_S)

    def start_web(self) -> None:
        self.web.start()
        until(self._web_answers, START_S, self.logs)

    def _web_answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx2.HTTPError:
            return False

    def start_workers(self, *names: str, **more: str) -> None:
        """Start ingest workers, all where none is named, and wait until each has announced itself."""
        wanted = [self.workers[name] for name in names or WORKERS]
        for worker in wanted:
            worker.kill()
            worker.start(**more)
        self._announced(wanted)

    def await_workers(self) -> None:
        """Wait until all ingest workers, started otherwise, have announced themselves."""
        self._announced(list(self.workers.values()))

    def start_searcher(self) -> None:
        self.searcher.kill()
        self.searcher.start()
        self._announced([self.searcher])

    def _announced(self, wanted: Sequence[Part]) -> None:
        pids = {worker.process.pid for worker in wanted}
        until(lambda: pids <= {worker.pid for worker in self.jobs.workers()}, START_S, self.logs)

    def end_workers(self) -> None:
        for worker in self.workers.values():
            worker.kill()

    def mend(self) -> None:
        """Bring everything back that a test broke but the workers, without the jobs of a test that failed."""
        self.redis_proxy.heal()
        self.milvus_proxy.heal()
        for part, start in (
            (self.redis, self.start_redis),
            (self.milvus, self.start_milvus),
            (self.web, self.start_web),
        ):
            if not part.is_alive():
                start()
        with self.client() as client:
            if client.exists("lookalike:live:ingest", "lookalike:live:search"):
                client.flushall()

    def mend_workers(self) -> None:
        """Bring two ingest workers back."""
        dead = [name for name, worker in self.workers.items() if not worker.is_alive()]
        if dead:
            self.start_workers(*dead)

    # --- Looking in ---

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.direct.redis_url.get_secret_value(), socket_timeout=30)

    # --- Work ---

    def ingest_all(self, paths: list[Path]) -> Ingest:
        """Ask for a folder of pictures to be ingested into a collection of its own."""
        collection = f"chaos{self._drawn}"
        return Ingest(self.ingest(paths[0].parent.name, collection=collection), collection, paths)

    def ingest_half(self) -> Ingest:
        """Submit a job of some seconds and return in its middle: some of its files are stored, most are to be done."""
        for slower in range(4):
            self.milvus_proxy.delay(SLOW_S * 2**slower)
            ingest = self.ingest_all(self.draw(JOB_IMAGES))
            if until(lambda job_id=ingest.job_id: self._stored(job_id), 120, self.logs) <= JOB_IMAGES // 2:
                return ingest
            self.finished(ingest.job_id)  # Its middle was over before this process, on a busy machine, looked.
        raise AssertionError("the job is too fast to be disturbed")

    def _stored(self, job_id: str) -> int:
        return int(self.job(job_id)["progress"]["stored"])

    def draw(self, count: int) -> list[Path]:
        """Write small pictures, none like another, into a new folder of the root."""
        self._drawn += 1
        place = self.root / f"pictures-{self._drawn}"
        place.mkdir()
        paths = [place / f"{number:04}.jpg" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(picture(1000 * self._drawn + number))
        return paths


def picture(seed: int) -> bytes:
    """A small JPEG that no other seed gives."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(cells).resize((64, 48)).save(target, "JPEG")
    return target.getvalue()


def died(parts: Parts, timeout_s: float = START_S) -> Part:
    """Wait for a worker to die, and return it."""
    return until(
        lambda: next((one for one in parts.workers.values() if not one.is_alive()), None), timeout_s, parts.logs
    )
