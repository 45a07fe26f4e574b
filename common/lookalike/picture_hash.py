"""The perceptual hash of a picture: 64 bits that stay nearly the same when it is recompressed, rescaled or brightened.

This is pHash: the signs, against their median, of the lowest frequencies of the whole picture's discrete cosine
transform (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1). Why
this one, and how many bits differ between which pictures: docs/decisions/0016-duplicates.md. Pillow and plain Python
only: the decoder's child computes it from the picture that it has in hand.
"""

import math
import re
from collections.abc import Sequence
from operator import add, mul, sub
from typing import Final

from PIL import Image

BITS: Final = 64
PICTURE_HASH: Final = re.compile("[0-9a-f]{16}")  #: Use with `fullmatch`.

_SIDE: Final = 32  #: The picture is made a square of this side first, whatever its shape.
_HALF: Final = _SIDE // 2
_LOW: Final = 8  #: So many frequencies along either side, without the constant one, are kept.

#: cos((2x + 1) * u * pi / 2n) over the first half of x, for each frequency u: the DCT-II without its scale, which no
#: comparison depends on. Over the second half it is the same backwards, and for odd u negative.
_WAVES: Final = tuple(
    tuple(math.cos((2 * x + 1) * u * math.pi / (2 * _SIDE)) for x in range(_HALF)) for u in range(1, _LOW + 1)
)


def picture_hash(image: Image.Image, turn: Image.Transpose | None = None) -> str:
    """Return the hash of an RGB picture as 16 hexadecimal digits; `turn` is what makes it upright.

    Only the small square is turned, which is the same as hashing the picture turned, and costs nothing.
    """
    square = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    if turn is not None:
        square = square.transpose(turn)
    shades = square.tobytes()
    across = [_transform(shades[start : start + _SIDE]) for start in range(0, len(shades), _SIDE)]
    strengths = [strength for column in zip(*across, strict=True) for strength in _transform(column)]
    middle = sum(sorted(strengths)[BITS // 2 - 1 : BITS // 2 + 1]) / 2
    bits = 0
    for strength in strengths:
        bits = bits << 1 | (strength > middle)
    return f"{bits:016x}"


def _transform(values: Sequence[float]) -> list[float]:
    """Return the strengths of the kept frequencies in a line of values."""
    first, last = values[:_HALF], values[: _HALF - 1 : -1]
    sums, differences = list(map(add, first, last)), list(map(sub, first, last))
    return [sum(map(mul, wave, sums if u % 2 else differences)) for u, wave in enumerate(_WAVES)]
