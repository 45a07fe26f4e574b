"""The front end as it is deployed, for tests: a gunicorn with its configuration, and warnings as errors."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from bad_files import jpeg
from ports import free_port

GUNICORN = ["-W", "error", "-m", "gunicorn", "-c", "python:lookalike_web.gunicorn_conf", "lookalike_web.wsgi:app"]
FOLDER = {"source": {"type": "folder", "path": "."}}


@dataclass
class FrontEnd:
    """A running gunicorn."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    port: int
    http: httpx2.Client

    def await_answer(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                self.http.get("/healthz").raise_for_status()
            except httpx2.HTTPError:
                assert self.process.poll() is None, self.log("stderr")
                assert time.monotonic() < deadline, self.log("stderr")
                time.sleep(0.05)
            else:
                return

    def log(self, name: str) -> str:
        return (self.folder / name).read_text()

    def raw(self, request: bytes) -> bytes:
        """Send bytes that no HTTP client would."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            received = b""
            while part := connection.recv(65536):
                received += part
        return received

    def stop(self) -> None:
        self.http.close()
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        assert self.process.wait(120) == 0, self.log("stderr")
        _, left = psutil.wait_procs(family, timeout=60)
        for process in left:
            process.kill()
        assert not left, "gunicorn left its decoders or workers behind"


@contextmanager
def running(folder: Path, redis_url: str) -> Iterator[FrontEnd]:
    """Run gunicorn as long as the block lasts."""
    (folder / "root").mkdir(parents=True)
    (folder / "root" / "a.jpg").write_bytes(jpeg())
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")} | {
        "LOOKALIKE_PORT": str(port),
        "LOOKALIKE_REDIS_URL": redis_url,
        "LOOKALIKE_MILVUS_URI": f"http://127.0.0.1:{free_port()}",
        "LOOKALIKE_ROOTS": str(folder / "root"),
        "LOOKALIKE_DATA_DIR": str(folder / "data"),
        "LOOKALIKE_MIN_FREE_BYTES": "0",
        "LOOKALIKE_WEB_PROCESSES": "1",
        "LOOKALIKE_WEB_THREADS": "8",
        "HOME": str(folder),
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen([sys.executable, *GUNICORN], env=env, cwd=folder, stdout=out, stderr=err)
    front_end = FrontEnd(process, folder, port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
    try:
        front_end.await_answer()
        yield front_end
    finally:
        front_end.stop()
