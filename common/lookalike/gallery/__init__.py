"""A gallery drawn by code: a few hundred pictures in twelve styles, the same bytes each time.

The demo and the tests search it: pictures of one style belong together, and an altered copy belongs to its original.
Needs Pillow and numpy, and knows nothing of the service.
"""

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

from lookalike.gallery import fields, palette, shapes

VERSION: Final = 1  #: Raise it with every change that draws other pictures.
_MARKER: Final = ".gallery.json"  #: Written last, so that it stands for a complete gallery.

_Style = Callable[[np.random.Generator, fields.Size, palette.Palette], Image.Image]

#: A style's place here is part of its pictures' seed: a new one goes to the end.
STYLES: Final[dict[str, _Style]] = {
    "checkers": fields.checkers,
    "stars": shapes.stars,
    "dots": shapes.dots,
    "glows": fields.glows,
    "landscapes": fields.landscapes,
    "mosaics": fields.mosaics,
    "plaids": fields.plaids,
    "rings": shapes.rings,
    "scales": shapes.scales,
    "stripes": fields.stripes,
    "strokes": shapes.strokes,
    "triangles": shapes.triangles,
}

_SIZES: Final = (
    (640, 480),
    (480, 640),
    (480, 480),
    (600, 400),
    (400, 600),
    (640, 360),
    (420, 560),
    (360, 360),
    (512, 384),
    (320, 480),
)


class Alteration(StrEnum):
    """A way in which a copy of a picture differs from it and is still the same picture to the eye."""

    CROP = "crop"  #: A twelfth is cut off on every side.
    RESCALE = "rescale"  #: 45 % of the size.
    RECOMPRESS = "recompress"  #: JPEG of quality 30.
    ROTATE = "rotate"  #: Four degrees, without empty corners.
    BRIGHTEN = "brighten"  #: A fifth brighter.
    MIRROR = "mirror"  #: Left and right exchanged.

    @property
    def label(self) -> str:
        """What was done, in a few words."""
        return _LABELS[self]


_LABELS: Final = {
    Alteration.CROP: "cropped",
    Alteration.RESCALE: "at 45 % of its size",
    Alteration.RECOMPRESS: "JPEG quality 30",
    Alteration.ROTATE: "turned by 4°",
    Alteration.BRIGHTEN: "a fifth brighter",
    Alteration.MIRROR: "mirrored",
}


def draw_picture(style: str, number: int, *, seed: int = 7) -> Image.Image:
    """Draw one picture of a style; each number is another picture."""
    rng = np.random.default_rng([seed, VERSION, list(STYLES).index(style), number])
    size = _SIZES[int(rng.integers(len(_SIZES)))]
    return STYLES[style](rng, size, palette.choose(rng))


def draw_gallery(folder: Path, *, count: int = 320, seed: int = 7) -> list[Path]:
    """Draw `count` pictures into one folder per style and return their paths, sorted.

    A folder that holds this gallery already is left as it is; files of another gallery are removed first.
    """
    wanted = {"version": VERSION, "pillow": PIL.__version__, "numpy": np.__version__, "count": count, "seed": seed}
    marker = folder / _MARKER
    found = _read_marker(marker)
    files: dict[str, int] = found.get("files", {})
    if found.get("gallery") == wanted and all(_size(folder / name) == size for name, size in files.items()):
        return sorted(folder / name for name in files)
    marker.unlink(missing_ok=True)
    for name in files:
        (folder / name).unlink(missing_ok=True)
    paths = _draw_all(folder, count=count, seed=seed)
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    marker.write_text(json.dumps({"gallery": wanted, "files": files}), encoding="utf-8")
    return paths


def alter(image: Image.Image, kind: Alteration) -> Image.Image:
    """Return an altered copy; the image itself stays as it is."""
    image = image.convert("RGB")
    width, height = image.size
    match kind:
        case Alteration.CROP:
            return image.crop((width // 12, height // 12, width - width // 12, height - height // 12))
        case Alteration.RESCALE:
            return image.resize((round(width * 0.45), round(height * 0.45)), Image.Resampling.LANCZOS)
        case Alteration.RECOMPRESS:
            return Image.open(io.BytesIO(encode(image, ".jpg", quality=30))).convert("RGB")
        case Alteration.ROTATE:
            edge = round(max(width, height) * 0.07)  # What four degrees leave empty at the rim.
            turned = image.rotate(4, Image.Resampling.BICUBIC)
            return turned.crop((edge, edge, width - edge, height - edge))
        case Alteration.BRIGHTEN:
            return ImageEnhance.Brightness(image).enhance(1.2)
        case Alteration.MIRROR:
            return ImageOps.mirror(image)


def encode(image: Image.Image, suffix: str, *, quality: int = 88) -> bytes:
    """Encode as the format that goes with a file name's suffix: `.jpg`, `.png` or `.webp`."""
    buffer = io.BytesIO()
    match suffix:
        case ".jpg":
            image.save(buffer, "JPEG", quality=quality)
        case ".webp":
            image.save(buffer, "WEBP", quality=quality, method=2)
        case ".png":
            image.save(buffer, "PNG", compress_level=3)
        case _:
            raise ValueError(f"no format for {suffix!r}")
    return buffer.getvalue()


def _draw_all(folder: Path, *, count: int, seed: int) -> list[Path]:
    plan = [(list(STYLES)[at % len(STYLES)], at // len(STYLES)) for at in range(count)]
    for style in STYLES:
        (folder / style).mkdir(parents=True, exist_ok=True)

    def draw(item: tuple[str, int]) -> Path:
        style, number = item
        path = folder / style / f"{style}-{number:03}{_suffix(number)}"
        path.write_bytes(encode(draw_picture(style, number, seed=seed), path.suffix))
        return path

    # numpy and Pillow release the interpreter lock while they compute.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return sorted(pool.map(draw, plan))


def _suffix(number: int) -> str:
    return {4: ".png", 8: ".webp"}.get(number % 10, ".jpg")


def _read_marker(marker: Path) -> dict[str, dict[str, int]]:
    try:
        found: dict[str, dict[str, int]] = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
