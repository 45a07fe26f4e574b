"""The service around a run: a Valkey server and workers of their own, so that their memory tells of this run alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from lookalike.broker import Doorbell
from lookalike.jobstore import Lane
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import FolderSource, IngestRequest, JobKind, JobRecord
from lookalike.settings import Settings
from redis_server import start_redis, valkey_binary
from shared.meter import Meter

_START_S: Final = 60.0
_STOP_S: Final = 90.0
_LOOK_S: Final = 0.25


@dataclass
class Run:
    """What was seen of one job."""

    record: JobRecord
    meter: Meter
    cpu_s: dict[str, float]
    redis_peak_mb: float
    looks: int = 0  #: At the job while it ran...
    with_rate: int = 0  #: ...those that found a rate...
    with_eta: int = 0  #: ...and those that found when it will be done.

    @property
    def seconds(self) -> float:
        """From the first claim to the last accounting, by the job store's clock."""
        assert self.record.started_at
        assert self.record.finished_at
        return (self.record.finished_at - self.record.started_at).total_seconds()


@dataclass
class Service:
    """A running job store with its workers."""

    settings: Settings
    jobs: RedisJobStore
    doorbell: Doorbell
    client: "redis.Redis"
    meter_groups: dict[str, Sequence[int]]
    reports: Sequence[Path]

    def submit(self, collection: str, folder: str) -> str:
        request = IngestRequest(collection=collection, source=FolderSource(path=folder))
        job, _ = self.jobs.create(JobKind.INGEST, request)
        self.doorbell.ring(Lane.INGEST)
        return job.id

    def run(
        self,
        collection: str,
        folder: str,
        *,
        look: Callable[[JobRecord], None] = lambda _: None,
        look_s: float = _LOOK_S,
    ) -> Run:
        """Ingest a folder, and look at it every so often; `look` is shown each record."""
        meter = Meter(self.meter_groups)
        before = meter.cpu_s()
        job_id = self.submit(collection, folder)
        looks = with_rate = with_eta = 0
        while not (record := self.jobs.get(job_id)).state.final:
            meter.sample(record.progress.done)
            if record.progress.done:
                looks += 1
                with_rate += record.progress.images_per_s is not None
                with_eta += record.progress.eta_s is not None
            look(record)
            time.sleep(look_s)
        meter.sample(record.progress.done)
        after = meter.cpu_s()
        cpu_s = {name: after[name] - before[name] for name in after}
        return Run(record, meter, cpu_s, self.redis_peak_mb(), looks, with_rate, with_eta)

    def planner_s(self, run: Run, clock: str) -> float:
        """What planning a job took, by `wall_s` or `cpu_s`; to be asked for once the workers have ended."""
        told = [json.loads(report.read_text()) for report in self.reports]
        return float(sum(part[clock].get(run.record.id, 0.0) for part in told))

    def redis_peak_mb(self) -> float:
        """The most memory the server has used since its start."""
        info: Any = self.client.info("memory")
        return float(info["used_memory_peak"]) / (1 << 20)


@contextmanager
def running(
    place: Path,
    root: Path,
    *,
    workers: int,
    arguments: Sequence[str],
    milvus: tuple[str, int] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Start a job store and workers, as long as the block lasts; `milvus` is a server's address and process id.

    `arguments` are those of the workers' command, `env` more settings for them.
    """
    with ExitStack() as opened:
        place.mkdir(parents=True)
        (place / "redis").mkdir()
        url = opened.enter_context(start_redis(valkey_binary(), place / "redis"))
        environment = {
            "LOOKALIKE_REDIS_URL": url,
            "LOOKALIKE_MILVUS_URI": milvus[0] if milvus else "http://127.0.0.1:1",
            "LOOKALIKE_DATA_DIR": str(place / "data"),
            "LOOKALIKE_ROOTS": str(root),
            "LOOKALIKE_DECODE_PROCESSES": os.environ.get("LOOKALIKE_DECODE_PROCESSES", "1"),
            **(env or {}),
        }
        settings = Settings(redis_url=url, data_dir=place / "data", roots=(root,))
        client = opened.enter_context(redis.Redis.from_url(url, decode_responses=True))
        processes = [
            opened.enter_context(_worker(f"worker-{number}", place, arguments, os.environ | environment))
            for number in range(workers)
        ]
        groups: dict[str, Sequence[int]] = {
            "worker": [process.pid for process in processes],
            "redis": [int(client.info("server")["process_id"])],
        }
        if milvus:
            groups["milvus"] = [milvus[1]]
        jobs = RedisJobStore.connect(settings)
        opened.callback(jobs.close)
        _await_workers(jobs, processes, place)
        reports = [place / f"worker-{number}.json" for number in range(workers)]
        yield Service(settings, jobs, Doorbell.connect(settings), client, groups, reports)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(_STOP_S)


@contextmanager
def _worker(
    name: str, place: Path, arguments: Sequence[str], environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "stand_in.worker", name, str(place / f"{name}.json"), *arguments]
    with (place / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(_STOP_S)


def _await_workers(jobs: RedisJobStore, processes: Sequence["subprocess.Popen[bytes]"], place: Path) -> None:
    deadline = time.monotonic() + _START_S
    while len(jobs.workers()) < len(processes):
        if any(process.poll() is not None for process in processes) or time.monotonic() > deadline:
            last = "\n".join((place / "worker-0.log").read_text(errors="replace").splitlines()[-5:])
            raise RuntimeError(f"a worker did not start:\n{last}")
        time.sleep(0.1)
