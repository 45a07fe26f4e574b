"""Rows: JSON lines and CSV, read as a stream from any row on. Those of Parquet are in `parquet.py`."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from lookalike.errors import InvalidParameter, ManifestInvalid

MAX_LINE_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
#: Without leading zeros: those of a postal code or a part number mean something.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, or what is wrong with it."""

    place: str  #: As people find it: `Line 7`.
    cursor: str
    values: Mapping[str, Any] | None
    problem: str = ""


# --- JSON lines -----------------------------------------------------------------------------------------------------


def jsonl_rows(file: BinaryIO, *, after: str | None) -> Iterator[Row]:
    """Yield a row for each line that is not blank."""
    lines = _Lines(file, after)
    for line in lines:
        if line.strip(b" \t\r\n\xef\xbb\xbf"):
            values, problem = (None, lines.problem) if lines.problem else _json_object(line)
            yield Row(f"Line {lines.number}", lines.cursor, values, problem)


def _json_object(line: bytes) -> tuple[Mapping[str, Any] | None, str]:
    try:
        found = json.loads(line.removeprefix(_BOM).decode())
    except UnicodeDecodeError:
        return None, "it is not UTF-8"
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON: {error}"
    return (found, "") if isinstance(found, dict) else (None, "it is not a JSON object")


class _Lines:
    """The lines of a file, counted, and cut where they are too long."""

    def __init__(self, file: BinaryIO, after: str | None) -> None:
        self._file = file
        self.number, self._offset = (int(part) for part in after.split(".")) if after else (0, 0)
        self.problem = ""  #: Of the line in hand.
        file.seek(self._offset)

    @property
    def cursor(self) -> str:
        """Where the lines go on behind the one in hand."""
        return f"{self.number}.{self._offset}"

    def __iter__(self) -> Iterator[bytes]:
        while line := self._file.readline(MAX_LINE_BYTES):
            self.number += 1
            self._offset += len(line)
            self.problem = ""
            rest = line
            while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = self._file.readline(MAX_LINE_BYTES)
                self._offset += len(rest)
                self.problem = f"it is longer than {MAX_LINE_BYTES} bytes"
            yield line


# --- CSV ------------------------------------------------------------------------------------------------------------


def csv_rows(file: BinaryIO, *, after: str | None) -> Iterator[Row]:
    """Yield a row for each record behind the header; raises `ManifestInvalid` for a header that is none."""
    header = _Lines(file, None)
    first = next(iter(header), b"")
    text = first.removeprefix(_BOM).decode(errors="replace")
    delimiter = max(",;\t", key=text.count)
    columns = next(csv.reader([text], delimiter=delimiter), [])
    if header.problem or "\0" in text or not columns:
        raise ManifestInvalid("Line 1: the header of a CSV file with the names of its columns is missing.")
    lines = _Lines(file, after or header.cursor)
    decoded = _Decoded(lines)
    reader = csv.reader(decoded, delimiter=delimiter)
    while True:
        begin = lines.number + 1
        decoded.record_bytes = 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Row(f"Line {begin}", lines.cursor, None, str(error))
            continue
        if cells is None:
            return
        if len(cells) > len(columns):
            problem = f"it has {len(cells)} cells, and the header names {len(columns)}"
            yield Row(f"Line {begin}", lines.cursor, None, problem)
        elif cells:
            values = {name: _csv_value(cell) for name, cell in zip(columns, cells, strict=False) if name}
            yield Row(f"Line {begin}", lines.cursor, values)


def csv_columns(file: BinaryIO) -> list[str]:
    """Return the columns that a CSV file's header names."""
    file.seek(0)
    text = file.readline(MAX_LINE_BYTES).removeprefix(_BOM).decode(errors="replace")
    return next(csv.reader([text], delimiter=max(",;\t", key=text.count)), [])


class _Decoded:
    """Lines as text. Unlike a generator, it goes on behind an error that it raised."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._rest = iter(lines)
        self.record_bytes = 0  #: Of the record in hand, whose quoted cells may go on over any number of lines.

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._rest)
        self.record_bytes += len(line)
        if self._lines.problem:
            raise csv.Error(self._lines.problem)
        if self.record_bytes > MAX_LINE_BYTES:
            raise csv.Error(f"it is longer than {MAX_LINE_BYTES} bytes; is a quote not closed?")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise csv.Error("it is not UTF-8") from error


def _csv_value(cell: str) -> Any:
    found = _NUMBER.fullmatch(cell)
    if not found:
        return cell or None
    return float(cell) if found[1] or found[2] else int(cell)


# --- Columns -------------------------------------------------------------------------------------------------------


def check_columns(columns: list[str], uri_column: str) -> None:
    """Raise `ManifestInvalid` unless the addresses' column is there and the others can be metadata."""
    from lookalike.vectorstore.schema import check_metadata

    if uri_column not in columns:
        raise ManifestInvalid(f"Line 1: there is no column {uri_column!r}. Name the one that holds the addresses.")
    try:
        check_metadata({name: "" for name in columns if name and name != uri_column})
    except InvalidParameter as error:
        raise ManifestInvalid(f"Line 1: {error.message}") from error
