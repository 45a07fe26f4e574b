"""Reading an export from any row on, from files that lie wherever their opener finds them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

from lookalike.errors import ExportInvalid
from lookalike.exports.header import MAX_HEADER_BYTES, ExportHeader, parse_header
from lookalike.exports.npy import Matrix, read_npy
from lookalike.exports.parquet import FILE_NAME, count_parquet, read_parquet, read_parquet_header
from lookalike.exports.rows import ExportedRow
from lookalike.records import ExportFormat
from lookalike.records.exports import HEADER_FILE, IMAGES_FILE, TABLE_SUFFIX, VECTORS_FILE

Cursor = Mapping[str, Any]  #: Where reading goes on, as JSON can hold it; the empty one is the beginning.


@dataclass(frozen=True)
class ExportFile:
    """One file of an export, by the name it was exported with."""

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]  #: Gives a file that can seek.


class ExportReader:
    """An export; raises `ExportInvalid` from all its methods where the files are none, and `MissingExtra`."""

    def __init__(self, files: Sequence[ExportFile]) -> None:
        self._files = {file.name: file for file in files}
        self._are_told_apart = len(self._files) == len(files)
        self._tables = sorted(name for name in self._files if name.endswith(TABLE_SUFFIX))

    def header(self) -> ExportHeader:
        """Return what the export says of itself, once all the files that it says it has are there."""
        if not self._are_told_apart:
            raise ExportInvalid("Two of the files have the same name. Name the files of one export.")
        if HEADER_FILE in self._files:
            with self._files[HEADER_FILE].open() as file:
                header = parse_header(file.read(MAX_HEADER_BYTES))
        elif self._tables:
            with self._files[self._tables[0]].open() as file:
                header = read_parquet_header(file)
        else:
            raise ExportInvalid(f"There is neither a {HEADER_FILE} nor a Parquet file, so this is no export.")
        missing = [name for name in _expected(header) if name not in self._files]
        if missing:
            raise ExportInvalid(f"The export is not complete: {missing[0]} is missing.")
        return header

    def count(self, header: ExportHeader) -> int:
        """Return how many rows there are."""
        if header.images is not None:
            return header.images
        return sum(self._count(name) for name in self._tables)

    def page(
        self, header: ExportHeader, cursor: Cursor, *, limit: int, keep: Callable[[], None]
    ) -> tuple[list[ExportedRow], Cursor]:
        """Return at most `limit` rows and the cursor behind them; none is the end.

        `keep` is called now and then, and may raise to give up.
        """
        if header.format is ExportFormat.NPY:
            return self._npy_page(cursor, limit, keep)
        return self._parquet_page(cursor, limit, keep)

    def _parquet_page(self, cursor: Cursor, limit: int, keep: Callable[[], None]) -> tuple[list[ExportedRow], Cursor]:
        number, row = cursor.get("file", 0), cursor.get("row", 0)
        while number < len(self._tables):
            name = self._tables[number]
            with self._files[name].open() as file:
                rows = read_parquet(file, name, start=row, limit=limit, keep=keep)
            if rows:
                return rows, {"file": number, "row": row + len(rows)}
            number, row = number + 1, 0
        return [], {"file": number, "row": row}

    def _npy_page(self, cursor: Cursor, limit: int, keep: Callable[[], None]) -> tuple[list[ExportedRow], Cursor]:
        row = cursor.get("row", 0)
        with self._files[VECTORS_FILE].open() as vectors, self._files[IMAGES_FILE].open() as lines:
            rows, after = read_npy(Matrix(vectors), lines, start=row, after=cursor.get("line"), limit=limit, keep=keep)
        return rows, {"row": row + len(rows), "line": after}

    def _count(self, name: str) -> int:
        with self._files[name].open() as file:
            return count_parquet(file)


def _expected(header: ExportHeader) -> list[str]:
    if header.format is ExportFormat.NPY:
        return [VECTORS_FILE, IMAGES_FILE] if header.model else []
    return [FILE_NAME.format(number) for number in range(header.files or 0)]
