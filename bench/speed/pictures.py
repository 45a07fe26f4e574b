"""Pictures to measure with: JPEGs that cost as much to decode as those of a camera, the same bytes in every run.

Each is a sheet of cuttings from scikit-image's photographs and the drawn gallery at their own resolution, because a
photograph that is scaled up has fewer bits for each pixel, and decodes faster. A few sheets of a size are encoded; the
other files differ from them by a comment, so that each has a content of its own and the service embeds every one.
"""

import io
import os
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lookalike.gallery import STYLES, draw_picture

_VERSION: Final = 1  #: Raise it with every change that makes other pictures.
_QUALITY: Final = 90
_CELL_PX: Final = 250
_PHOTOGRAPHS: Final = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
)


@dataclass(frozen=True)
class Size:
    """Pictures of one size."""

    name: str  #: Megapixels.
    width: int
    height: int
    sheets: int  #: Different pictures.
    most: int  #: Files, whatever is asked for: large ones fill the disk.

    @property
    def label(self) -> str:
        return f"{self.name} MP"


SIZES: Final = {
    "0.1": Size("0.1", 400, 256, 48, 1024),
    "1.5": Size("1.5", 1500, 1000, 24, 512),
    "12": Size("12", 4000, 3000, 6, 96),
}


def make(place: Path, size: Size, count: int) -> list[Path]:
    """Have so many files of a size, and return their paths; what an earlier run made is used."""
    folder = place / f"{size.name}mp-v{_VERSION}"
    paths = [folder / f"{number:05}.jpg" for number in range(min(count, size.most))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        cells = _cells()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock while it encodes.
            wanted = sorted({number % size.sheets for number in missing})
            sheets = dict(zip(wanted, pool.map(lambda number: _sheet(size, number, cells), wanted), strict=True))
        for number in missing:
            partial = paths[number].with_suffix(".partial")
            partial.write_bytes(_commented(sheets[number % size.sheets], f"picture {number} of {size.label}"))
            partial.replace(paths[number])
    return paths


def take(place: Path, size: Size, count: int) -> tuple[str, list[Path]]:
    """Lay out a folder of the first so many pictures; returns its name below `place`, and its paths."""
    paths = make(place, size, count)
    folder = place / "takes" / f"{size.name}mp-{len(paths)}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in paths:
            (partial / path.name).hardlink_to(path)
        partial.replace(folder)
    return folder.relative_to(place).as_posix(), sorted(folder.iterdir())


def bits_per_pixel(paths: list[Path], size: Size) -> float:
    """How dense the files are: what decoding costs follows from it. Those of cameras have 2 to 4."""
    return 8 * sum(path.stat().st_size for path in paths) / len(paths) / (size.width * size.height)


def _cells() -> list[NDArray[np.uint8]]:
    """Pictures of many kinds, at least as large as a cell."""
    from skimage import data  # Takes a second to import, and is needed once.

    photographs = [np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB")) for name in _PHOTOGRAPHS]
    drawn = [np.asarray(draw_picture(style, 0).convert("RGB")) for style in list(STYLES)[::3]]
    return photographs + drawn


def _sheet(size: Size, number: int, cells: list[NDArray[np.uint8]]) -> bytes:
    rng = np.random.default_rng([_VERSION, size.width, number])
    sheet = Image.new("RGB", (size.width, size.height))
    for left, top in _grid(size):
        source = cells[int(rng.integers(len(cells)))]
        row, column = (int(rng.integers(side - _CELL_PX + 1)) for side in source.shape[:2])
        cell = Image.fromarray(source[row : row + _CELL_PX, column : column + _CELL_PX])
        sheet.paste(ImageOps.mirror(cell) if rng.integers(2) else cell, (left, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _grid(size: Size) -> Iterator[tuple[int, int]]:
    for top in range(0, size.height, _CELL_PX):
        for left in range(0, size.width, _CELL_PX):
            yield left, top


def _commented(data: bytes, comment: str) -> bytes:
    """Put a comment behind the marker that a JPEG begins with."""
    text = comment.encode()
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]
