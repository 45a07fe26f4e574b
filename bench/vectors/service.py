"""The servers that are measured: on a folder that keeps what was stored, and metered with all their children."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from lookalike.vectorstore.indexes import ServerKind
from servers import start_milvus_lite, start_milvus_standalone

_READY: Final = "serving.json"
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    kind: ServerKind
    uri: str
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds of the server and its children so far."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in self._processes()))

    def rss_mib(self) -> float:
        """Resident memory of the server and its children."""
        return sum(one.memory_info().rss for one in self._processes()) / _MIB

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def started(kind: ServerKind, place: Path) -> Iterator[Server]:
    """Run a server on its folder under `place` as long as the block lasts."""
    start = start_milvus_lite if kind is ServerKind.LITE else start_milvus_standalone
    folder = place / kind.value
    folder.parent.mkdir(parents=True, exist_ok=True)
    with start(folder) as (uri, process):
        yield Server(kind=kind, uri=uri, pid=process.pid)


@contextmanager
def announced(server: Server, place: Path) -> Iterator[None]:
    """Let other processes find a server, as long as the block lasts."""
    note = place / _READY
    note.write_text(json.dumps(asdict(server)))
    try:
        yield
    finally:
        note.unlink()


def serving(place: Path) -> Server:
    """The server that `announced` left here."""
    note = json.loads((place / _READY).read_text())
    return Server(kind=ServerKind(note["kind"]), uri=note["uri"], pid=note["pid"])


def until_told() -> None:
    """Wait for SIGTERM or SIGINT, or for whoever started this process to be gone."""
    parent = os.getppid()
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    while not told and os.getppid() == parent:
        time.sleep(0.2)
