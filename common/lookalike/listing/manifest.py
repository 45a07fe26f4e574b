"""Manifests: tables with a line per image, of which one column is its address and the others its metadata."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final, Literal
from urllib.parse import quote

from lookalike.errors import InvalidParameter, LookalikeError, ManifestInvalid
from lookalike.listing.addresses import Addresses
from lookalike.listing.archive import MEMBER_MARK
from lookalike.listing.listed import Listed
from lookalike.listing.material import Material
from lookalike.listing.parquet import parquet_columns, parquet_row_count, parquet_rows
from lookalike.listing.rows import Row, check_columns, csv_columns, csv_rows, jsonl_rows
from lookalike.listing.stores import Keep
from lookalike.records import ManifestSource, Metadata

Format = Literal["jsonl", "csv", "parquet"]

_COUNT_BYTES: Final = 1 << 20

_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def list_manifest(
    material: Material, source: ManifestSource, addresses: Addresses, *, after: str | None, keep: Keep
) -> Iterator[Listed]:
    """List what a manifest's rows name, behind the cursor `after`.

    A row that cannot be used is listed with its error. Raises `ManifestInvalid` where it is the first one: then this is
    no such manifest at all.
    """
    is_one = after is not None
    for row in _rows(material, source, after, keep):
        keep()
        try:
            address, metadata = _checked(row, source.uri_column)
        except (ManifestInvalid, InvalidParameter) as error:
            if isinstance(error, ManifestInvalid) and not is_one:
                raise
            yield _line(material, row, error)
            continue
        is_one = True
        yield addresses.listed(address, cursor=row.cursor, metadata=metadata)


def count_rows(material: Material, source: ManifestSource, *, keep: Keep) -> int | None:
    """Count about how many rows a manifest has; None where it cannot be read."""
    kind = _kind(material, source)
    if kind == "parquet":
        return parquet_row_count(material.file)
    lines = 0
    while block := material.file.read(_COUNT_BYTES):
        keep()
        lines += block.count(b"\n")
    return max(0, lines - (kind == "csv"))


def _kind(material: Material, source: ManifestSource) -> Format:
    return _format(material) if source.format == "auto" else source.format


def _rows(material: Material, source: ManifestSource, after: str | None, keep: Keep) -> Iterator[Row]:
    file = material.file
    match _kind(material, source):
        case "jsonl":
            return jsonl_rows(file, after=after)
        case "csv":
            check_columns(csv_columns(file), source.uri_column)
            return csv_rows(file, after=after)
        case "parquet":
            check_columns(parquet_columns(file), source.uri_column)
            return parquet_rows(file, after=after, keep=keep)


def _format(material: Material) -> Format:
    """Go by the name's suffix, or by the first bytes where it has none that tells."""
    known = _SUFFIXES.get(PurePath(material.name).suffix.lower())
    if known:
        return known
    head = material.file.read(64)
    material.file.seek(0)
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def _checked(row: Row, uri_column: str) -> tuple[str, Metadata]:
    """Return a row's address and metadata; raises `ManifestInvalid` and `InvalidParameter`."""
    from lookalike.vectorstore.schema import check_metadata

    if row.values is None:
        raise ManifestInvalid(f"{row.place} of the manifest cannot be read: {row.problem}.")
    address = row.values.get(uri_column)
    if not isinstance(address, str) or not address:
        raise ManifestInvalid(f"{row.place} of the manifest has no address in {uri_column!r}.")
    metadata = _metadata(row.values, uri_column)
    try:
        check_metadata(metadata)
    except InvalidParameter as error:
        raise InvalidParameter(f"{row.place} of the manifest: {error.message}") from error
    return address, metadata


def _metadata(values: Mapping[str, Any], uri_column: str) -> Metadata:
    return {name: value for name, value in values.items() if name != uri_column and value is not None}


def _line(material: Material, row: Row, error: LookalikeError) -> Listed:
    return Listed(f"{material.uri}{MEMBER_MARK}{quote(row.place)}", f"{material.name}: {row.place}", row.cursor, error)
