"""A whole service to measure: started by `lookalike up`, talked to over HTTP, its processes looked at from outside."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from lookalike.settings import Settings
from lookalike.supervisor.servers import free_port
from lookalike.vectorstore import VectorStore
from service import Service
from shared.meter import cpu_s, peak_mb

_LOOKALIKE: Final = str(Path(sys.executable).with_name("lookalike"))
_UP_S: Final = 300.0
_DOWN_S: Final = 90.0
_JOB_S: Final = 600.0


class NotHere(Exception):
    """A variant of the service that this machine, or this version, does not start."""


def clean_environment() -> dict[str, str]:
    """What a child gets: nothing of the settings of whoever runs the bench."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}


class Stack:
    """One `lookalike up`, as long as a `with` block lasts."""

    def __init__(self, data_dir: Path, *, root: Path, models: Path, env: Mapping[str, str] | None = None) -> None:
        """Lay out the data folder; converted networks are looked for, and left, in `models`."""
        self.data_dir = data_dir
        self._port = free_port()
        self._arguments = ("up", "--detach", "--port", str(self._port), "--root", str(root))
        self._env = {
            **clean_environment(),
            "LOOKALIKE_WEIGHTS": "untrained",
            **(env or {}),
            "LOOKALIKE_DATA_DIR": str(data_dir),
        }
        data_dir.mkdir(parents=True, exist_ok=True)
        models.mkdir(parents=True, exist_ok=True)
        if not (data_dir / "models").is_symlink():
            (data_dir / "models").symlink_to(models.absolute())
        self.ready_s = 0.0  #: From the command to `/readyz`.

    def __enter__(self) -> Self:
        with ExitStack() as undone:
            undone.callback(self._lookalike, "down", timeout_s=_DOWN_S)  # Whatever became of the start.
            began_s = time.perf_counter()
            done = self._lookalike(*self._arguments, timeout_s=_UP_S)
            self.ready_s = time.perf_counter() - began_s
            if done.returncode:
                raise NotHere(done.stderr.strip())
            self.service = Service(f"http://127.0.0.1:{self._port}", self._log_tails)
            undone.callback(self.service.http.close)
            self._undone = undone.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undone.close()

    # --- What it does ---

    def ingest(self, folder: str, collection: str) -> float:
        """Ingest a folder; returns the seconds from the submit to the client's word that it succeeded."""
        began_s = time.perf_counter()
        record = self.service.finished(self.service.ingest(folder, collection=collection), _JOB_S)
        taken_s = time.perf_counter() - began_s
        progress = record["progress"]
        if record["state"] != "succeeded" or progress["failed"] or progress["stored"] != progress["total"]:
            raise RuntimeError(f"not everything was stored: {record}")
        return taken_s

    def info(self) -> dict[str, Any]:
        """What the service says of itself."""
        answer: dict[str, Any] = self.service.http.get("/v1/info").raise_for_status().json()
        return answer

    def vectors(self) -> VectorStore:
        """The vector store as a worker of this service sees it."""
        return VectorStore.connect(
            Settings(redis_url=self.status["redis_url"], milvus_uri=self.status["milvus_uri"], data_dir=self.data_dir)
        )

    # --- Its processes ---

    @cached_property
    def status(self) -> dict[str, Any]:
        """What `lookalike status` says."""
        done = self._lookalike("status", "--json", timeout_s=30)
        done.check_returncode()
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds each part has taken so far; decoders are those of the ingest worker."""
        return {name: sum(cpu_s(process) for process in family) for name, family in self._families().items()}

    def peak_mb(self) -> dict[str, float]:
        """The most memory that the largest process of each part has had resident since its start."""
        return {name: max(peak_mb(process) for process in family) for name, family in self._families().items()}

    def _families(self) -> dict[str, list[psutil.Process]]:
        """The processes of each part; a worker's decoders are told apart from it."""
        families: dict[str, list[psutil.Process]] = {"supervisor": [psutil.Process(self.status["pid"])]}
        for told in self.status["processes"]:
            process = psutil.Process(told["pid"])
            name = told["name"].removesuffix("-1")
            if name == "web":
                # gunicorn's master serves nothing; its children's children decode.
                families[name] = process.children()
                families["web, decoders"] = [one for worker in families[name] for one in worker.children()]
            else:
                families[name] = [process]
                families[f"{name}, decoders"] = process.children()
        return {name: family for name, family in families.items() if family}

    # --- Behind it ---

    def _lookalike(self, *arguments: str, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [_LOOKALIKE, *arguments],
            env=self._env,
            cwd=self.data_dir,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _log_tails(self) -> str:
        """The last lines that each process wrote."""
        logs = sorted((self.data_dir / "logs").glob("*.log"))
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]) for log in logs
        )
