"""Whoever turns files into vectors, as the ingest part sees them: this service in its variants, and its rivals."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from speed.options import Options
from speed.pictures import Size, take
from speed.stack import NotHere, Stack, clean_environment

_END_S: Final = 60.0

#: Of this service, by the settings that make them.
VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "fast": {},
    "exact": {"LOOKALIKE_DECODE": "exact"},
    "int8": {"LOOKALIKE_PRECISION": "int8"},
    "fp32": {"LOOKALIKE_PRECISION": "fp32"},
}
LABELS: Final = {
    "fast": "lookalike",
    "exact": "lookalike, exact decode",
    "int8": "lookalike, int8",
    "fp32": "lookalike, fp32",
    "tutorial": "the tutorial's loop",
    "fastembed": "fastembed (embeds only)",
    "ray": "Ray Data (embeds only)",
}


class Runner(Protocol):
    """One of those who are compared, started and warm."""

    def run(self, size: Size, count: int) -> tuple[float, int]:
        """Take so many pictures of a size; returns the seconds, and how many there were."""


class Service:
    """This service in one variant: from the submit over HTTP to the job's success, stored in Milvus Lite."""

    def __init__(self, name: str, place: Path, options: Options) -> None:
        self._pictures = options.pictures
        self._runs = 0
        self.stack = Stack(place / name, root=options.pictures, models=options.models, env=VARIANTS[name])
        self.precision = ""  #: That the workers compute in.
        self.cpu_s: dict[str, float] = {}  #: What each part took during the last run.

    def __enter__(self) -> Self:
        self.stack.__enter__()
        self.precision = next(worker["precision"] for worker in self.stack.info()["workers"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def run(self, size: Size, count: int) -> tuple[float, int]:
        """See `Runner`. Each run has a collection of its own, so that every picture is new to it."""
        folder, paths = take(self._pictures, size, count)
        self._runs += 1
        collection = f"run{self._runs}"
        before = self.stack.cpu_s()
        seconds = self.stack.ingest(folder, collection)
        after = self.stack.cpu_s()
        self.cpu_s = {name: taken - before.get(name, 0.0) for name, taken in after.items()}
        self.stack.service.http.delete(f"/v1/collections/{collection}").raise_for_status()
        return seconds, len(paths)


class RivalProcess:
    """A rival in its process."""

    def __init__(self, name: str, place: Path, options: Options) -> None:
        self._pictures = options.pictures
        self._command = [sys.executable, "-m", "speed.rivals", name, str(options.models.absolute())]
        self._log = place / f"{name}.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self._answer()
        except NotHere:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin
        assert process.stdout
        process.stdin.close()  # It ends by itself once nobody asks any more.
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def run(self, size: Size, count: int) -> tuple[float, int]:
        """See `Runner`."""
        _, paths = take(self._pictures, size, count)
        answer = json.loads(self._ask(paths))
        if answer["vectors"] != len(paths):
            raise RuntimeError(f"{len(paths)} pictures gave {answer['vectors']} vectors")
        return float(answer["seconds"]), len(paths)

    def _ask(self, paths: Sequence[Path]) -> str:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(path.absolute()) for path in paths]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise NotHere("\n".join(self._log.read_text(errors="replace").splitlines()[-5:]))
        return line


def start(name: str, place: Path, options: Options) -> Service | RivalProcess:
    """Make the runner of a name, to be entered."""
    return Service(name, place, options) if name in VARIANTS else RivalProcess(name, place, options)
