"""A whole running service for tests: started as a user starts it, talked to over HTTP, looked into from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from leftovers import processes_of
from ports import free_port
from service import Service, until

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
class Stack(Service):
    """One `lookalike up`, its data folder and its root."""

    folder: Path
    models: Path  #: Converted networks, which other stacks may have left there.
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.data_dir = self.folder / "data"
        self.root = self.folder / "root"
        self.root.mkdir(parents=True, exist_ok=True)
        self.data_dir.mkdir()
        (self.data_dir / "models").symlink_to(self.models)
        super().__init__(f"http://127.0.0.1:{self.port}", self._tails)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")},
            # Nothing else installed: a redis-server of the system is not to be found.
            "PATH": str(Path(sys.executable).parent),
            **QUICK,
            **self.env,
            "LOOKALIKE_URL": self.url,
            "LOOKALIKE_DATA_DIR": str(self.data_dir),
        }

    # --- Its life ---

    def up(self) -> None:
        arguments = ["up", "--detach", "--port", str(self.port), "--root", str(self.root), *self.options]
        done = self.cli(*arguments, timeout_s=300)
        assert done.returncode == 0, done.stderr + self.logs()

    def down(self) -> None:
        done = self.cli("down", timeout_s=180)
        assert done.returncode == 0, done.stderr

    def end(self) -> None:
        """Leave nothing behind, whatever state a test left the stack in."""
        self.http.close()
        self.cli("down", timeout_s=180)
        left = self.members()
        told = [process.as_dict(["pid", "cmdline"]) for process in left]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert not told, f"left behind: {told}\n{self.logs()}"

    def cli(
        self, *arguments: str, timeout_s: float = 180, cwd: Path | None = None
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

    def _tails(self) -> str:
        tails = []
        for path in sorted((self.data_dir / "logs").glob("*.log")):
            tails.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-25:]))
        return "\n".join(tails)

    # --- Its processes ---

    def members(self) -> list[psutil.Process]:
        """Every process of this stack, told by its data folder."""
        return processes_of(self.data_dir)

    def status(self) -> dict[str, Any]:
        done = self.cli("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def pid(self, name: str) -> int:
        """The id of a process; waits for it where it is just being started again."""

        def found() -> int | None:
            return next(process["pid"] for process in self.status()["processes"] if process["name"].startswith(name))

        return until(found, 120, self.logs)

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
