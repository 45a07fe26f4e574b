"""What the steps of a duplicates job leave for one another: arrays in numbered parts, beside the files of the job.

They are not among those files, and go with them. A part that is written again replaces the one before.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.uploads.space import full_disk_refused
from lookalike_worker.context import Context

#: A row of a collection, as far as duplicates are found and keepers chosen by it: 81 bytes.
ROW: Final = np.dtype(
    [
        ("id", "S16"),
        ("sha256", "<u8", 4),
        ("hash", "<u8"),
        ("hashed", "?"),
        ("size", "<i8"),
        ("mtime_ns", "<i8"),
        ("pixels", "<i8"),
    ]
)

Array = NDArray[Any]


class State:
    """The arrays of one job. Raises `InsufficientStorage` where the disk is full."""

    def __init__(self, context: Context, job_id: str) -> None:
        self._folder = context.settings.artifacts_dir / job_id / ".duplicates"  # No artifact can have such a name.

    def save(self, name: str, array: Array, *, part: int = 0) -> None:
        """Keep an array under a name and number."""
        with full_disk_refused():
            self._folder.mkdir(parents=True, exist_ok=True)
            fd, unfinished = tempfile.mkstemp(dir=self._folder, prefix="unfinished-")
            try:
                with os.fdopen(fd, "wb") as file:
                    np.save(file, array, allow_pickle=False)
                Path(unfinished).replace(self._path(name, part))
            finally:
                Path(unfinished).unlink(missing_ok=True)

    def load(self, name: str, *, part: int = 0) -> Array:
        """Return an array."""
        array: Array = np.load(self._path(name, part), allow_pickle=False)
        return array

    def parts(self, name: str, count: int) -> Iterator[Array]:
        """Yield the first so many parts, one at a time."""
        return (self.load(name, part=part) for part in range(count))

    def rows(self, parts: int) -> Array:
        """Return all rows, in the order of their ids."""
        rows: Array = np.concatenate([np.zeros(0, ROW), *self.parts("rows", parts)])
        return rows

    def clear(self) -> None:
        """Drop all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str, part: int) -> Path:
        return self._folder / f"{name}-{part:08}.npy"


def image_ids(rows: Array) -> list[str]:
    """Return the ids of rows. NumPy cuts zeros off at the end of bytes, so they are put back."""
    return [image_id.ljust(16, b"\0").hex() for image_id in rows["id"].tolist()]
