"""What a row of a collection holds, and which metadata a user may add to it."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.records import Metadata

ID: Final = "id"
VECTOR: Final = "vector"
#: Milvus measures VARCHAR in bytes. A path of 4,096 bytes grows threefold where every byte of its URI is escaped.
VARCHARS: Final = {"uri": 16_384, "name": 4_096, "sha256": 64, "job": 64}
INTEGERS: Final = ("size", "mtime_ns", "width", "height")
#: Our own among the dynamic fields, which came later: rows and collections from before are as good without them.
OPTIONAL: Final = ("etag", "duplicate_of", "picture_hash")
#: All dynamic fields, the user's and `OPTIONAL`; named in `output_fields`, they come back without the vector.
DYNAMIC: Final = "$meta"
OUTPUT_FIELDS: Final = [*VARCHARS, *INTEGERS, DYNAMIC]
STATE_FIELDS: Final = ["sha256", "job", "size", "mtime_ns", DYNAMIC]
PLACE_FIELDS: Final = ["uri", "sha256", "size"]

#: Not for the user: our own fields, and words that pymilvus gives a meaning in a hit.
RESERVED: Final = frozenset(
    {ID, VECTOR, *VARCHARS, *INTEGERS, *OPTIONAL, "pk", "distance", "score", "entity", "metadata"}
)
METADATA_KEY: Final = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")
MAX_METADATA_BYTES: Final = 32_768  #: Half of what Milvus takes in a JSON field, measured as JSON.
MAX_INT: Final = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One row without its vector."""

    id: str  #: 32 hex digits, from the canonical URI.
    uri: str
    name: str
    sha256: str  #: Of the file's bytes.
    size: int  #: Bytes of the file.
    mtime_ns: int
    width: int  #: Pixels, after EXIF orientation.
    height: int
    job: str = ""  #: The job that stored it: tells a chunk's second attempt from an unchanged file.
    etag: str = ""  #: Of a remote file: what its server calls this version of it.
    duplicate_of: str | None = None  #: The image of the same content whose vector this row has a copy of.
    picture_hash: str = ""  #: As `lookalike.picture_hash` makes it; none in rows from before there was one.
    metadata: Metadata


@dataclass(frozen=True, kw_only=True)
class RowState:
    """What tells whether a file is still as it was stored."""

    size: int  #: Bytes of the file.
    mtime_ns: int
    etag: str
    job: str
    sha256: str
    picture_hash: str = ""
    metadata: Metadata


@dataclass(frozen=True, kw_only=True)
class RowPlace:
    """Which file a row is of."""

    id: str
    uri: str
    sha256: str
    size: int  #: Bytes of the file.


@dataclass(frozen=True, kw_only=True)
class Found:
    """One hit of a search."""

    image: StoredImage
    distance: float  #: As Milvus returned it for the collection's metric.


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row that may become a hit, as far as that is decided by."""

    id: str
    distance: float  #: As Milvus returned it for the collection's metric.
    sha256: str
    group: Any = None  #: Its value of the field that is grouped by.
    box: tuple[float, float, float, float] | None = None  #: Of the tile that was found; None of the whole image.
    is_stale: bool = False  #: The image of the tile is not stored with this content.


#: Our own fields that say something several images can have in common.
GROUPING: Final = frozenset({"name", "sha256", "size", "mtime_ns", "width", "height", "job", "uri", "duplicate_of"})


def check_group_field(field: str) -> None:
    """Raise `InvalidParameter` unless hits can be grouped by this field."""
    if field not in GROUPING and (field in RESERVED or not METADATA_KEY.fullmatch(field)):
        raise InvalidParameter(
            f"Hits cannot be grouped by `{field[:80]}`. Name a metadata field, or one of {', '.join(sorted(GROUPING))}."
        )


def check_metadata(metadata: Metadata) -> None:
    """Raise `InvalidParameter` unless every key can be a Milvus field and every value can be filtered on."""
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key):
            raise InvalidParameter(
                f"The metadata key {key[:80]!r} is not a name. "
                "Use a letter, then up to 63 letters, digits or underscores."
            )
        if key in RESERVED:
            raise InvalidParameter(f"The metadata key {key!r} is a field of lookalike's own. Choose another name.")
        _check_value(key, value)
    if len(_as_json(metadata)) > MAX_METADATA_BYTES:
        raise InvalidParameter(f"The metadata is larger than {MAX_METADATA_BYTES} bytes as JSON. Store less of it.")


def _check_value(key: str, value: object) -> None:
    for scalar in value if isinstance(value, list | tuple) else (value,):
        match scalar:
            case bool():
                good = True
            case int():
                good = abs(scalar) <= MAX_INT
            case float():
                good = math.isfinite(scalar)
            case str():
                good = _is_utf8(scalar)
            case _:
                good = False
        if not good:
            raise InvalidParameter(
                f"The metadata value of {key!r} is not one that can be stored. "
                "Use text, whole numbers of 64 bits, finite numbers, true, false, or a list of these."
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # A lone surrogate, as JSON can smuggle in.
        return False
    return True


def _as_json(metadata: Metadata) -> bytes:
    return json.dumps(metadata, ensure_ascii=False).encode()


def row_bytes(image: StoredImage, dim: int) -> int:
    """Estimate a row's size in an upsert."""
    return (
        4 * dim
        + len(image.uri.encode())
        + len(image.name.encode())
        + len(_as_json(image.metadata))
        + len(image.etag)
        + 300
    )


def to_row(image: StoredImage, vector: NDArray[np.float32]) -> dict[str, Any]:
    """Lay an image and its vector out as Milvus stores them."""
    fields = {field: getattr(image, field) for field in (ID, *VARCHARS, *INTEGERS)}
    optional = {field: value for field in OPTIONAL if (value := getattr(image, field))}
    return {**image.metadata, **optional, **fields, VECTOR: vector}


def from_row(image_id: str, row: Mapping[str, Any]) -> StoredImage:
    """Read an image from a row that was fetched with `OUTPUT_FIELDS`."""
    own = {field: row[field] for field in (*VARCHARS, *INTEGERS)}
    return StoredImage(
        id=image_id,
        etag=row.get("etag", ""),
        duplicate_of=row.get("duplicate_of"),
        picture_hash=row.get("picture_hash", ""),
        metadata=_metadata(row),
        **own,
    )


def state_from_row(row: Mapping[str, Any]) -> RowState:
    """Read an image's state from a row that was fetched with `STATE_FIELDS`."""
    return RowState(
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        etag=row.get("etag", ""),
        job=row["job"],
        sha256=row["sha256"],
        picture_hash=row.get("picture_hash", ""),
        metadata=_metadata(row),
    )


def _metadata(row: Mapping[str, Any]) -> Metadata:
    return {key: value for key, value in row.items() if key not in RESERVED and key != DYNAMIC}


def from_hit(hit: Mapping[str, Any]) -> Found:
    """Read one hit of a search."""
    return Found(image=from_row(hit[ID], hit["entity"]), distance=float(hit["distance"]))


def milvus_schema(dim: int, *, key: str = ID) -> Any:
    """Build the schema of a collection of images; with another `key` than their ids, several rows can be of one."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    if key != ID:
        schema.add_field(key, DataType.VARCHAR, is_primary=True, max_length=48)
    schema.add_field(ID, DataType.VARCHAR, is_primary=key == ID, max_length=32)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
    for field, max_bytes in VARCHARS.items():
        schema.add_field(field, DataType.VARCHAR, max_length=max_bytes)
    for field in INTEGERS:
        schema.add_field(field, DataType.INT64)
    return schema
