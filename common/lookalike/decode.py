"""Decode: bytes of an image in, an upright RGB picture out, and the network's input from that. Pillow only, no files.

There are two ways to the network's input. The exact one is `decode`, then `resize_and_crop`: pixel for pixel what the
tutorial's script makes. The fast one is `decode_reduced`, then `cut`: only as much is decoded, converted and resized as
the network's input needs, and the small square is turned upright instead of the picture.

Runs in the decoder's child process, because a hostile image may crash or hang Pillow's C code; nothing here guards
against that. `PREPROCESSING_VERSION` is part of every collection's model fingerprint: whatever changes a pixel of what
`preprocess` returns, for any image, has to change it.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

# Importing the five plugins registers them; else Pillow would import all of its plugins to look for WebP's.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from lookalike.errors import FileEmpty, ImageTooLarge, ImageTooSmall
from lookalike.wholeness import diagnose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREPROCESSING_VERSION: Final = "1"
INPUT_SIZE: Final = 224  #: Side of the square the network sees.
RESIZE_SIZE: Final = 256  #: The shorter side before that square is cut out.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

_ORIENTATION: Final = 0x0112  # The EXIF tag.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
_MIRRORED_ACROSS: Final = frozenset({2, 3, 7, 8})  # Their stored left is right or, turned sideways, below.
_MIRRORED_DOWN: Final = frozenset({3, 4, 6, 7})
#: Where a PNG can say how it is turned. Looking for these spares decoding it, which Pillow does to find out.
_PNG_ORIENTATION_MARKS: Final = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

#: What Pillow's parsers raise for broken files. MemoryError is not among them.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)

#: Above this a resized picture is not made in whole, only the part that is cut out. It is reached where one side is 64
#: times the other; the two ways differ by rounding at most, so ordinary pictures keep the tutorial's exact pixels.
_MAX_RESIZED_PIXELS: Final = 64 * RESIZE_SIZE * RESIZE_SIZE


#: How far the fast way reduces a JPEG, and what has to be left of its shorter side then. With 256 left, and at an
#: eighth, sharp textures come out too far from the reference: docs/decisions/0009-decoding.md.
_REDUCTIONS: Final = ((4, 400), (2, 320))
#: From this many times the input's size on, the fast way first averages whole squares of pixels.
_REDUCING_GAP: Final = 2.0

_Box = tuple[float, float, float, float]  # Left, top, right, bottom.
Region = tuple[float, float, float, float]  #: Left, top, width and height, in parts of an upright picture's sides.


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which images are decoded at all, as in the settings of the same names."""

    max_pixels: int
    min_side_px: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself before it is decoded."""

    format: str  #: One of `FORMATS`.
    width: int  #: Pixels, after EXIF orientation.
    height: int


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """An image decoded as far as the network's input needs it."""

    image: Image.Image  #: RGB, as it is stored: not turned upright.
    factor: int  #: How many times smaller than the whole it is: 1, 2 or 4.
    orientation: int  #: EXIF's: 1 is upright.
    width: int  #: Pixels of the whole image, after EXIF orientation.
    height: int
    region: tuple[int, int, int, int] | None = None  #: What of it is wanted: pixels of the whole upright image.


def read_header(data: bytes, limits: Limits) -> Header:
    """Read an image's header; raises as `decode` does, save for what only decoding shows."""
    with _open(data, limits) as image:
        width, height = image.size
        if _orientation(image, data) in _SIDEWAYS:
            width, height = height, width
        # A JPEG that holds more than one picture calls itself MPO.
        name = image.format if image.format in FORMATS else "JPEG"
    return Header(format=name, width=width, height=height)


def decode(data: bytes, limits: Limits, *, at_least_px: int | None = None) -> Image.Image:
    """Decode an image's first frame: upright, RGB, transparency on white, without metadata.

    With `at_least_px`, a JPEG may come back smaller, by a power of two, with no side below that; it decodes faster.
    Raises `FileEmpty`, `UnsupportedFormat`, `ImageTooLarge`, `ImageTooSmall`, `ImageTruncated` and `ImageCorrupt`.
    """
    with _open(data, limits) as image:
        if at_least_px is not None:
            image.draft(None, (at_least_px, at_least_px))
        image.load()
        turn = _UPRIGHT.get(_orientation(image, data))
        upright = to_rgb(image)
        if turn is not None:
            upright = upright.transpose(turn)
    upright.info = {}
    return upright


