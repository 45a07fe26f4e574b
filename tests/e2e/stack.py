"""A whole running service for tests: started as a user starts it, talked to over HTTP, looked into from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil
import redis

from redis_server import free_port

T = TypeVar("T")

LOOKALIKE = str(Path(sys.executable).with_name("lookalike"))

#: Death is noticed within seconds, so that tests of it need not wait for minutes.
QUICK = {
    "LOOKALIKE_WEIGHTS": "untrained",
    "LOOKALIKE_LEASE_S": "4",
    "LOOKALIKE_SEARCH_LEASE_S": "4",
    "LOOKALIKE_SWEEP_S": "1",
    "LOOKALIKE_HEARTBEAT_S": "1",
    "LOOKALIKE_HEARTBEAT_TTL_S": "6",
    "LOOKALIKE_TASK_LIMIT_S": "30",
    "LOOKALIKE_CHUNK_IMAGES": "16",
    "LOOKALIKE_CONSISTENCY": "Strong",
}


@dataclass
class Stack:
    """One `lookalike up`, its data folder and its root."""

    folder: Path
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.data_dir = self.folder / "data"
        self.root = self.folder / "root"
        self.root.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")},
            # Nothing else installed: a redis-server of the system is not to be found.
            "PATH": str(Path(sys.executable).parent),
            **QUICK,
            **self.env,
            "LOOKALIKE_URL": self.url,
            "LOOKALIKE_DATA_DIR": str(self.data_dir),
        }
        self.http = httpx2.Client(base_url=self.url, timeout=90)

    # --- Its life ---

    def up(self) -> None:
        arguments = ["up", "--detach", "--port", str(self.port), "--root", str(self.root), *self.options]
        done = self.cli(*arguments, timeout_s=180)
        assert done.returncode == 0, done.stderr + self.logs()

    def down(self) -> None:
        done = self.cli("down", timeout_s=60)
        assert done.returncode == 0, done.stderr

    def end(self) -> None:
        """Leave nothing behind, whatever state a test left the stack in."""
        self.http.close()
        self.cli("down", timeout_s=60)
        leftover = {process.pid: process.cmdline() for process in self.members()}
        for pid in leftover:
            os.kill(pid, signal.SIGKILL)
        assert not leftover, f"left behind: {leftover}\n{self.logs()}"

    def cli(
        self, *arguments: str, timeout_s: float = 120, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [LOOKALIKE, *arguments],
            env=self.environ,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def logs(self) -> str:
        tails = []
        for path in sorted((self.data_dir / "logs").glob("*.log")):
            tails.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-25:]))
        return "\n".join(tails)

    # --- Its processes ---

    def members(self) -> list[psutil.Process]:
        """Every process of this stack, told by the data folder in its environment or command line."""
        mark = str(self.data_dir)
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                ours = any(mark in word for word in words) or (
                    process.environ().get("LOOKALIKE_DATA_DIR") == mark and "pytest" not in " ".join(words)
                )
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def status(self) -> dict[str, Any]:
        done = self.cli("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def pid(self, name: str) -> int:
        return next(process["pid"] for process in self.status()["processes"] if process["name"].startswith(name))

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def redis_url(self) -> str:
        """Where the stack's Redis is: the one given, or the one it started."""
        return self.env.get("LOOKALIKE_REDIS_URL") or self.status()["redis_url"]

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url())

    def redis_pid(self) -> int:
        with self.redis() as client:
            return int(client.info("server")["process_id"])

    def await_ready(self, timeout_s: float = 60) -> None:
        until(self._ready, timeout_s, self.logs)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    # --- Its interface ---

    def ingest(self, folder: str, **fields: Any) -> str:
        answer = self.http.post("/v1/ingests", json={"source": {"type": "folder", "path": folder}, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, job_id: str, timeout_s: float = 120) -> dict[str, Any]:
        def final() -> dict[str, Any] | None:
            try:
                answer = self.http.get(f"/v1/jobs/{job_id}", params={"wait": 5})
            except httpx2.HTTPError:
                return None
            record = answer.json()
            return record if answer.status_code == 200 and record["finished_at"] else None

        return until(final, timeout_s, lambda: f"{self.job(job_id)}\n{self.logs()}")

    def search(self, collection: str, *queries: dict[str, Any], limit: int = 3, **fields: Any) -> dict[str, Any]:
        body = {"collection": collection, "queries": list(queries), "limit": limit, "wait": 30, **fields}
        answer = self.http.post("/v1/searches", json=body)
        assert answer.status_code in {200, 202}, answer.text
        record = self.finished(answer.json()["id"])
        assert record["state"] == "succeeded", record
        return record["result"]

    def count(self, collection: str) -> int:
        answer = self.http.get(f"/v1/collections/{collection}")
        assert answer.status_code == 200, answer.text
        return answer.json()["count"]

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.http.get(f"/v1/jobs/{job_id}/failures").text.splitlines()]


def until(probe: Callable[[], T | None], timeout_s: float, explain: Callable[[], str] = lambda: "") -> T:
    """Wait for a probe to give something; fails with an explanation when its time is over."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s\n{explain()}"
        time.sleep(0.1)
    return value
