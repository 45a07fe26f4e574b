"""Exports for numpy: `vectors.npy`, one matrix, and `images.jsonl`, a line for each of its rows.

The matrix is written page by page, and its header, which says how many rows there are, last: as the file's first part.
"""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from lookalike.errors import ExportInvalid
from lookalike.exports.header import MAX_DIM
from lookalike.exports.rows import ExportedRow, columns_of
from lookalike.listing.rows import jsonl_rows
from lookalike.records.exports import IMAGES_FILE, VECTORS_FILE
from lookalike.vectorstore import StoredImage

_KEEP_EVERY: Final = 250  #: Rows.
_DTYPE: Final = np.dtype("<f4")
_KINDS: Final = frozenset({2, 4, 8})  #: Bytes of the floating-point numbers that are read.


def as_json(value: Any) -> str:
    """Write JSON as short as it gets, with letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def npy_header(images: int, dim: int) -> bytes:
    """Return what stands before the values of an (images, dim) float32 matrix in a file."""
    target = io.BytesIO()
    npy_format.write_array_header_1_0(target, {"descr": _DTYPE.str, "fortran_order": False, "shape": (images, dim)})
    return target.getvalue()


def npy_values(vectors: NDArray[np.float32]) -> bytes:
    """Return rows of the matrix as they stand in the file."""
    return np.ascontiguousarray(vectors, dtype=_DTYPE).tobytes()


def image_lines(images: Sequence[StoredImage]) -> bytes:
    """Return a line of JSON for each image."""
    return "".join(as_json(columns_of(image)) + "\n" for image in images).encode()


class Matrix:
    """The vectors of an open `.npy` file; raises `ExportInvalid` for one that is not a matrix of numbers, whole."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        try:
            version = npy_format.read_magic(file)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
        except (ValueError, OSError) as error:
            raise ExportInvalid(f"{VECTORS_FILE} is not a matrix that numpy wrote.") from error
        if dtype.kind != "f" or dtype.itemsize not in _KINDS or fortran_order or len(shape) != 2:
            raise ExportInvalid(f"{VECTORS_FILE} is not a matrix of floating-point numbers, row by row.")
        self.rows, self.dim = shape
        if not 0 <= self.dim <= MAX_DIM:
            raise ExportInvalid(f"{VECTORS_FILE} has vectors of {self.dim} values; at most {MAX_DIM} can be stored.")
        self._file, self._dtype, self._begin = file, dtype, file.tell()
        if file.seek(0, io.SEEK_END) != self._begin + self.rows * self._row_bytes:
            raise ExportInvalid(f"{VECTORS_FILE} does not have the {self.rows} rows that its header says.")

    @property
    def _row_bytes(self) -> int:
        return int(self.dim * self._dtype.itemsize)

    def read(self, start: int, limit: int) -> NDArray[np.float32]:
        """Return at most `limit` rows, the one number `start` first."""
        count = max(0, min(limit, self.rows - start))
        self._file.seek(self._begin + start * self._row_bytes)
        data = self._file.read(count * self._row_bytes)
        if len(data) != count * self._row_bytes:
            raise ExportInvalid(f"{VECTORS_FILE} became shorter while it was read.")
        with np.errstate(over="ignore"):
            return np.frombuffer(data, self._dtype).reshape(count, self.dim).astype(np.float32)


def read_npy(
    matrix: Matrix, lines: BinaryIO, *, start: int, after: str | None, limit: int, keep: Callable[[], None]
) -> tuple[list[ExportedRow], str | None]:
    """Return at most `limit` rows, the one number `start` first, and where the lines go on.

    Raises `ExportInvalid` where there is not one line for each row of the matrix.
    """
    vectors = matrix.read(start, limit)
    rows: list[ExportedRow] = []
    for found in jsonl_rows(lines, after=after):
        if len(rows) == limit:
            break
        if start + len(rows) >= matrix.rows:
            raise ExportInvalid(f"{IMAGES_FILE} has more lines than {VECTORS_FILE} has rows.")
        if len(rows) % _KEEP_EVERY == 0:
            keep()
        place = f"{IMAGES_FILE}: {found.place}"
        rows.append(ExportedRow(place=place, fields=found.values, problem=found.problem, vector=vectors[len(rows)]))
        after = found.cursor
    if len(rows) < min(limit, matrix.rows - start):
        raise ExportInvalid(f"{IMAGES_FILE} has fewer lines than {VECTORS_FILE} has rows.")
    return rows, after
