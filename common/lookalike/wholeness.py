"""Why an image that Pillow refused is refused: by its bytes, not by Pillow's wording, which changes.

Looks only at the containers of the five accepted formats. Asked after a failure, never before a decode.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Final

from lookalike.errors import ImageCorrupt, ImageError, ImageTooSmall, ImageTruncated, UnsupportedFormat

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_WEBP_BYTES_PER_PIXEL: Final = 16  # Two canvases of libwebp's, its buffers, and Pillow's image.
_BMP_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def diagnose(data: bytes) -> ImageError:
    """Say what is wrong with an image that could not be decoded; raises MemoryError where that was it."""
    for fits, size, ends_early in _FORMATS:
        if fits(data):
            try:
                width, height = size(data)
                if not width or not height:
                    return ImageTooSmall("The image has no pixels.")
                if fits is _is_webp and not _can_allocate(_WEBP_BYTES_PER_PIXEL * width * height):
                    raise MemoryError  # The one decoder that does not say so itself.
                return ImageTruncated() if ends_early(data) else ImageCorrupt()
            except (IndexError, struct.error):  # The walk ran over the end of the data.
                return ImageTruncated()
    return UnsupportedFormat()


def _can_allocate(size: int) -> bool:
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


# --- JPEG -----------------------------------------------------------------------------------------------------------


def _is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8\xff")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each segment's marker and place, up to the first scan or the first thing that is no segment."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # A fill byte.
            place += 1
            continue
        yield marker, place
        if marker in {0xD9, 0xDA}:
            return
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, place in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
    return 1, 1  # Unknown; the image is broken for another reason.


def _jpeg_ends_early(data: bytes) -> bool:
    for marker, place in _jpeg_segments(data):
        if marker == 0xDA:
            # Inside a scan a 0xFF is always stuffed, so this marker can only be the end of the image.
            return data.find(b"\xff\xd9", place) < 0
    return False


# --- PNG, WebP, BMP, GIF --------------------------------------------------------------------------------------------


def _is_png(data: bytes) -> bool:
    return data.startswith(_PNG)


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _png_ends_early(data: bytes) -> bool:
    place = len(_PNG)
    while data[place + 4 : place + 8] != b"IEND":
        place += 12 + struct.unpack_from(">I", data, place)[0]
    return False


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _webp_size(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 1, 1  # Unknown; the image is broken for another reason.


def _webp_ends_early(data: bytes) -> bool:
    return bool(struct.unpack_from("<I", data, 4)[0] + 8 > len(data))


def _is_bmp(data: bytes) -> bool:
    # Two letters are too little to go by: plenty of texts begin with BM.
    return data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES


def _bmp_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
    return width, height


def _bmp_ends_early(data: bytes) -> bool:
    return bool(struct.unpack_from("<I", data, 2)[0] > len(data))


def _is_gif(data: bytes) -> bool:
    return data.startswith((b"GIF87a", b"GIF89a"))


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _gif_ends_early(data: bytes) -> bool:
    def table_bytes(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    place = 13 + table_bytes(data[10])
    while data[place] in {0x21, 0x2C}:  # An extension, or an image.
        place += 2 if data[place] == 0x21 else 11 + table_bytes(data[place + 9])
        while data[place]:  # Blocks, each preceded by its length; none ends them.
            place += data[place] + 1
        place += 1
    return False


_Test = Callable[[bytes], bool]
_FORMATS: Final[tuple[tuple[_Test, Callable[[bytes], tuple[int, int]], _Test], ...]] = (
    (_is_jpeg, _jpeg_size, _jpeg_ends_early),
    (_is_png, _png_size, _png_ends_early),
    (_is_webp, _webp_size, _webp_ends_early),
    (_is_bmp, _bmp_size, _bmp_ends_early),
    (_is_gif, _gif_size, _gif_ends_early),
)
