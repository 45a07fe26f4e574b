"""Files that cannot be used, and the code each of them gets."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Final

from PIL import Image


def jpeg(size: tuple[int, int] = (320, 240)) -> bytes:
    """A good picture."""
    return _encoded("JPEG", size)


def _encoded(kind: str, size: tuple[int, int] = (320, 240)) -> bytes:
    target = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(target, kind)
    return target.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _huge() -> bytes:
    """A PNG of a few hundred bytes whose header claims 60,000 by 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _corrupt() -> bytes:
    """A PNG whose pixels do not unpack."""
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"no zlib here") + _chunk(b"IEND", b"")


#: By file name: how to make it, and its code.
BAD_FILES: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "corrupt.png": (_corrupt, "image_corrupt"),
    "empty.jpg": (bytes, "file_empty"),
    "truncated.jpg": (lambda: jpeg()[:4000], "image_truncated"),
    "huge.png": (_huge, "image_too_large"),
    "misnamed.jpg": (lambda: b"<html>not a picture</html>", "unsupported_format"),
    "tiny.png": (lambda: _encoded("PNG", (1, 1)), "image_too_small"),
}
