"""The decoder's child process: reads and decodes one image at a time, and may die of it.

Started as `python -m lookalike.decoder_child SOCKET MEMORY`, two file descriptors. Over the socket go JSON requests and
replies, over the shared memory the pixels, each into the slot that its request names. It ends when its parent's end of
the socket closes, whatever became of the parent. Imports as little as it can: it is started anew after every crash.
"""

import hashlib
import json
import mmap
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image

from lookalike.decode import (
    INPUT_SIZE,
    Limits,
    Reduced,
    Region,
    cut,
    decode,
    decode_reduced,
    picture_turn,
    pixels_of,
    read_header,
    resize_and_crop,
    thumbnail,
    tile_of,
)
from lookalike.errors import DecodeOutOfMemory, ImageError
from lookalike.picture_hash import picture_hash
from lookalike.roots import Roots
from lookalike.sources import Sources
from lookalike.uploads import UploadStore

#: Blocks of up to 16 MiB that Pillow keeps for its next image. Without them each image's memory is taken from the
#: kernel anew, page by page, which costs as much as resizing does.
_KEPT_BLOCKS: Final = 4
PIXEL_BYTES: Final = INPUT_SIZE * INPUT_SIZE * 3
MAX_TILES: Final = 16  #: Of one image, besides the whole.
#: An image's room in the shared memory. What is not written to takes no memory, so tiles that nobody wants cost none.
SLOT_BYTES: Final = (1 + MAX_TILES) * PIXEL_BYTES
SLOTS: Final = 2  #: Images' rooms: for one that is decoded, and one asked for meanwhile.
READY: Final = {"ready": True}  #: A child's first message.

_HEAD: Final = struct.Struct("!II")  # How many bytes of JSON follow, and how many of payload.

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
    exact: bool  #: Whether the network's input is decoded pixel for pixel, and not the fast way.


class Channel:
    """Messages over one end of a socket: a JSON object, and bytes that belong to it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._incoming = end.makefile("rb")

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message; raises OSError where the other end is closed."""
        text = json.dumps(message).encode()
        self._end.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for a message; raises EOFError at the end, TimeoutError as the socket is set, and other OSErrors."""
        text_bytes, payload_bytes = _HEAD.unpack(self._read(_HEAD.size))
        message: dict[str, Any] = json.loads(self._read(text_bytes))
        return message, self._read(payload_bytes)

    def close(self) -> None:
        """Close this end."""
        self._incoming.close()
        self._end.close()

    def _read(self, size: int) -> bytes:
        data = self._incoming.read(size)
        if len(data) < size:
            raise EOFError
        return data


class Decoder:
    """Answers requests. Tests derive from it to crash, hang and run out of memory on purpose."""

    def __init__(self, config: DecoderConfig, shared: memoryview) -> None:
        # A child only reads uploads, so the space that has to stay free is no concern of its store.
        uploads = UploadStore(Path(config.uploads_dir), min_free_bytes=0, max_file_bytes=config.max_file_bytes)
        self._sources = Sources(Roots([Path(root) for root in config.roots]), uploads)
        self._max_file_bytes = config.max_file_bytes
        self._limits = Limits(max_pixels=config.max_pixels, min_side_px=config.min_side_px)
        self._exact = config.exact
        self._shared = shared
        self._pixels = shared[:SLOT_BYTES]

    def use_slot(self, slot: int) -> None:
        """Have the pixels of the next image written there."""
        self._pixels = self._shared[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]

    def answer(self, request: dict[str, Any]) -> Reply:
        """Read the image `uri` and `decode`, `alter`, `probe` or `thumbnail` it. Raises `ImageError`."""
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
        if request["task"] == "alter":
            return facts, self._altered(data, request["alterations"])
        facts |= self._decode(data, request.get("region"), request.get("tiles", ()), hashed=request["hashed"])
        facts["decode_ms"] = 1000 * (time.monotonic() - read_s)
        return facts, b""

    def _altered(self, data: bytes, names: list[str]) -> bytes:
        """Return the network's input of altered copies of the whole image, one after another."""
        from lookalike.alterations import altered  # Few children ever need it.
        from lookalike.records import Alteration

        image = decode(data, self._limits)
        copies = (altered(image, Alteration(name), self._limits) for name in names)
        return b"".join(resize_and_crop(copy).tobytes() for copy in copies)

    def _decode(self, data: bytes, region: Region | None, tiles: Sequence[Region], *, hashed: bool) -> dict[str, Any]:
        """Leave the network's input in the shared memory, and behind it that of the tiles; returns the size and hash
        of the whole image, and what resizing took.
        """
        image: Image.Image | Reduced
        image = decode(data, self._limits) if self._exact else decode_reduced(data, self._limits, region, tiles=tiles)
        decoded_s = time.monotonic()
        if isinstance(image, Reduced):
            square = cut(image)
        elif region is None:
            square = resize_and_crop(image)
        else:
            square = resize_and_crop(image.crop(pixels_of(region, *image.size, self._limits)))
        self._pixels[:PIXEL_BYTES] = square.tobytes()
        for number, tile in enumerate(tiles, 1):
            place = slice(number * PIXEL_BYTES, (number + 1) * PIXEL_BYTES)
            self._pixels[place] = _tile(image, tile_of(tile, image.width, image.height)).tobytes()
        facts: dict[str, Any] = {"width": image.width, "height": image.height}
        if hashed:
            whole, turn = (image.image, picture_turn(image)) if isinstance(image, Reduced) else (image, None)
            facts["picture_hash"] = picture_hash(whole, turn)
        return facts | {"resize_ms": 1000 * (time.monotonic() - decoded_s)}


def _tile(image: Image.Image | Reduced, pixels: tuple[int, int, int, int]) -> Image.Image:
    """Return the network's input of a part of an image."""
    if isinstance(image, Reduced):
        return cut(replace(image, region=pixels))
    return resize_and_crop(image.crop(pixels))


def serve(decoder: type[Decoder] = Decoder) -> None:
    """Run a child process until its parent hangs up."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    config = DecoderConfig(**channel.receive()[0])
    _limit(config)
    worker = decoder(config, memoryview(mmap.mmap(int(sys.argv[2]), SLOTS * SLOT_BYTES)))
    try:
        channel.send(READY)
        while True:
            request, _ = channel.receive()
            # The default action of the signal ends the process, in C code that hangs as well.
            signal.setitimer(signal.ITIMER_REAL, config.timeout_s + _ORPHAN_SLACK_S)
            worker.use_slot(request["slot"])
            facts, payload = _reply(worker, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send(facts, payload)
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
    Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]  # Documented, and not exported.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS takes this limit and does not keep it.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        ceiling = config.memory_bytes if hard == resource.RLIM_INFINITY else min(config.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))


if __name__ == "__main__":
    serve()