def decode_reduced(
    data: bytes, limits: Limits, region: Region | None = None, *, tiles: Sequence[Region] = ()
) -> Reduced:
    """Decode an image's first frame for `cut`, a JPEG at a half or a quarter of its size where that will do.

    It will do for the whole, or for the `region` that is wanted of it, and for the smallest of the `tiles` that are to
    be cut out as well. Raises as `decode` and `pixels_of` do.
    """
    with _open(data, limits) as image:
        width, height = image.size
        wanted = None
        if region is not None:
            upright = (height, width) if _orientation(image, data) in _SIDEWAYS else (width, height)
            wanted = pixels_of(region, *upright, limits)
        shorter = min(width, height) if wanted is None else min(wanted[2] - wanted[0], wanted[3] - wanted[1])
        finest = min((side for tile in tiles for side in tile[2:]), default=1.0)
        factor = next((times for times, left in _REDUCTIONS if finest * shorter >= times * left), 1)
        if image.draft(None, (width // factor, height // factor)) is None:
            factor = 1  # Only JPEG's decoder can do it.
        image.load()
        orientation = _orientation(image, data)
        if orientation in _SIDEWAYS:
            width, height = height, width
        flat = to_rgb(image)
    flat.info = {}
    return Reduced(image=flat, factor=factor, orientation=orientation, width=width, height=height, region=wanted)


def pixels_of(region: Region, width: int, height: int, limits: Limits) -> tuple[int, int, int, int]:
    """Return which pixels of an upright image a region takes: left, top, right, bottom.

    Raises `ImageTooSmall` where these are too few.
    """
    left, top, right, bottom = _rounded(region, width, height)
    if min(right - left, bottom - top) < limits.min_side_px:
        raise ImageTooSmall("The region has too few pixels to compare. Take a larger part of the picture.")
    return left, top, right, bottom


def tile_of(tile: Region, width: int, height: int) -> tuple[int, int, int, int]:
    """Return which pixels of an upright image a tile takes, as `pixels_of` does; however few, but one at least."""
    left, top, right, bottom = _rounded(tile, width, height)
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _rounded(region: Region, width: int, height: int) -> tuple[int, int, int, int]:
    left, top = (int(side * part + 0.5) for side, part in zip((width, height), region[:2], strict=True))
    right = min(width, int(width * (region[0] + region[2]) + 0.5))
    bottom = min(height, int(height * (region[1] + region[3]) + 0.5))
    return left, top, right, bottom


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any Pillow mode as RGB: deep greys scaled to 8 bits, not clipped; transparency on white."""
    if image.mode.startswith("I") or image.mode == "F":
        flat = _scaled_to_8_bits(image).convert("RGB")
        transparent = image.info.get("transparency")
        alpha = _all_but(image, transparent) if isinstance(transparent, int) else None
    elif image.has_transparency_data:
        flat = image.convert("LA") if image.mode == "La" else image  # Premultiplied grey knows no other way out.
        flat = flat.convert("RGBA")
        alpha = flat.getchannel("A")
    else:
        return image if image.mode == "RGB" else image.convert("RGB")
    if alpha is None:
        return flat
    white = Image.new("RGB", image.size, "white")
    white.paste(flat, mask=alpha)
    return white


def preprocess(image: Image.Image) -> "NDArray[np.uint8]":
    """Return the network's input of an RGB image: (224, 224, 3), pixel for pixel what torchvision makes of it."""
    import numpy as np  # Here, since the decoder's child does not need it, and starts faster without.

    return np.asarray(resize_and_crop(image))


def resize_and_crop(image: Image.Image) -> Image.Image:
    """Scale the shorter side to 256 (bilinear, antialiased) and cut the centre's 224 x 224 out.

    Sizes and offsets are rounded as torchvision's `_compute_resized_output_size` and `center_crop` round them.
    """
    resized, box = _resized_and_box(*image.size)
    if resized[0] * resized[1] > _MAX_RESIZED_PIXELS:
        source = _source(*image.size)
        return image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR, box=source)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BILINEAR)
    return image.crop(box)


