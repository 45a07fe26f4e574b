"""Exports in Parquet: a file for a bounded number of images, in row groups, and the same read with bounded memory.

A Parquet file cannot be added to, so a large collection is a series of them, which readers of data sets take as one. A
file that somebody else made may hold far more than its size says; what is read of it is measured first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ExportInvalid, MissingExtra
from lookalike.exports.header import MAX_DIM, ExportHeader, parse_header
from lookalike.exports.rows import NUMBERS, TEXTS, VECTOR, ExportedRow, columns_of
from lookalike.vectorstore import StoredImage

FILE_NAME: Final = "images-{:05d}.parquet"
HEADER_KEY: Final = b"lookalike"  #: Of the header among a file's own metadata.
_NEEDED: Final = ("id", "uri", VECTOR)
_MAX_GROUP_BYTES: Final = 256 << 20  #: Of one row group, unpacked: Arrow may hold all of it.
_MAX_GROUP_VALUES: Final = 1 << 26  #: Of its vectors: runs of equal ones take no room in the file.
_MAX_BATCH_TEXT_BYTES: Final = 64 << 20
_BATCH_ROWS: Final = 250

WritePage = Callable[[Sequence[StoredImage], NDArray[np.float32]], None]


@contextmanager
def writing_parquet(file: BinaryIO, header: ExportHeader, dim: int) -> Iterator[WritePage]:
    """Write a file: what this yields takes a page of images and their vectors, (n, dim), as one row group each time.

    Raises `MissingExtra`.
    """
    pyarrow = _pyarrow()
    schema = _schema(pyarrow, dim).with_metadata({HEADER_KEY: header.model_dump_json().encode()})

    def write(images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> None:
        writer.write_table(_table(pyarrow, schema, images, vectors), row_group_size=max(1, len(images)))

    with pyarrow.parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=False, write_page_checksum=True
    ) as writer:
        yield write


def read_parquet_header(file: BinaryIO) -> ExportHeader:
    """Read the header inside a file; raises `ExportInvalid` and `MissingExtra`."""
    with _as_errors():
        metadata = _opened(file).schema_arrow.metadata or {}
    if HEADER_KEY not in metadata:
        raise ExportInvalid("This Parquet file is not of an export: it does not say which model made its vectors.")
    return parse_header(metadata[HEADER_KEY])


def count_parquet(file: BinaryIO) -> int:
    """Return how many rows a file has; raises `ExportInvalid` and `MissingExtra`."""
    with _as_errors():
        return int(_opened(file).metadata.num_rows)


def read_parquet(file: BinaryIO, name: str, *, start: int, limit: int, keep: Callable[[], None]) -> list[ExportedRow]:
    """Return at most `limit` rows, the one number `start` first; `keep` is called now and then.

    Raises `ExportInvalid` where the file is damaged or holds more than is unpacked here, and `MissingExtra`.
    """
    rows: list[ExportedRow] = []
    with _as_errors():
        table = _opened(file)
        _check_columns(table.schema_arrow)
        columns = [name for name in (*TEXTS, *NUMBERS, VECTOR) if name in table.schema_arrow.names]
        place = 0
        for group in range(table.num_row_groups):
            facts = table.metadata.row_group(group)
            if place + facts.num_rows > start and len(rows) < limit:
                _check_group(table.schema, facts, group)
                for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                    keep()
                    skipped = max(0, start - place)
                    if skipped < batch.num_rows and len(rows) < limit:
                        rows += _rows(batch.slice(skipped, limit - len(rows)), name, number=place + skipped)
                    place += batch.num_rows
                    if len(rows) >= limit:
                        break
            else:
                place += facts.num_rows
    return rows


# --- Writing --------------------------------------------------------------------------------------------------------


def _schema(pyarrow: Any, dim: int) -> Any:
    fields = [
        *((name, pyarrow.string()) for name in TEXTS),
        *((name, pyarrow.int64()) for name in NUMBERS),
        (VECTOR, pyarrow.list_(pyarrow.float32(), dim)),
    ]
    return pyarrow.schema(fields)


def _table(pyarrow: Any, schema: Any, images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> Any:
    from lookalike.exports.npy import as_json

    rows = [columns_of(image) for image in images]
    for row in rows:
        row["metadata"] = as_json(row["metadata"])
    columns = [pyarrow.array([row[name] for row in rows], schema.field(name).type) for name in (*TEXTS, *NUMBERS)]
    values = pyarrow.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    columns.append(pyarrow.FixedSizeListArray.from_arrays(values, type=schema.field(VECTOR).type))
    return pyarrow.Table.from_arrays(columns, schema=schema)


# --- Reading --------------------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "Exports in Parquet need a package that is not installed. Install it with: pip install "
            "'lookalike[parquet]', or use the format npy."
        ) from error
    return pyarrow


@contextmanager
def _as_errors() -> Iterator[None]:
    pyarrow = _pyarrow()
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ExportInvalid("This is not a Parquet file, or it is damaged. Copy it again from its source.") from error


def _opened(file: BinaryIO) -> Any:
    parquet = _pyarrow().parquet
    file.seek(0)
    texts = [name for name in TEXTS if name in parquet.ParquetFile(file).schema_arrow.names]
    # Arrow's dictionaries hold each text once, as the file does: a small file may repeat a long one in every row.
    return parquet.ParquetFile(
        file, buffer_size=1 << 20, pre_buffer=False, read_dictionary=texts, page_checksum_verification=True
    )


def _check_columns(schema: Any) -> None:
    from pyarrow import types

    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise ExportInvalid(f"The Parquet file has no column {missing[0]!r}, so it is not of an export.")
    kinds = {name: schema.field(name).type for name in (*TEXTS, *NUMBERS, VECTOR) if name in schema.names}
    for name in TEXTS:
        kind = kinds.get(name, schema.field("id").type)
        declared = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(declared) or types.is_large_string(declared) or types.is_null(declared)):
            raise ExportInvalid(f"The column {name!r} does not hold texts.")
    for name in NUMBERS:
        if name in kinds and not types.is_integer(kinds[name]):
            raise ExportInvalid(f"The column {name!r} does not hold whole numbers.")
    vector = kinds[VECTOR]
    listed = types.is_list(vector) or types.is_large_list(vector) or types.is_fixed_size_list(vector)
    if not listed or not types.is_floating(vector.value_type):
        raise ExportInvalid("The column 'vector' does not hold lists of floating-point numbers.")
    if types.is_fixed_size_list(vector) and vector.list_size > MAX_DIM:
        raise ExportInvalid(f"Its vectors have {vector.list_size} values, and at most {MAX_DIM} can be stored.")


def _check_group(schema: Any, facts: Any, group: int) -> None:
    values = [
        facts.column(place).num_values
        for place in range(facts.num_columns)
        if schema.column(place).path.split(".")[0] == VECTOR
    ]
    if facts.total_byte_size > _MAX_GROUP_BYTES or max(values, default=0) > _MAX_GROUP_VALUES:
        raise ExportInvalid(f"Row group {group} of the Parquet file is too large to be read. Write smaller ones.")


def _rows(batch: Any, name: str, *, number: int) -> list[ExportedRow]:
    _check_texts(batch)
    fields = batch.drop_columns([VECTOR]).to_pylist()
    vectors = _vectors(batch.column(batch.schema.get_field_index(VECTOR)))
    return [
        ExportedRow(place=f"{name}: Row {number + offset}", fields=values, vector=vector)
        for offset, (values, vector) in enumerate(zip(fields, vectors, strict=True), 1)
    ]


def _check_texts(batch: Any) -> None:
    """Refuse rows whose texts would fill memory once each row has its own copy."""
    from pyarrow import compute, types

    size = 0
    for column in batch.columns:
        if types.is_dictionary(column.type):
            lengths = compute.binary_length(column.dictionary).take(column.indices)
            size += compute.sum(lengths).as_py() or 0
    if size > _MAX_BATCH_TEXT_BYTES:
        raise ExportInvalid("The texts in the Parquet file are too long to be those of images.")


def _vectors(column: Any) -> list[NDArray[np.float32] | None]:
    from pyarrow import compute

    lengths = compute.list_value_length(column)
    sizes = compute.fill_null(lengths, 0).to_pylist()
    with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite, and is refused as that.
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    bounds = pairwise(accumulate(sizes, initial=0))
    is_there = lengths.is_valid().to_pylist()
    return [values[begin:end] if there else None for (begin, end), there in zip(bounds, is_there, strict=True)]
