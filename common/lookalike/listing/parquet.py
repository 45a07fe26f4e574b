"""Rows of Parquet files, read as a stream from any row on, in memory that no file can blow up.

A Parquet file of a few kilobytes can hold a text of megabytes once and name it in each of a million rows. So texts are
read as Arrow's dictionaries, which hold each once as the file does, and measured before any row is unpacked.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, BinaryIO, Final

from lookalike.errors import ManifestInvalid, MissingExtra
from lookalike.listing.rows import MAX_LINE_BYTES, Row
from lookalike.listing.stores import Keep

_MAX_ROW_GROUP_BYTES: Final = 1 << 30  # Arrow holds what it unpacks of one.
_MAX_LIST_VALUES: Final = 1 << 24  # Of one column in a row group: runs of equal ones take no room in the file.
_BATCH_ROWS: Final = 64
_BATCH_BYTES: Final = 64 << 20  # Texts that are not repeated are unpacked by Arrow for each row of a batch.
_ELEMENT_BYTES: Final = 8  # What an entry of a list counts besides its text.


def parquet_columns(file: BinaryIO) -> list[str]:
    """Return the names of a Parquet file's columns; raises `ManifestInvalid` and `MissingExtra`."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtra(
            "Parquet manifests need a package that is not installed. Install it with: pip install 'lookalike[parquet]'."
        ) from error
    try:
        schema = ParquetFile(file).schema_arrow
    except (ArrowException, OSError) as error:
        raise ManifestInvalid("This is not a Parquet file, or it is damaged.") from error
    for field in schema:
        _check_type(field)
    return list(schema.names)


def parquet_rows(file: BinaryIO, *, after: str | None, keep: Keep) -> Iterator[Row]:
    """Yield a row for each row, one row group after the other; raises `ManifestInvalid`.

    A row with more than `MAX_LINE_BYTES` in it has a problem, as a line of text would.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = int(after) if after else 0
    try:
        table = ParquetFile(file, buffer_size=1 << 20, read_dictionary=_texts(ParquetFile(file).schema))
        place = 0
        for group in range(table.num_row_groups):
            facts = table.metadata.row_group(group)
            _check_size(table.schema, facts, group)
            if place + facts.num_rows <= number:
                place += facts.num_rows
                continue
            for batch in table.iter_batches(_batch_rows(facts), row_groups=[group], use_threads=False):
                keep()
                for values, problem in _python(batch.slice(max(0, number - place))):
                    number += 1
                    yield Row(f"Row {number}", str(number), values, problem)
                place += batch.num_rows
    except (ArrowException, OSError) as error:
        raise ManifestInvalid(f"Behind row {number} the Parquet file is damaged.") from error


def parquet_row_count(file: BinaryIO) -> int | None:
    """Return how many rows a Parquet file says it has; None where it is none."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        return int(ParquetFile(file).metadata.num_rows)
    except (ImportError, ArrowException, OSError):  # The listing will say so.
        return None


# --- What a file may hold -------------------------------------------------------------------------------------------


def _check_type(field: Any) -> None:
    """Refuse columns that can hold no metadata, of which those of lists in lists cannot be measured either."""
    from pyarrow import types

    is_list = types.is_list(field.type) or types.is_large_list(field.type)
    declared = field.type.value_type if is_list else field.type
    kind = getattr(declared, "storage_type", declared)  # Of an extension type.
    # Those of one size are no texts to Arrow, which would unpack one of megabytes for each row.
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    if is_bytes or types.is_nested(kind):
        raise ManifestInvalid(f"The column {field.name!r} holds bytes or structures. Leave it out of the manifest.")


def _texts(schema: Any) -> list[str]:
    """Name the columns of a file that hold texts, those in lists included."""
    columns = [schema.column(place) for place in range(len(schema))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type != "DECIMAL"
    ]


def _check_size(schema: Any, facts: Any, group: int) -> None:
    if facts.total_byte_size > _MAX_ROW_GROUP_BYTES:
        raise ManifestInvalid(f"Row group {group} is larger than 1 GiB. Write smaller ones.")
    for place in range(facts.num_columns):
        if schema.column(place).max_repetition_level and facts.column(place).num_values > _MAX_LIST_VALUES:
            raise ManifestInvalid(f"A list column of row group {group} has too many values. Write smaller ones.")


def _batch_rows(facts: Any) -> int:
    """Return how many rows of a group are unpacked at a time."""
    row_bytes = max(1, facts.total_byte_size // max(1, facts.num_rows))
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes)))


# --- Values ---------------------------------------------------------------------------------------------------------


def _python(batch: Any) -> Iterator[tuple[Mapping[str, Any] | None, str]]:
    """Yield a batch's rows as Python has them, each with what is wrong with it."""
    sizes = _row_bytes(batch)
    if max(sizes, default=0) <= MAX_LINE_BYTES:
        yield from _unpacked(batch)
        return
    for place, size in enumerate(sizes):
        if size > MAX_LINE_BYTES:
            yield None, f"it is longer than {MAX_LINE_BYTES} bytes"
        else:
            yield from _unpacked(batch.slice(place, 1))


def _row_bytes(batch: Any) -> list[int]:
    """Return about how many bytes the texts and lists of each row have, without unpacking any."""
    from pyarrow import compute, types

    sizes = [0] * batch.num_rows
    for column in batch.columns:
        rows: Any = range(batch.num_rows)
        values, each = column, 0
        if types.is_list(column.type) or types.is_large_list(column.type):
            rows, values, each = compute.list_parent_indices(column).to_pylist(), column.flatten(), _ELEMENT_BYTES
        if types.is_dictionary(values.type):
            lengths = compute.binary_length(values.dictionary).take(values.indices).to_pylist()
            for row, length in zip(rows, lengths, strict=True):
                sizes[row] += each + (length or 0)
        elif each:
            for row in rows:
                sizes[row] += each
    return sizes


def _unpacked(batch: Any) -> Iterator[tuple[Mapping[str, Any] | None, str]]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        # Text that is not UTF-8, or a time that Python does not know. Arrow does not say in which row.
        if batch.num_rows == 1:
            yield None, f"a value in it cannot be used: {error}"
            return
        for place in range(batch.num_rows):
            yield from _unpacked(batch.slice(place, 1))
        return
    for values in rows:
        yield {key: _plain(value) for key, value in values.items()}, ""


def _plain(value: Any) -> Any:
    """Return a value as JSON could hold it; None for what stands for nothing."""
    match value:
        case float():
            return None if math.isnan(value) else value
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case _:
            return value
