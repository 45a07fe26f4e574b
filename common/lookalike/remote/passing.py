"""Passing failures: which are worth another try, when, and how often."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from lookalike.errors import ImageError

T = TypeVar("T")

MAX_RETRY_AFTER_S: Final = 60.0  #: A host that asks for more patience is tried after this, once more.

_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0


class Passing(Exception):
    """A failure that may be gone at the next try. Stays within this package; its error is what users are told."""

    def __init__(self, error: ImageError) -> None:
        super().__init__(error.message)
        self.error = error


def pause_s(failures: int, *, first_s: float = _FIRST_PAUSE_S, most_s: float = _MAX_PAUSE_S) -> float:
    """Return how long to wait after so many failures in a row, counted from 1: doubling, with jitter, capped.

    The jitter takes up to half of it away, so that those who failed together do not come back together.
    """
    return min(most_s, first_s * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def retrying(attempt: Callable[[], T], *, retries: int, wait: Callable[[float], None]) -> T:
    """Return what `attempt` does, trying again after passing failures; the last one's error is raised."""
    failures = 0
    while True:
        try:
            return attempt()
        except Passing as failure:
            failures += 1
            if failures > retries:
                raise failure.error from failure
            wait(pause_s(failures))


def retry_after_s(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, in seconds or as an HTTP date; None where there is none that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        seconds = (then - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
