"""Real Milvus servers for tests."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lookalike.errors import VectorStoreUnavailable
from lookalike.settings import Settings
from lookalike.vectorstore import VectorStore
from ports import free_port, free_ports

BIN = Path(sys.executable).parent
CONFIG = Path("configs", "milvus.yaml")  #: Where the wheel's server writes what it decided.
Process = subprocess.Popen[bytes]


@contextmanager
def start_milvus_lite(data_dir: Path, *, port: int | None = None) -> Iterator[tuple[str, Process]]:
    """Run Milvus Lite as `lookalike up` does, as long as the block lasts; gives its address and process."""
    port = port or free_port()
    command = [sys.executable, "-m", "lookalike.vectorstore.lite", "--data-dir", data_dir, "--port", str(port)]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        await_milvus(uri, process, timeout_s=120)
        yield uri, process
    finally:
        _end(process)


@contextmanager
def start_milvus_standalone(data_dir: Path) -> Iterator[tuple[str, Process]]:
    """Run the Milvus standalone of the `milvus` wheel as long as the block lasts; gives its address and process.

    The wheel starts it as a child of a Python process, and unpacks 200 MB into `data_dir` the first time.
    """
    port, *others = free_ports(10)
    names = [
        "etcd",
        "root-coord",
        "proxy-internal",
        "query-coord",
        "query-node",
        "index-coord",
        "index-node",
        "data-coord",
        "data-node",
    ]
    flags = [f"--{name}-port={other}" for name, other in zip(names, others, strict=True)]
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / CONFIG).unlink(missing_ok=True)  # Of an earlier run, with its port.
    with (data_dir / "output.log").open("ab") as output:
        process = subprocess.Popen(
            [BIN / "milvus-server", "--data", data_dir, f"--proxy-port={port}", *flags],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        uri = f"http://127.0.0.1:{_proxy_port(data_dir, process)}"
        await_milvus(uri, process, timeout_s=240)
        yield uri, process
    finally:
        _end(process)


def _proxy_port(data_dir: Path, process: Process) -> int:
    # The wheel takes the next free port where somebody was faster, and writes down which.
    config = data_dir / CONFIG
    deadline = time.monotonic() + 180
    while True:
        said = config.read_text() if config.exists() else ""
        if found := re.search(r"^proxy:\n(?:(?:[ #].*)?\n)*?  port: (\d+)\n", said, re.MULTILINE):
            return int(found[1])
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"milvus-server did not start; see {data_dir / 'output.log'}")
        time.sleep(0.1)


def await_milvus(uri: str, process: Process, *, timeout_s: float) -> None:
    """Wait until a server answers a read, which a Milvus refuses long after it accepts connections."""
    deadline = time.monotonic() + timeout_s
    store = VectorStore(Settings(milvus_uri=uri))
    while True:
        try:
            store.collections()
        except VectorStoreUnavailable:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            store.close()
            return


def _end(process: Process) -> None:
    """End a server the way it likes, then whatever is left of its process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
