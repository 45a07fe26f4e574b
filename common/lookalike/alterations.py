"""Alterations: what may have happened to a picture between being stored and being searched for. Pillow only.

Runs in the decoder's child process, like all that touches pixels of files; imported there when it is first needed.
"""

import io
from typing import Final

from PIL import Image, ImageFilter

from lookalike.decode import Limits, decode
from lookalike.records import Alteration

JPEG_QUALITY: Final = 30
TURNED_DEGREES: Final = 10
BLUR_RADIUS: Final = 0.01  #: Of the shorter side.
_CROPS: Final = {Alteration.CROP_80: 0.8, Alteration.CROP_65: 0.65, Alteration.CROP_50: 0.5}


def altered(  # noqa: PLR0911 - A line for each alteration.
    image: Image.Image, alteration: Alteration, limits: Limits
) -> Image.Image:
    """Return an altered copy of an upright RGB image."""
    match alteration:
        case Alteration.CROP_80 | Alteration.CROP_65 | Alteration.CROP_50:
            return _middle(image, _CROPS[alteration])
        case Alteration.JPEG_30:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=JPEG_QUALITY)
            return decode(buffer.getvalue(), limits)
        case Alteration.RESCALE_50:
            return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)
        case Alteration.ROTATE_10:
            return image.rotate(TURNED_DEGREES, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
        case Alteration.ROTATE_90:
            return image.transpose(Image.Transpose.ROTATE_90)
        case Alteration.MIRROR:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        case Alteration.BLUR:
            return image.filter(ImageFilter.GaussianBlur(max(1.0, BLUR_RADIUS * min(image.size))))


def _middle(image: Image.Image, share: float) -> Image.Image:
    width, height = max(1, round(share * image.width)), max(1, round(share * image.height))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
