"""The decode pool: images in, pixels out, in child processes, so that a hostile file costs itself and nothing else.

Each child (`lookalike.decoder_process`) is driven by a thread of this process. One that crashes or hangs is replaced,
and only the file it was at is lost. While much waits, a child is told of its next image before it is done with the
last, so that it need not wait for this process's threads. Safe to call from many threads. Knows nothing of jobs.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.decode import INPUT_SIZE, Region
from lookalike.decoder_child import SLOTS, DecoderConfig
from lookalike.decoder_process import CHILD_COMMAND, Answer, DecoderProcess
from lookalike.settings import Decoding

if TYPE_CHECKING:
    from lookalike.records import Alteration
    from lookalike.settings import Settings

T = TypeVar("T")

_MAX_AUTO_PROCESSES: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """An image as the network takes it, and what its row in a collection says of its file."""

    uri: str
    sha256: str
    size: int  #: Bytes.
    mtime_ns: int
    width: int  #: Pixels, after EXIF orientation.
    height: int
    pixels: NDArray[np.uint8]  #: (224, 224, 3), RGB; with tiles (1 + tiles, 224, 224, 3), the whole image first.
    picture_hash: str = ""  #: Of the whole picture: 16 hexadecimal digits, where it was asked for.
    read_ms: float = 0.0  #: What the decoder's time went to.
    decode_ms: float = 0.0  #: Resizing included.
    resize_ms: float = 0.0


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
    picture_hash: str = ""  #: None without decoding.
    read_ms: float = field(default=0.0, compare=False)


@dataclass(frozen=True, eq=False)
class _Task:
    request: dict[str, Any]
    result: Callable[[Answer], Any]
    future: Future[Any] = field(default_factory=Future)


class DecodePool:
    """A number of decoder processes, started when they are first needed, each driven by a thread of this process.

    Futures raise `ImageError` classes, for the one image; and `SetupError` where no decoder can be started at all.
    """

    def __init__(
        self, settings: "Settings", *, processes: int | None = None, command: Sequence[str] = CHILD_COMMAND
    ) -> None:
        """Take `processes` children, `decode_processes` of the settings where None; 0 is one per core, 8 at most."""
        wanted = settings.decode_processes if processes is None else processes
        self._most = wanted or min(_MAX_AUTO_PROCESSES, _cores())
        self._command = command
        self._config = DecoderConfig(
            roots=tuple(str(root) for root in settings.roots),
            uploads_dir=str(settings.uploads_dir),
            max_file_bytes=settings.max_file_bytes,
            max_pixels=settings.max_pixels,
            min_side_px=settings.min_side_px,
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
            exact=settings.decode is Decoding.EXACT,
        )
        self._thumbnail_px = settings.thumbnail_px
        self._lock = threading.Lock()  # Held for what follows.
        self._waiting: deque[_Task] = deque()  # Empty while a driver is idle.
        self._drivers: list[_Driver] = []
        # Last in, first out: as few children are started, and stay in the processor's caches, as there is work for.
        self._idle: list[_Driver] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def decode(
        self, uri: str, *, region: Region | None = None, hashed: bool = True, tiles: Sequence[Region] = ()
    ) -> Future[Decoded]:
        """Read and decode an image into the network's input, the way that `decode` of the settings names.

        With a region, the input is what it would be of a picture of no more than that. Unless it is to be `hashed`,
        it comes without its picture hash, and a little sooner. With `tiles`, at most 16, these regions are cut out of
        the same decoded image.
        """

        def result(answer: Answer) -> Decoded:
            shape = (1 + len(tiles), INPUT_SIZE, INPUT_SIZE, 3) if tiles else (INPUT_SIZE, INPUT_SIZE, 3)
            pixels = np.frombuffer(answer.pixels(1 + len(tiles)), dtype=np.uint8).reshape(shape)
            return Decoded(uri=uri, pixels=pixels, **answer.facts)

        request: dict[str, Any] = {"task": "decode", "uri": uri, "hashed": hashed}
        if tiles:
            request["tiles"] = list(tiles)
        return self._submit(request if region is None else request | {"region": region}, result)

    def probe(self, uri: str) -> Future[Probe]:
        """Read an image's file and header only; finds what is wrong with either."""
        return self._submit({"task": "probe", "uri": uri}, lambda answer: Probe(uri=uri, **answer.facts))

    def thumbnail(self, uri: str, *, longer_side_px: int | None = None) -> Future[bytes]:
        """Make a WebP without metadata, its longer side `thumbnail_px` of the settings where no other is given."""
        request = {"task": "thumbnail", "uri": uri, "longer_side_px": longer_side_px or self._thumbnail_px}
        return self._submit(request, lambda answer: answer.payload)

    def altered(self, uri: str, alterations: Sequence["Alteration"]) -> Future[NDArray[np.uint8]]:
        """Make the network's input of altered copies of an image: (n, 224, 224, 3), RGB, in the order asked for."""

        def result(answer: Answer) -> NDArray[np.uint8]:
            return np.frombuffer(answer.payload, dtype=np.uint8).reshape(-1, INPUT_SIZE, INPUT_SIZE, 3)

        return self._submit({"task": "alter", "uri": uri, "alterations": [str(name) for name in alterations]}, result)

    def close(self) -> None:
        """Drop what waits, let what runs end (within its time limit), and end all children."""
        with self._lock:
            self._closed = True
            dropped, self._waiting = self._waiting, deque()
            idle, self._idle = self._idle, []
        for task in dropped:
            task.future.cancel()
        for driver in idle:
            driver.inbox.put(None)
        for driver in self._drivers:
            driver.join()

    def _submit(self, request: dict[str, Any], result: Callable[[Answer], T]) -> Future[T]:
        task = _Task(request, result)
        with self._lock:
            if self._closed:
                raise RuntimeError("The decode pool is closed.")
            if self._idle:
                self._idle.pop().inbox.put(task)
            else:
                if len(self._drivers) < self._most:
                    driver = _Driver(self._take, self._command, self._config)
                    driver.start()
                    self._drivers.append(driver)
                self._waiting.append(task)
        return task.future

    def _take(self, driver: "_Driver") -> _Task | None:
        """Return the next task, if there is one for this driver; else one may come into its inbox, or None to end.

        A driver that has a task under way gets another only while more wait than there are children, so that a few
        images are not lined up behind a slow one while another child has nothing to do.
        """
        with self._lock:
            if len(self._waiting) > (self._most if driver.is_busy else 0):
                return self._waiting.popleft()
            if not driver.is_busy:
                if self._closed:
                    driver.inbox.put(None)
                else:
                    self._idle.append(driver)
        return None


