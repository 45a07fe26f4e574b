"""Channels: how one stage of a pipeline hands its outcome to the next, each in a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from lookalike_worker.keeping import wait_s

T = TypeVar("T")


class Closed(Exception):
    """The pipeline has come to an end out of its turn; nothing is handed on any more."""


class Channel(Generic[T]):
    """A bounded queue from one thread to another that knows whether more is on its way.

    Whoever waits beats meanwhile: waiting is no hanging.
    """

    def __init__(self, beat: Callable[[], None], *, room: int) -> None:
        self._beat = beat
        self._room = room
        self._changed = threading.Condition()
        self._things: deque[T] = deque()
        self._is_idle = False  # The giver waits for something else than the taker.
        self._is_closed = False

    def put(self, thing: T) -> None:
        """Hand a thing on, as soon as there is room."""
        while True:
            with self._changed:
                if self._is_closed:
                    raise Closed
                if len(self._things) < self._room:
                    self._things.append(thing)
                    self._changed.notify_all()
                    return
                self._changed.wait(wait_s())
            self._beat()  # Not with the lock: it may have to wait for the job store.

    def take(self, *, when_idle: bool = False) -> T | None:
        """Take the next thing; None after about a second without one.

        And with `when_idle` as soon as it is known that none comes soon.
        """
        self._beat()
        with self._changed:
            if not self._things and not self._is_closed and not (when_idle and self._is_idle):
                self._changed.wait(wait_s())
            if self._is_closed:
                raise Closed
            if not self._things:
                return None
            self._changed.notify_all()
            return self._things.popleft()

    @property
    def runs_dry(self) -> bool:
        """Whether there is nothing to take, and none comes soon."""
        with self._changed:
            return self._is_idle and not self._things

    @contextmanager
    def idle(self) -> Iterator[None]:
        """For the giver: mark a time in which nothing is to be expected of it."""
        self._set_idle(True)
        try:
            yield
        finally:
            self._set_idle(False)

    def close(self) -> None:
        """Have both sides raise `Closed`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _set_idle(self, is_idle: bool) -> None:
        with self._changed:
            self._is_idle = is_idle
            self._changed.notify_all()