def cut(reduced: Reduced) -> Image.Image:
    """Return the network's input, 224 x 224, RGB and upright: resized from the part of the picture that it shows."""
    width, height = reduced.width, reduced.height
    begin_x, begin_y, end_x, end_y = reduced.region or (0, 0, width, height)
    left, top, right, bottom = _source(end_x - begin_x, end_y - begin_y)
    left, top, right, bottom = left + begin_x, top + begin_y, right + begin_x, bottom + begin_y
    if reduced.orientation in _SIDEWAYS:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if reduced.orientation in _MIRRORED_ACROSS:
        left, right = width - right, width - left
    if reduced.orientation in _MIRRORED_DOWN:
        top, bottom = height - bottom, height - top
    box = (left / reduced.factor, top / reduced.factor, right / reduced.factor, bottom / reduced.factor)
    square = reduced.image.resize(
        (INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR, box=box, reducing_gap=_REDUCING_GAP
    )
    turn = _UPRIGHT.get(reduced.orientation)
    return square if turn is None else square.transpose(turn)


def picture_turn(reduced: Reduced) -> Image.Transpose | None:
    """Return what turns an image upright that was decoded for `cut`; None where it is upright."""
    return _UPRIGHT.get(reduced.orientation)


def _resized_and_box(width: int, height: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return an upright image's size with a shorter side of 256, and which part of that the network sees."""
    longer = int(RESIZE_SIZE * max(width, height) / min(width, height))
    resized = (RESIZE_SIZE, longer) if width <= height else (longer, RESIZE_SIZE)
    left, top = (round((side - INPUT_SIZE) / 2.0) for side in resized)
    return resized, (left, top, left + INPUT_SIZE, top + INPUT_SIZE)


def _source(width: int, height: int) -> _Box:
    """Return which part of an upright image, in its own pixels, the network sees."""
    resized, box = _resized_and_box(width, height)
    x, y = width / resized[0], height / resized[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def thumbnail(image: Image.Image, longer_side_px: int) -> bytes:
    """Return a WebP of an RGB image, its longer side at most `longer_side_px`, without metadata."""
    small = image.copy()
    small.thumbnail((longer_side_px, longer_side_px))
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2)  # Half the time of the default, a few percent more bytes.
    return buffer.getvalue()


@contextmanager
def _open(data: bytes, limits: Limits) -> Iterator[ImageFile.ImageFile]:
    """Open an image within the limits, and give every failure of Pillow inside the block its code."""
    if not data:
        raise FileEmpty
    with warnings.catch_warnings():
        # Pillow warns of sloppy metadata, which is no concern of ours, and of bombs, which is.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > limits.max_pixels:
                raise ImageTooLarge
            if min(image.size) < limits.min_side_px:
                raise ImageTooSmall
            yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageTooLarge from error
        except _BROKEN as error:
            raise diagnose(data) from error


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION_MARKS):
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return 1  # Broken metadata costs the orientation, not the picture.


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale I;16 by its full range; I and F, whose range nothing tells, by the least usual one that holds them."""
    if image.mode.startswith("I;16"):
        image, full = image.convert("I"), 65535.0
    else:
        _, highest = cast("tuple[float, float]", image.getextrema())
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((scale for scale in usual if highest <= scale), highest)
    # Conversion to L cuts the fraction off, so half a shade is added to round.
    return image.point(lambda shade: shade * (255.0 / full) + 0.5).convert("L")


def _all_but(image: Image.Image, shade: int) -> Image.Image:
    """Return a mask of all pixels of a deep grey that are not this shade. Pillow's own compares 8 bits of it."""
    deep = image.convert("I")
    above = deep.point(lambda value: value * 255.0 - shade * 255.0).convert("L")  # Clipped to 0 or 255.
    below = deep.point(lambda value: value * -255.0 + shade * 255.0).convert("L")
    return ImageChops.lighter(above, below)
