"""Rows of an export: an image as columns, and columns as an image, with the doubt that files from elsewhere deserve."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ImageError, InvalidParameter, RowInvalid, VectorInvalid
from lookalike.records import IMAGE_ID
from lookalike.roots import FILE_SCHEME, file_path, image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike.uploads.names import is_sha256, parse_uri
from lookalike.vectorstore import StoredImage, check_metadata
from lookalike.vectorstore.schema import MAX_INT, VARCHARS

TEXTS: Final = ("id", "uri", "name", "sha256", "etag", "job", "duplicate_of", "metadata")
NUMBERS: Final = ("size", "mtime_ns", "width", "height")
VECTOR: Final = "vector"
_LENGTHS: Final = (1e-15, 1e15)  #: Of vectors: Milvus squares and adds in float32, where another is lost in it.
_MAX_ETAG_BYTES: Final = 1_024
#: What an image's bytes are read from. Others, as those of search pictures, are nobody's to name.
_REMOTE: Final = ("http://", "https://", "s3://", "gs://")


@dataclass(frozen=True, kw_only=True)
class ExportedRow:
    """One row as it was read, unchecked."""

    place: str  #: As people find it: `images-00003.parquet: Row 7`.
    fields: Mapping[str, Any] | None  #: By column; None where they could not be read,
    problem: str = ""  #: and why.
    vector: NDArray[np.float32] | None = None

    @property
    def uri(self) -> str:
        """What the failures ledger calls it."""
        uri = (self.fields or {}).get("uri")
        return uri[: VARCHARS["uri"]] if isinstance(uri, str) and uri else self.place


def columns_of(image: StoredImage) -> dict[str, Any]:
    """Return an image as columns, all but its vector; its metadata as an object."""
    return {name: getattr(image, name) for name in (*TEXTS, *NUMBERS)}


def stored_image(row: ExportedRow, *, job: str) -> StoredImage:
    """Make the image that a row describes, as stored by `job`; raises `RowInvalid`."""
    if row.fields is None:
        raise RowInvalid(f"{row.place} cannot be read: {row.problem}.")
    fields = row.fields
    try:
        uri = _text(fields, "uri", required=True)
        _check_uri(uri)
        if fields.get("id") != image_id(uri):
            raise RowInvalid("Its id is not the one of its URI.")
        image = StoredImage(
            id=image_id(uri),
            uri=uri,
            name=_text(fields, "name"),
            sha256=_text(fields, "sha256"),
            etag=_text(fields, "etag"),
            duplicate_of=_text(fields, "duplicate_of") or None,
            job=job,
            metadata=_metadata(fields.get("metadata")),
            size=_number(fields, "size"),
            mtime_ns=_number(fields, "mtime_ns"),
            width=_number(fields, "width"),
            height=_number(fields, "height"),
        )
        if not is_sha256(image.sha256):
            raise RowInvalid("Its `sha256` is not one.")
        if image.duplicate_of and not IMAGE_ID.fullmatch(image.duplicate_of):
            raise RowInvalid("Its `duplicate_of` is not the id of an image.")
        check_metadata(image.metadata)
    except (ImageError, InvalidParameter) as error:
        raise RowInvalid(f"{row.place} cannot be used. {error.message}") from error
    return image


def usable_vector(row: ExportedRow, dim: int) -> NDArray[np.float32]:
    """Return a row's vector; raises `VectorInvalid` unless it has `dim` finite values that are not all zero."""
    vector = row.vector
    if vector is None or len(vector) != dim:
        found = "no vector" if vector is None else f"a vector of {len(vector)} values"
        raise VectorInvalid(f"{row.place} has {found}, and those of this collection have {dim}.")
    if not np.isfinite(vector).all():
        raise VectorInvalid(f"{row.place} has a vector with a value that is not a finite number.")
    if not _LENGTHS[0] < np.linalg.norm(vector.astype(np.float64)) < _LENGTHS[1]:
        raise VectorInvalid(f"{row.place} has a vector of no length, or of an absurd one, which is like nothing.")
    return vector


def _check_uri(uri: str) -> None:
    if uri.startswith(FILE_SCHEME):
        file_path(uri)
    elif uri.startswith(UPLOAD_SCHEME):
        if parse_uri(uri) is None:
            raise RowInvalid("Its URI is not the one of an upload.")
    elif not uri.startswith(_REMOTE):
        raise RowInvalid("Its URI is of a kind that no image has.")


def _text(fields: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = fields.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise RowInvalid(f"Its `{name}` is not a text.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise RowInvalid(f"Its `{name}` is not UTF-8.") from error
    if size > VARCHARS.get(name, _MAX_ETAG_BYTES):
        raise RowInvalid(f"Its `{name}` is too long.")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    least = -MAX_INT if name == "mtime_ns" else 0  # A file may be older than 1970.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_INT:
        raise RowInvalid(f"Its `{name}` is not a whole number of 64 bits.")
    return value


def _metadata(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowInvalid("Its `metadata` is not JSON.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowInvalid("Its `metadata` is not an object.")
    return value
