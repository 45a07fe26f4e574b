"""The decode pool: images in, pixels out, in child processes, so that a hostile file costs itself and nothing else.

A child is a plain `python -m lookalike.decoder_child`: no fork of a process that holds a model or a connection, no
pickle, no re-import of the caller's main module. A child that crashes or hangs is replaced, and only the file it was at
is lost. Safe to call from many threads. Knows nothing of jobs.
"""

import json
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.decode import INPUT_SIZE
from lookalike.decoder_child import PIXEL_BYTES, READY, DecoderConfig
from lookalike.errors import DecoderCrashed, DecodeTimeout, SetupError, error_classes

if TYPE_CHECKING:
    from lookalike.settings import Settings

T = TypeVar("T")

#: -P: the current folder, which anybody may have filled with modules, stays out of the import path.
CHILD_COMMAND: Final = (sys.executable, "-P", "-m", "lookalike.decoder_child")

_MAX_AUTO_PROCESSES: Final = 8
_START_TIMEOUT_S: Final = 60.0  # It takes a fifth of a second; a machine that swaps may take long.
#: A terminal's Ctrl-C goes to its whole process group. Children end with their parent, not before it.
_KEPT_FROM_CHILDREN: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """An image as the network takes it, and what its row in a collection says of its file."""

    uri: str
    sha256: str
    size: int  #: Bytes.
    mtime_ns: int
    width: int  #: Pixels, after EXIF orientation.
    height: int
    pixels: NDArray[np.uint8]  #: (224, 224, 3), RGB.
    read_ms: float = 0.0  #: What the decoder's time went to.
    decode_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What an image's header and file say, without decoding it."""

    uri: str
    format: str  #: `JPEG`, `PNG`, `WEBP`, `BMP` or `GIF`, by content.
    sha256: str
    size: int  #: Bytes.
    mtime_ns: int
    width: int  #: Pixels, after EXIF orientation.
    height: int
    read_ms: float = field(default=0.0, compare=False)


class DecodePool:
    """A number of decoder processes, started when they are first needed, each driven by a thread of this process.

    Futures raise `ImageError` classes, for the one image; and `SetupError` where no decoder can be started at all.
    """

    def __init__(
        self, settings: "Settings", *, processes: int | None = None, command: Sequence[str] = CHILD_COMMAND
    ) -> None:
        """Take `processes` children, `decode_processes` of the settings where None; 0 is one per core, 8 at most."""
        wanted = settings.decode_processes if processes is None else processes
        count = wanted or min(_MAX_AUTO_PROCESSES, _cores())
        config = DecoderConfig(
            roots=tuple(str(root) for root in settings.roots),
            uploads_dir=str(settings.uploads_dir),
            max_file_bytes=settings.max_file_bytes,
            max_pixels=settings.max_pixels,
            min_side_px=settings.min_side_px,
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
        )
        self._thumbnail_px = settings.thumbnail_px
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        # Last in, first out: as few children are started, and stay in the processor's caches, as there is work for.
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._children = [_Child(command, config) for _ in range(count)]
        for child in self._children:
            self._idle.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def decode(self, uri: str) -> Future[Decoded]:
        """Read and decode an image into the network's input."""
        return self._submit(
            {"task": "decode", "uri": uri}, lambda answer: Decoded(uri=uri, pixels=answer.pixels(), **answer.facts)
        )

    def probe(self, uri: str) -> Future[Probe]:
        """Read an image's file and header only; finds what is wrong with either."""
        return self._submit({"task": "probe", "uri": uri}, lambda answer: Probe(uri=uri, **answer.facts))

    def thumbnail(self, uri: str, *, longer_side_px: int | None = None) -> Future[bytes]:
        """Make a WebP without metadata, its longer side `thumbnail_px` of the settings where no other is given."""
        request = {"task": "thumbnail", "uri": uri, "longer_side_px": longer_side_px or self._thumbnail_px}
        return self._submit(request, lambda answer: answer.payload)

    def close(self) -> None:
        """Drop what waits, let what runs end (within its time limit), and end all children."""
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.stop()

    def _submit(self, request: dict[str, Any], result: "Callable[[_Answer], T]") -> Future[T]:
        def run() -> T:
            child = self._idle.get()
            try:
                return result(child.ask(request))
            finally:
                self._idle.put(child)

        return self._threads.submit(run)


@dataclass(frozen=True)
class _Answer:
    facts: dict[str, Any]
    payload: bytes
    shared: mmap.mmap

    def pixels(self) -> NDArray[np.uint8]:
        """Copy the pixels out, before the child is asked again."""
        flat = np.frombuffer(bytearray(self.shared), dtype=np.uint8)
        return flat.reshape(INPUT_SIZE, INPUT_SIZE, 3)


@dataclass(frozen=True)
class _Process:
    """A running child, its socket and its shared memory."""

    popen: subprocess.Popen[bytes]
    channel: "Connection[Any, Any]"
    shared: mmap.mmap

    def end(self) -> None:
        # It holds nothing that could be lost, and may be hanging: no need to ask it.
        self.popen.kill()
        self.popen.wait()
        self.channel.close()
        self.shared.close()


class _Child:
    """A place for one decoder process, filled anew when the process dies. Used by one thread at a time."""

    def __init__(self, command: Sequence[str], config: DecoderConfig) -> None:
        self._command = command
        self._config = config
        self._process: _Process | None = None

    def ask(self, request: dict[str, Any]) -> _Answer:
        """Have one request answered, or raise what went wrong with it."""
        process = self._sent(json.dumps(request).encode())
        try:
            if not process.channel.poll(self._config.timeout_s):
                self.stop()
                raise DecodeTimeout
            reply, payload = json.loads(process.channel.recv_bytes()), process.channel.recv_bytes()
        except (EOFError, OSError) as error:
            self.stop()
            raise DecoderCrashed from error
        if "error" in reply:
            raise error_classes()[reply["error"]](reply["message"])
        return _Answer(reply["facts"], payload, process.shared)

    def stop(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process:
            process.end()

    def _sent(self, message: bytes) -> _Process:
        if self._process:
            try:
                self._process.channel.send_bytes(message)
            except OSError:
                # It died while it was idle, which is no fault of this image: say, the kernel was short of memory.
                self.stop()
            else:
                return self._process
        self._process = _start(self._command, self._config)
        self._process.channel.send_bytes(message)
        return self._process


def _start(command: Sequence[str], config: DecoderConfig) -> _Process:
    reason: Exception | None = None
    try:
        process = _spawn(command)
    except OSError as error:
        raise SetupError(f"The image decoder cannot be started: {error.strerror}.") from error
    try:
        process.channel.send_bytes(json.dumps(asdict(config)).encode())
        if process.channel.poll(_START_TIMEOUT_S) and process.channel.recv_bytes() == READY:
            return process
    except (EOFError, OSError) as error:
        reason = error
    process.end()
    raise SetupError("The image decoder does not start. What it says of that is on the standard error.") from reason


def _spawn(command: Sequence[str]) -> _Process:
    with ExitStack() as opened:
        ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
        memory = opened.enter_context(_anonymous_file(PIXEL_BYTES))
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
        return _Process(popen, Connection(ours.detach()), mmap.mmap(memory.fileno(), PIXEL_BYTES))


def _anonymous_file(size: int) -> IO[bytes]:
    file: IO[bytes]
    if sys.platform == "linux":
        file = os.fdopen(os.memfd_create("lookalike"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.truncate(size)
    return file


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
