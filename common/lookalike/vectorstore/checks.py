"""What is checked before Milvus sees it, and how its refusals read to a user."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from lookalike.errors import CollectionNotFound, InvalidFilter, InvalidParameter, ModelMismatch, ModelNotFound
from lookalike.records import IMAGE_ID, Collection, CollectionName, ModelInfo
from lookalike.vectorstore.schema import StoredImage, row_bytes, to_row

MAX_ROWS: Final = 1_000  #: Of one upsert.
MAX_BYTES: Final = 16 << 20  #: Of one upsert; Milvus takes 64 MiB.
TILES_SUFFIX: Final = "__tiles"  #: Of the collection of tiles beside a physical one.
_ADDRESS: Final = re.compile(f"(.+)__([0-9a-f]{{12}})(?:{TILES_SUFFIX})?")
MAX_REASON: Final = 300  #: Characters of Milvus' answer that a user is shown.
SHA256: Final = re.compile("[0-9a-f]{64}")  #: Use with `fullmatch`.

_T = TypeVar("_T")
_NAME: Final[TypeAdapter[str]] = TypeAdapter(CollectionName)


def checked_name(name: str) -> str:
    """Return a collection's name; raises `CollectionNotFound` for one that no collection can have."""
    try:
        good = _NAME.validate_python(name) == name
    except ValidationError:
        good = False
    if not good:
        raise CollectionNotFound
    return name


def parted(address: str) -> tuple[str, str]:
    """Return the name in a collection's address and the beginning of the fingerprint, empty where it has none.

    An address is a name, which stands for the vectors of the model that serves, or, for those of a certain model, the
    physical collection's name. Raises `CollectionNotFound` for what is neither.
    """
    found = _ADDRESS.fullmatch(address)
    return (checked_name(found[1]), found[2]) if found else (checked_name(address), "")


def model_at(record: Collection, prefix: str) -> ModelInfo:
    """Return the model of a collection whose fingerprint begins so; raises `ModelNotFound`."""
    infos = [one.model for one in record.models] or [model_of(record)]
    found = next((info for info in infos if info.fingerprint.startswith(prefix)), None)
    if found is None:
        raise ModelNotFound
    return found


def at_address(record: Collection, address: str, prefix: str) -> Collection:
    """Return a collection's record as that of the vectors at an address.

    Those that do not serve are like a collection of their own, of that name. Raises `ModelNotFound`.
    """
    if not prefix or record.model is None or record.model.fingerprint.startswith(prefix):
        return record
    return record.model_copy(update={"name": address, "model": model_at(record, prefix), "models": ()})


def check_ids(ids: Iterable[str]) -> None:
    """Raise `InvalidParameter` unless these are image ids: pymilvus puts ids into filters as they are."""
    if not all(IMAGE_ID.fullmatch(image_id) for image_id in ids):
        raise InvalidParameter("An image id is 32 hexadecimal digits in lower case.")


def check_contents(sha256s: Iterable[str]) -> None:
    """Raise `InvalidParameter` unless these are SHA-256 in hexadecimal."""
    if not all(SHA256.fullmatch(sha256) for sha256 in sha256s):
        raise InvalidParameter("A SHA-256 is 64 hexadecimal digits in lower case.")


def uri_range(first: str, last: str) -> str:
    """Write the filter for the images whose URI is at least `first` and less than `last`."""
    return f"uri >= {_quoted(first)} and uri < {_quoted(last)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_vectors(vectors: NDArray[np.float32], dim: int) -> None:
    """Raise `InvalidParameter` unless these are vectors of a collection's length, of finite numbers."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidParameter(f"A vector of this collection has {dim} values.")
    if not np.isfinite(vectors).all():
        raise InvalidParameter("A vector holds a value that is not a finite number.")


def check_model(record: Collection, model: ModelInfo) -> None:
    """Raise `ModelMismatch` where a collection is bound to another model."""
    if record.model is not None and record.model.fingerprint != model.fingerprint:
        raise ModelMismatch(
            f"The collection {record.name} was made with {record.model.name} ({record.model.weights}, "
            f"{record.model.fingerprint[:12]}); this worker has {model.name} ({model.weights}, "
            f"{model.fingerprint[:12]}). Use a worker with that model, or ingest into a new collection."
        )


def model_of(record: Collection) -> ModelInfo:
    """Return a bound collection's model."""
    if record.model is None:
        raise CollectionNotFound
    return record.model


def physical_name(name: str, fingerprint: str) -> str:
    """The Milvus collection that holds a collection's vectors of one model; the address of those."""
    return f"{name}__{fingerprint[:12]}"


def slices(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    """Cut items into lists of at most `size`."""
    return (list(items[start : start + size]) for start in range(0, len(items), size))


def batches(rows: Iterable[tuple[StoredImage, NDArray[np.float32]]], dim: int) -> Iterator[list[dict[str, Any]]]:
    """Lay rows out for Milvus, in batches of at most `MAX_ROWS` and about `MAX_BYTES`."""
    batch: list[dict[str, Any]] = []
    size = 0
    for image, vector in rows:
        more = row_bytes(image, dim)
        if batch and (len(batch) == MAX_ROWS or size + more > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(to_row(image, vector))
        size += more
    if batch:
        yield batch


def filter_refused(reason: str) -> InvalidFilter:
    """Put a refused filter in a user's words: without the parser's caret line, its list of all tokens, its wrapping."""
    lines = [line.strip() for line in reason.splitlines() if line.strip(" ^")]
    if len(lines) > 1:
        del lines[1]  # Milvus Lite repeats the expression, to point into it.
    text = "; ".join(lines)
    text = re.sub(r"^failed to (create query plan: |search/query .*? => )", "", text)
    text = re.sub(r" expecting \{.*| \{;.*", "", text)
    return InvalidFilter(
        f"The filter is not one that Milvus accepts ({text[:MAX_REASON].rstrip('. ')}). "
        "Compare a field with a value, as in: album == 'spring'."
    )
