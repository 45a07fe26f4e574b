"""The supervisor's one place to sleep: it wakes for a signal, for a child that ended, and for a finished probe."""

import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Self

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAKE: Final = b"\0"  # No signal has number 0.


class Inbox:
    """Signals as bytes on a socket (`signal.set_wakeup_fd`), so that waiting for them needs no polling.

    Used as a context manager, by the main thread; it puts the former handlers back at its end.
    """

    def __init__(self, *, ignore_hangup: bool) -> None:
        self._ignore_hangup = ignore_hangup
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in (*STOP_SIGNALS, signal.SIGCHLD):
            self._handlers[signum] = signal.signal(signum, self._handler(signum))
        return self

    def _handler(self, signum: signal.Signals) -> "Callable[[int, FrameType | None], None] | signal.Handlers":
        # Started under nohup, a closed terminal is not to end the stack, and the signal stays ignored.
        unwanted = self._ignore_hangup or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return signal.SIG_IGN if signum is signal.SIGHUP and unwanted else _note

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._former_fd)
        self._reader.close()
        self._writer.close()

    def wake(self) -> None:
        """End the current or the next wait. Safe to call from another thread, and after the end."""
        with suppress(OSError):  # A full buffer wakes as well, and a closed one has nobody left to wake.
            self._writer.send(_WAKE)

    def wait(self, timeout_s: float) -> list[signal.Signals]:
        """Sleep until something happens or the time is over; returns the stop signals received."""
        select.select([self._reader], [], [], max(0.0, timeout_s))
        try:
            received = self._reader.recv(4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in received if number in STOP_SIGNALS]


def _note(signum: int, frame: FrameType | None) -> None:
    """Nothing to do here: the wake-up byte says it all."""
