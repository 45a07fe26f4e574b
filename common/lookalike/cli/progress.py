"""Progress of jobs on stderr: a bar with rate and remaining time on a terminal, a line now and then in a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from lookalike.records import Progress

LINE_EVERY_S: Final = 5.0


@contextmanager
def progress_report(what: str) -> "Iterator[Callable[[Progress], None]]":
    """Give a function that shows how far `what` is; what it showed on a terminal is gone at the end."""
    if sys.stderr.isatty():
        with _bar(what) as show:
            yield show
    else:
        yield _lines(what)


@contextmanager
def _bar(what: str) -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None, state="waiting")
        yield lambda progress: bars.update(
            task, total=progress.total, completed=progress.done, state=describe(progress)
        )


def _lines(what: str) -> "Callable[[Progress], None]":
    last = time.monotonic()

    def show(progress: "Progress") -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"{what}: {describe(progress)}", err=True)

    return show


def describe(progress: "Progress") -> str:
    """Say how far something is, as in `512 of 1000 images, 4 failed, 93.1 a second, 5 s left`."""
    total = "" if progress.total is None else f" of {progress.total}"
    parts = [f"{progress.done}{total} {images(progress.total or progress.done)}"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.images_per_s:
        parts.append(f"{progress.images_per_s:.1f} a second")
    if progress.eta_s:
        parts.append(f"{duration(progress.eta_s)} left")
    return ", ".join(parts)


def images(count: int) -> str:
    """Return the noun for a number of images."""
    return "image" if count == 1 else "images"


def duration(seconds: float) -> str:
    """Return a time as people say it: `5 s`, `3 min`, `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
