"""The decoder's child process: reads and decodes one image at a time, and may die of it.

Started by `lookalike.decodepool` as `python -m lookalike.decoder_child SOCKET MEMORY`, two file descriptors. Over the
socket go JSON requests and replies, over the shared memory the pixels. It ends when its parent's end of the socket
closes, whatever became of the parent. Imports as little as it can: it is started anew after every crash.
"""

import hashlib
import json
import mmap
import resource
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from PIL import Image

from lookalike.decode import INPUT_SIZE, Limits, decode, read_header, resize_and_crop, thumbnail
from lookalike.errors import DecodeOutOfMemory, ImageError
from lookalike.roots import Roots
from lookalike.sources import Sources
from lookalike.uploads import UploadStore

PIXEL_BYTES: Final = INPUT_SIZE * INPUT_SIZE * 3
READY: Final = b"ready"

#: How much later than its parent's time limit a child ends by itself: only an orphan gets there.
_ORPHAN_SLACK_S: Final = 5.0

Reply = tuple[dict[str, Any], bytes]  #: Facts about the image, and the bytes that belong to them.


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What a child needs to know of the settings; its first message."""

    roots: tuple[str, ...]
    uploads_dir: str
    max_file_bytes: int
    max_pixels: int
    min_side_px: int
    timeout_s: float
    memory_bytes: int


class Decoder:
    """Answers requests. Tests derive from it to crash, hang and run out of memory on purpose."""

    def __init__(self, config: DecoderConfig, pixels: mmap.mmap) -> None:
        # A child only reads uploads, so the space that has to stay free is no concern of its store.
        uploads = UploadStore(Path(config.uploads_dir), min_free_bytes=0, max_file_bytes=config.max_file_bytes)
        self._sources = Sources(Roots([Path(root) for root in config.roots]), uploads)
        self._max_file_bytes = config.max_file_bytes
        self._limits = Limits(max_pixels=config.max_pixels, min_side_px=config.min_side_px)
        self._pixels = pixels

    def answer(self, request: dict[str, Any]) -> Reply:
        """Read the image `uri` and do `task` with it: `decode`, `probe` or `thumbnail`. Raises `ImageError`."""
        began_s = time.monotonic()
        with self._sources.open(request["uri"]) as file:
            data = file.read(max_bytes=self._max_file_bytes)
            facts = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mtime_ns": file.mtime_ns}
        read_s = time.monotonic()
        facts["read_ms"] = 1000 * (read_s - began_s)
        if request["task"] == "probe":
            header = read_header(data, self._limits)
            return facts | {"format": header.format, "width": header.width, "height": header.height}, b""
        if request["task"] == "thumbnail":
            longer_side_px = request["longer_side_px"]
            # Twice the size asked for is left to the resampling, so that the fast decode does not show.
            image = decode(data, self._limits, at_least_px=2 * longer_side_px)
            return facts, thumbnail(image, longer_side_px)
        image = decode(data, self._limits)
        self._pixels[:] = resize_and_crop(image).tobytes()
        facts["decode_ms"] = 1000 * (time.monotonic() - read_s)
        return facts | {"width": image.width, "height": image.height}, b""


def serve(decoder: type[Decoder] = Decoder) -> None:
    """Run a child process until its parent hangs up."""
    channel: Connection[Any, Any] = Connection(int(sys.argv[1]))
    config = DecoderConfig(**json.loads(channel.recv_bytes()))
    _limit(config)
    worker = decoder(config, mmap.mmap(int(sys.argv[2]), PIXEL_BYTES))
    try:
        channel.send_bytes(READY)
        while True:
            request = json.loads(channel.recv_bytes())
            # The default action of the signal ends the process, in C code that hangs as well.
            signal.setitimer(signal.ITIMER_REAL, config.timeout_s + _ORPHAN_SLACK_S)
            facts, payload = _reply(worker, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send_bytes(json.dumps(facts).encode())
            channel.send_bytes(payload)
    except (EOFError, ConnectionError):
        return  # The parent hung up, or is gone.


def _reply(worker: Decoder, request: dict[str, Any]) -> Reply:
    try:
        facts, payload = worker.answer(request)
    except MemoryError:
        error: ImageError = DecodeOutOfMemory()
    except ImageError as raised:
        error = raised
    else:
        return {"facts": facts}, payload
    return {"error": error.code, "message": error.message}, b""


def _limit(config: DecoderConfig) -> None:
    # The cap on pixels is the settings'; Pillow's own would be half of it, and is checked before ours.
    Image.MAX_IMAGE_PIXELS = config.max_pixels
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS takes this limit and does not keep it.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        ceiling = config.memory_bytes if hard == resource.RLIM_INFINITY else min(config.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))


if __name__ == "__main__":
    serve()
