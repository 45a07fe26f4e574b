"""Files that cannot be used, and the code each of them gets.

Every code that a file of a folder can have is made here, save those of a broken decoder, which need one, and those that
blame a machine (`gpu_oom`, `vector_store_unavailable`). Codes of addresses on the web belong to their own tests.
"""

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

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


def _without_tables() -> bytes:
    """A JPEG from whose Huffman tables the codes are gone; its markers and its end are where they should be."""
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc4")
    (length,) = struct.unpack_from(">H", data, place + 2)
    data[place + 4 : place + 2 + length] = b"\xff" * (length - 2)
    return bytes(data)


def _without_start() -> bytes:
    """A lossy WebP whose key frame does not begin as one does."""
    data = bytearray(_encoded("WEBP"))
    place = data.index(b"\x9d\x01\x2a")
    data[place : place + 3] = bytes(3)
    return bytes(data)


def _cut(kind: str) -> Callable[[], bytes]:
    return lambda: _encoded(kind)[:2000]


def _zip() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("photo.jpg", jpeg())
    return target.getvalue()


def hungry_png(side: int) -> bytes:
    """A PNG that is small as a file: one bit a pixel, all alike, and four bytes a pixel in memory."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


#: By file name: how to make it, and its code.
BAD_FILES: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "corrupt.png": (_corrupt, "image_corrupt"),
    "corrupt.jpg": (_without_tables, "image_corrupt"),
    "corrupt.webp": (_without_start, "image_corrupt"),
    "empty.jpg": (bytes, "file_empty"),
    "truncated.jpg": (lambda: jpeg()[:4000], "image_truncated"),
    "truncated.png": (_cut("PNG"), "image_truncated"),
    "truncated.webp": (_cut("WEBP"), "image_truncated"),
    "truncated.bmp": (_cut("BMP"), "image_truncated"),
    "truncated.gif": (_cut("GIF"), "image_truncated"),
    "huge.png": (_huge, "image_too_large"),
    "misnamed.jpg": (lambda: b"<html>not a picture</html>", "unsupported_format"),
    "archive.jpg": (_zip, "unsupported_format"),
    "document.jpg": (lambda: b"%PDF-1.7\n" + bytes(100), "unsupported_format"),
    "drawing.svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
    "layers.psd": (lambda: b"8BPS\0\x01" + bytes(100), "unsupported_format"),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(100), "unsupported_format"),
    "poster.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
    "scan.tif": (lambda: _encoded("TIFF"), "unsupported_format"),
    "tiny.png": (lambda: _encoded("PNG", (1, 1)), "image_too_small"),
}


def put_unusable(folder: Path, *, max_file_bytes: int) -> dict[str, str]:
    """Put what is no usable file, whatever its content, into a folder under a root; gives the codes by quoted name.

    Root may read everything: for `permission_denied` the service must lack that right (CAP_DAC_OVERRIDE).
    """
    codes = {}

    def name(raw: bytes, code: str) -> Path:
        codes[quote_from_bytes(raw)] = code
        return folder / os.fsdecode(raw)

    os.mkfifo(name(b"pipe.jpg", "not_regular_file"))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(name(b"socket.jpg", "not_regular_file")))
    outside = folder.parents[1] / "outside.jpg"
    outside.write_bytes(jpeg())
    name(b"link.jpg", "not_regular_file").symlink_to(outside)
    name(b"not-utf8-\xff.jpg", "invalid_filename").write_bytes(jpeg())
    with name(b"sparse.jpg", "file_too_large").open("wb") as sparse:
        sparse.truncate(max_file_bytes + 1)
    secret = name(b"secret.jpg", "permission_denied")
    secret.write_bytes(jpeg())
    if os.geteuid() == 0:
        os.chown(secret, 1, 1)  # The owner of a file may always read it.
    secret.chmod(0)
    return codes
