"""Pictures in every form that is accepted: small, drawn here, each within a few kilobytes."""

import io
from collections.abc import Callable
from typing import Any, Final

from PIL import Image

SIZE: Final = (40, 28)
_ORIENTATION: Final = 0x0112
_TURNED_RIGHT: Final = 6


def _picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A gradient, the same every time, so that what is made of it can be told from other pictures' results."""
    across = Image.linear_gradient("L").resize(size)
    down = Image.linear_gradient("L").rotate(90).resize(size)
    picture = Image.merge("RGB", (across, down, Image.radial_gradient("L").resize(size)))
    if mode == "I;16":
        deep = Image.new("I;16", size)
        deep.putdata([257 * shade for shade in across.tobytes()])
        return deep
    if "A" in mode:
        picture.putalpha(down)
    return picture.convert(mode)


def _saved(kind: str, mode: str = "RGB", **options: Any) -> Callable[[], bytes]:
    def save() -> bytes:
        target = io.BytesIO()
        _picture(mode).save(target, kind, **options)
        return target.getvalue()

    return save


def _animated(kind: str, mode: str = "RGB") -> Callable[[], bytes]:
    def save() -> bytes:
        target = io.BytesIO()
        frames = [_picture(mode).rotate(degrees) for degrees in (0, 90, 180)]
        frames[0].save(target, kind, save_all=True, append_images=frames[1:], duration=50)
        return target.getvalue()

    return save


def _turned(kind: str) -> Callable[[], bytes]:
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED_RIGHT
    return _saved(kind, exif=exif)


#: By file name: how to make it. All of them are stored.
ODD_FILES: Final[dict[str, Callable[[], bytes]]] = {
    "plain.jpg": _saved("JPEG"),
    "grey.jpg": _saved("JPEG", "L"),
    "cmyk.jpg": _saved("JPEG", "CMYK"),
    "progressive.jpg": _saved("JPEG", progressive=True, quality=60),
    "turned.jpg": _turned("JPEG"),
    "plain.png": _saved("PNG"),
    "palette.png": _saved("PNG", "P"),
    "bilevel.png": _saved("PNG", "1"),
    "grey-alpha.png": _saved("PNG", "LA"),
    "alpha.png": _saved("PNG", "RGBA"),
    "deep.png": _saved("PNG", "I;16"),
    "turned.png": _turned("PNG"),
    "animated.png": _animated("PNG"),
    "lossy.webp": _saved("WEBP"),
    "lossless.webp": _saved("WEBP", lossless=True),
    "alpha.webp": _saved("WEBP", "RGBA"),
    "animated.webp": _animated("WEBP"),
    "plain.bmp": _saved("BMP"),
    "palette.bmp": _saved("BMP", "P"),
    "bilevel.bmp": _saved("BMP", "1"),
    "plain.gif": _saved("GIF"),
    "transparent.gif": _saved("GIF", "RGBA"),
    "animated.gif": _animated("GIF"),
}
