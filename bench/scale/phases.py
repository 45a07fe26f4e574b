"""The phases of the bench: what is run for each size, and what figures are taken of it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lookalike.records import JobRecord, JobState
from lookalike.settings import Settings
from lookalike.vectorstore import VectorStore
from servers import start_milvus_lite
from stand_in.service import Run, Service, running

Figures = dict[str, Any]

#: `plan` lists and cuts into chunks that are accounted as they are, alone and with several workers in turn;
#: `plan-unchanged` finds every file unchanged; `null` embeds and stores nothing; `milvus` is the real thing.
PHASES: Final = ("plan", "plan-shared", "plan-unchanged", "null", "milvus")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the bench works, and with what."""

    place: Path
    root: Path
    workers: int
    codec: str
    warm: str  #: The folder of a small tree, ingested first, so that figures do not tell of imports.

    def phase(self, name: str, files: int, turn: int) -> Iterator[Figures]:
        """Run one phase over the tree of so many files; gives the figures of each of its jobs."""
        where = self.place / f"{name}-{files}-{turn}"
        match name:
            case "plan":
                yield self._only(where, "plan", files, 1, "--store=null", "--chunks=null")
            case "plan-shared":
                yield self._only(where, "plan, shared", files, self.workers, "--store=null", "--chunks=null")
            case "plan-unchanged":
                yield self._only(where, "plan, all unchanged", files, 1, "--store=full", "--chunks=null")
            case "null":
                yield self._only(where, "ingest, null store", files, self.workers, "--store=null")
            case _:
                yield from self._milvus(where, files)

    def _only(self, where: Path, what: str, files: int, workers: int, *arguments: str) -> Figures:
        with self._service(where, workers, arguments) as service:
            run = service.run("scale", str(files))
        return self._figures(what, files, run, service)

    def _milvus(self, where: Path, files: int) -> Iterator[Figures]:
        """Ingest into Milvus Lite, ingest again, move half of the tree and cancel in the midst of that."""
        where.mkdir(parents=True)
        with start_milvus_lite(where / "lite") as (uri, process):
            milvus = (uri, process.pid)
            vectors = VectorStore(Settings(milvus_uri=uri))
            with self._service(where / "new", self.workers, ("--store=milvus",), milvus) as service:
                run = service.run("scale", str(files))
            yield self._figures("ingest, Milvus Lite", files, run, service) | {"rows": vectors.count("scale")}
            with self._service(where / "again", self.workers, ("--store=milvus",), milvus) as service:
                run = service.run("scale", str(files))
            yield self._figures("again, Milvus Lite", files, run, service)
            with self._service(where / "cancel", self.workers, ("--store=milvus",), milvus) as service:
                yield self._cancel(service, files) | {"rows": vectors.count("scale")}
            vectors.close()

    def _cancel(self, service: Service, files: int) -> Figures:
        """Cancel a job that is half through: the second half of its folders has a new name, so it is new."""
        folders = sorted((self.root / str(files)).iterdir())
        for folder in folders[len(folders) // 2 :]:
            folder.rename(folder.with_name(f"moved-{folder.name}"))
        asked_s = 0.0

        def cancel(record: JobRecord) -> None:
            nonlocal asked_s
            if record.progress.added and not asked_s:
                asked_s = time.monotonic()
                service.jobs.cancel(record.id)

        run = service.run("scale", str(files), look=cancel, look_s=0.02)
        taken_s = time.monotonic() - asked_s
        assert run.record.state is JobState.CANCELLED
        return {"what": "cancel, Milvus Lite", "files": files, "done": run.record.progress.done, "cancel_s": taken_s}

    @contextmanager
    def _service(
        self, where: Path, workers: int, arguments: tuple[str, ...], milvus: tuple[str, int] | None = None
    ) -> Iterator[Service]:
        arguments = (*arguments, f"--codec={self.codec}")
        with running(where, self.root, workers=workers, arguments=arguments, milvus=milvus) as service:
            service.run("warm", self.warm)
            yield service

    def _figures(self, what: str, files: int, run: Run, service: Service) -> Figures:
        progress = run.record.progress
        assert run.record.state is JobState.SUCCEEDED, run.record
        assert (progress.total, progress.done, progress.failed) == (files, files, 0), run.record
        return {
            "what": what,
            "files": files,
            "seconds": round(run.seconds, 2),
            "files_per_s": round(files / run.seconds),
            "us_per_file": round(1e6 * run.seconds / files, 1),
            "cpu_us_per_file": {name: round(1e6 * taken / files, 1) for name, taken in run.cpu_s.items()},
            "planned_per_s": round(files / service.planner_s(run, "wall_s")),
            "planned_per_cpu_s": round(files / service.planner_s(run, "cpu_s")),
            "memory": run.meter.memory(),
            "redis_peak_mb": round(run.redis_peak_mb, 1),
            "shown": {"looks": run.looks, "with_rate": run.with_rate, "with_eta": run.with_eta},
            "stages": progress.stages.model_dump() if progress.stages else None,
            "load": os.getloadavg()[0],
        }


def report(show: Callable[[str], None], figures: Figures) -> None:
    """Print one line of the table."""
    name = f"{figures['what']:<22}{figures['files']:>9}"
    if "cancel_s" in figures:
        show(f"{name}   cancelled after {figures['done']} files, final {figures['cancel_s']:.2f} s later")
        return
    memory, cpu = figures["memory"], figures["cpu_us_per_file"]
    worker = memory["worker"]
    show(
        f"{name}{figures['seconds']:>9.1f}{figures['files_per_s']:>9}{figures['planned_per_s']:>9}"
        f"{figures['us_per_file']:>8.0f}{sum(cpu.values()):>8.0f}{cpu.get('milvus', 0):>8.0f}"
        f"{worker['start_mb']:>8.0f}{worker['peak_mb']:>7.0f}{worker['bytes_per_file']:>8.1f}"
        f"{figures['redis_peak_mb']:>8.1f}{memory.get('milvus', {}).get('peak_mb', 0):>8.0f}{figures['load']:>6.1f}"
    )


HEADER: Final = (
    f"{'what':<22}{'files':>9}{'s':>9}{'files/s':>9}{'plan/s':>9}{'us/file':>8}{'CPU us':>8}{'Milvus':>8}"
    f"{'RSS MB':>8}{'peak':>7}{'B/file':>8}{'Redis':>8}{'Milvus':>8}{'load':>6}"
)