class _Driver(threading.Thread):
    """Keeps one child at work, and replaces it when it dies."""

    def __init__(
        self, take: Callable[["_Driver"], _Task | None], command: Sequence[str], config: DecoderConfig
    ) -> None:
        # A process that ends without closing its pool does not wait for its images.
        super().__init__(name="decode", daemon=True)
        self.inbox: SimpleQueue[_Task | None] = SimpleQueue()
        self._take = take
        self._child = DecoderProcess(command, config)
        self._under_way: deque[_Task] = deque()  # The child is at the first of them.

    @property
    def is_busy(self) -> bool:
        """Whether it has tasks under way. Only for its own thread."""
        return bool(self._under_way)

    def run(self) -> None:
        """Drive the child until None comes into the inbox."""
        deliver: Callable[[], None] | None = None
        while True:
            while len(self._under_way) < SLOTS and (task := self._take(self)):
                self._begin(task)
            # Only now, so that who asks for the next image upon it finds this driver idle.
            if deliver:
                deliver()
                deliver = None
            if not self._under_way:
                last = self.inbox.get()
                if last is None:
                    break
                self._begin(last)
            if self._under_way:
                deliver = self._finish()
        self._child.stop()

    def _begin(self, task: _Task) -> None:
        if task.future.set_running_or_notify_cancel():
            self._send(task)

    def _send(self, task: _Task) -> None:
        try:
            self._child.send(task.request, is_idle=not self._under_way)
        except Exception as error:  # noqa: BLE001 - as below; most often `SetupError`
            task.future.set_exception(error)
        else:
            self._under_way.append(task)

    def _finish(self) -> Callable[[], None]:
        """Wait for what becomes of the first task under way; returns what tells of it."""
        task = self._under_way[0]
        try:
            result = task.result(self._child.receive())
            outcome = partial(task.future.set_result, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits for the task is told
            outcome = partial(task.future.set_exception, error)
        self._under_way.popleft()
        if not self._child.is_running:
            self._begin_again()
        return outcome

    def _begin_again(self) -> None:
        """Give another child what the one that died had been asked for and was not at."""
        tasks, self._under_way = self._under_way, deque()
        for task in tasks:
            self._send(task)


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
