"""A tree of files: folders of hard links of a few small pictures."""

import os
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

_SIDE_PX: Final = 24
#: ext4 takes 65,000 links of a file, and this is the bound of the kernel's file systems that people keep pictures on.
_MOST_LINKS: Final = 60_000
_FEWEST_ORIGINALS: Final = 8
_OLD_NS: Final = 1_700_000_000 * 10**9  #: The time of every original, so that every file of a tree has the same.


def plant(folder: Path, files: int, *, per_folder: int) -> None:
    """Fill a new folder with folders of links to pictures, so many in all; all have the same size and time."""
    originals = _originals(
        folder.with_name(f"{folder.name}.originals"), max(_FEWEST_ORIGINALS, files // _MOST_LINKS + 1)
    )
    folder.mkdir(parents=True)
    for first in range(0, files, per_folder):
        inner = folder / f"{first // per_folder:05}"
        inner.mkdir()
        for number in range(first, min(first + per_folder, files)):
            os.link(originals[number % len(originals)], inner / f"{number:08}.bmp")


def one_file(folder: Path) -> os.stat_result:
    """The status of a file of a tree; size and time are those of all."""
    return (folder / "00000" / "00000000.bmp").stat()


def _originals(folder: Path, count: int) -> list[Path]:
    """Draw different pictures; as BMP, so that they have one size."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03}.bmp" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, ns=(_OLD_NS, _OLD_NS))
    return paths
