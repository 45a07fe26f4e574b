"""Progress of jobs on stderr: a bar with rate and remaining time on a terminal, a line now and then in a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

if TYPE_CHECKING:
    from lookalike.records import JobRecord, Progress, StageTimes

LINE_EVERY_S: Final = 5.0
_SHORT_S: Final = 9.95  #: Times below it are told with a decimal where they are compared.

#: What people call the stages of an ingest, and what holds a job up.
_STAGES: Final = {"read_s": "reading", "decode_s": "decoding", "embed_s": "embedding", "store_s": "storing"}
_HINDRANCES: Final = {
    "vector_store": "waiting for the vector store",
    "source": "waiting for the source",
    "worker": "waiting: a worker lacks something, see its log",
    "model": "waiting for workers with its model",
}


class Report(Protocol):
    """Shows how far something is."""

    def progress(self, progress: "Progress", state: str = "") -> None:
        """Show the progress of jobs, and in `state` what is to be known besides."""

    def bytes(self, done: int, total: int) -> None:
        """Show how many bytes of a file have been moved."""


@contextmanager
def progress_report(what: str) -> "Iterator[Report]":
    """Give a report of how far `what` is; what it showed on a terminal is gone at the end."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield _Bar(what, bars)
    else:
        yield _Lines(what)


@contextmanager
def _bars() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield bars


class _Bar:
    """A bar on a terminal."""

    def __init__(self, what: str, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task(what, total=None, state="waiting")

    def progress(self, progress: "Progress", state: str = "") -> None:
        self._bars.update(self._task, total=progress.total, completed=progress.done, state=state or describe(progress))

    def bytes(self, done: int, total: int) -> None:
        self._bars.update(self._task, total=total, completed=done, state=moved(done, total))


class _Lines:
    """A line every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()

    def progress(self, progress: "Progress", state: str = "") -> None:
        self._tell(state or describe(progress))

    def bytes(self, done: int, total: int) -> None:
        self._tell(moved(done, total))

    def _tell(self, state: str) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            click.echo(f"{self._what}: {state}", err=True)


def describe(progress: "Progress") -> str:
    """Say how far something is, as in `512 of 1000 images, 4 failed, 93.1 a second, 5 s left, mostly embedding`."""
    if progress.position:
        return f"queued behind {progress.position} {'job' if progress.position == 1 else 'jobs'}"
    total = "" if progress.total is None else f" of {progress.total}"
    parts = [f"{progress.done}{total} {images(progress.total or progress.done)}"]
    parts += [f"{count} {name}" for name in ("failed", "removed") if (count := getattr(progress, name))]
    if progress.images_per_s:
        parts.append(f"{progress.images_per_s:.1f} a second")
    if progress.eta_s:
        parts.append(f"{duration(progress.eta_s)} left")
    if progress.stages and (most := _busiest(progress.stages)):
        parts.append(f"mostly {most}")
    return ", ".join(parts)


def hindrance(record: "JobRecord") -> str:
    """Say what keeps a job from getting on, as in `paused`; the empty text where nothing does."""
    if record.state.final:
        return ""
    if record.paused:
        return f"paused; go on with: lookalike jobs resume {record.id}"
    return _HINDRANCES.get(record.waiting_for or "", "")


def stage_split(stages: "StageTimes") -> str:
    """Say where the time went, as in `reading 0.4 s, decoding 41 s, embedding 12 s, storing 2.0 s`."""

    def took(seconds: float) -> str:
        return f"{seconds:.1f} s" if seconds < _SHORT_S else duration(seconds)

    return ", ".join(f"{word} {took(getattr(stages, name))}" for name, word in _STAGES.items())


def _busiest(stages: "StageTimes") -> str:
    name = max(_STAGES, key=lambda one: float(getattr(stages, one)))
    return _STAGES[name] if getattr(stages, name) else ""


def moved(done: int, total: int | None) -> str:
    """Say how much of a file has been moved, as in `512 of 2350 MB`."""
    whole = "" if total is None else f" of {total / 1e6:.0f}"
    return f"{done / 1e6:.0f}{whole} MB"


def images(count: int) -> str:
    """Return the noun for a number of images."""
    return "image" if count == 1 else "images"


def duration(seconds: float) -> str:
    """Return a time as people say it: `5 s`, `3 min`, `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
