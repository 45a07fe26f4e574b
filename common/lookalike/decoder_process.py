"""The decoder's process from its parent's side: started when it is needed, asked, and ended when it does not answer.

Starting it is a plain `python -m lookalike.decoder_child`: no fork of a process that holds a model or a connection, no
pickle, no re-import of the caller's main module.
"""

import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import IO, Any, Final

from lookalike.decoder_child import PIXEL_BYTES, READY, SLOT_BYTES, SLOTS, Channel, DecoderConfig
from lookalike.errors import DecoderCrashed, DecodeTimeout, SetupError, error_classes

#: -P: the current folder, which anybody may have filled with modules, stays out of the import path.
CHILD_COMMAND: Final = (sys.executable, "-P", "-m", "lookalike.decoder_child")

_START_TIMEOUT_S: Final = 60.0  # It takes a fifth of a second; a machine that swaps may take long.
#: A terminal's Ctrl-C goes to its whole process group. Children end with their parent, not before it.
_KEPT_FROM_CHILDREN: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MEMORY_BYTES: Final = SLOTS * SLOT_BYTES


@dataclass(frozen=True)
class Answer:
    """What a child says of one image."""

    facts: dict[str, Any]
    payload: bytes
    _shared: mmap.mmap
    _slot: int

    def pixels(self, count: int = 1) -> bytearray:
        """Copy so many of the network's inputs out, which is to be done before the child is asked again."""
        begin = self._slot * SLOT_BYTES
        return bytearray(memoryview(self._shared)[begin : begin + count * PIXEL_BYTES])


@dataclass(frozen=True)
class _Running:
    popen: subprocess.Popen[bytes]
    end: socket.socket
    channel: Channel
    shared: mmap.mmap

    def stop(self) -> None:
        # It holds nothing that could be lost, and may be hanging: no need to ask it.
        self.popen.kill()
        self.popen.wait()
        self.channel.close()
        self.shared.close()


class DecoderProcess:
    """A place for one decoder process, filled anew when the process dies. For one thread.

    Up to `SLOTS` requests may be sent before the first is answered; they are answered in their order.
    """

    def __init__(self, command: Sequence[str], config: DecoderConfig) -> None:
        self._command = command
        self._config = config
        self._running: _Running | None = None
        self._sent = 0
        self._answered = 0

    @property
    def is_running(self) -> bool:
        """False before the first request, and once an answer has failed to come."""
        return self._running is not None

    def send(self, request: dict[str, Any], *, is_idle: bool) -> None:
        """Send a request; raises `SetupError` where a process is needed and cannot be started.

        `is_idle` says that all others are answered, or lost with their process.
        """
        if is_idle:
            self._sent = self._answered = 0
        message = request | {"slot": self._sent % SLOTS}
        if self._running:
            try:
                self._running.channel.send(message)
            except OSError:
                if is_idle:
                    # It died while it was idle, which is no fault of this image: say, the kernel was short of memory.
                    self.stop()
        if not self._running:
            self._running = _start(self._command, self._config)
            with suppress(OSError):  # `receive` finds out that it is dead already, and says so, here and above.
                self._running.channel.send(message)
        self._sent += 1

    def receive(self) -> Answer:
        """Wait for the oldest request's answer; raises `ImageError` classes.

        After `DecodeTimeout` and `DecoderCrashed` all later requests are lost, too.
        """
        running = self._running
        if running is None:
            raise DecoderCrashed
        try:
            reply, payload = running.channel.receive()
        except TimeoutError:
            self.stop()
            raise DecodeTimeout from None
        except (EOFError, OSError, ValueError) as error:
            self.stop()
            raise DecoderCrashed from error
        slot = self._answered % SLOTS
        self._answered += 1
        if "error" in reply:
            raise error_classes()[reply["error"]](reply["message"])
        return Answer(reply["facts"], payload, running.shared, slot)

    def stop(self) -> None:
        """End the process; the next request starts another."""
        running, self._running = self._running, None
        if running:
            running.stop()


def _start(command: Sequence[str], config: DecoderConfig) -> _Running:
    reason: Exception | None = None
    try:
        running = _spawn(command)
    except OSError as error:
        raise SetupError(f"The image decoder cannot be started: {error.strerror}.") from error
    try:
        running.end.settimeout(_START_TIMEOUT_S)
        running.channel.send(asdict(config))
        if running.channel.receive()[0] == READY:
            running.end.settimeout(config.timeout_s)
            return running
    except (EOFError, OSError, ValueError) as error:
        reason = error
    running.stop()
    raise SetupError("The image decoder does not start. What it says of that is on the standard error.") from reason


def _spawn(command: Sequence[str]) -> _Running:
    with ExitStack() as on_failure:
        ours, theirs = socket.socketpair()
        on_failure.enter_context(ours)
        with theirs, _anonymous_file(_MEMORY_BYTES) as memory:
            shared = mmap.mmap(memory.fileno(), _MEMORY_BYTES)
            # Children inherit the mask of blocked signals, and keep it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEPT_FROM_CHILDREN)
            try:
                popen = subprocess.Popen(  # noqa: S603 - the command is this package's own
                    [*command, str(theirs.fileno()), str(memory.fileno())],
                    pass_fds=(theirs.fileno(), memory.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        on_failure.pop_all()
    return _Running(popen, ours, Channel(ours), shared)


def _anonymous_file(size: int) -> IO[bytes]:
    file: IO[bytes]
    if sys.platform == "linux":
        file = os.fdopen(os.memfd_create("lookalike"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.truncate(size)
    return file
