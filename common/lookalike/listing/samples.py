"""Samples: an image in an archive and what lies beside it, as WebDataset lays them out.

`a/1.jpg` and `a/1.json`, in either order and without another sample's member in between, are one sample. The JSON
object's fields become the image's metadata; so do `1.cls` and `1.txt`, as the fields `cls` and `txt`. What no filter
could compare is left out: null, nested objects, and names that the service uses itself.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lookalike.errors import InvalidParameter, LookalikeError
from lookalike.listing.listed import Listed
from lookalike.records import Metadata

SIDECARS: Final = frozenset({"json", "cls", "txt"})
MAX_SIDECAR_BYTES: Final = 65_536
MAX_MEMBERS: Final = 64  #: Of one sample. What is larger is several: memory is to stay flat.
_MAX_TEXT_CHARS: Final = 4096

Key = tuple[tuple[str, ...], str]  #: The folder, and the name up to its first dot.


@dataclass(frozen=True, slots=True)
class Found:
    """One member that is listed, or would be."""

    number: int
    uri: str
    name: str
    stem: str  # Without its last suffix.
    label: Metadata
    size: int | None
    error: LookalikeError | None


class Sample:
    """Members that belong together, gathered until one of another sample comes."""

    def __init__(self, key: Key, first: int, passed: int) -> None:
        self.key = key
        self.members = 0
        self._first = first
        self._passed = passed  # The last member that an earlier listing had listed.
        self._images: list[Found] = []
        self._sidecars: dict[str, dict[str, bytes]] = {}  # By name without suffix, then by suffix.
        self._bad: list[Found] = []

    def add_image(self, image: Found) -> None:
        """Note an image, or something that is listed with its error."""
        self._images.append(image)

    def add_sidecar(self, line: Found, suffix: str, data: bytes) -> None:
        """Note what lies beside an image; `line` is what is listed of it where it cannot be used."""
        self._sidecars.setdefault(line.stem, {})[suffix] = data
        if suffix == "json" and (error := _json_error(data)):
            self._bad.append(Found(line.number, line.uri, line.name, line.stem, {}, None, error))

    def listed(self) -> Iterator[Listed]:
        """Yield what the sample holds, in the order of its members, behind the one that was listed last."""
        has_image = any(image.error is None for image in self._images)
        lines = self._images + (self._bad if has_image else [])
        for image in sorted(lines, key=lambda image: image.number):
            if image.number > self._passed:
                metadata = {**image.label, **self._metadata(image)} if image.error is None else {}
                cursor = f"{self._first}.{image.number}"
                yield Listed(image.uri, image.name, cursor, image.error, image.size, metadata=metadata)

    def _metadata(self, image: Found) -> Metadata:
        found: Metadata = {}
        for stem in dict.fromkeys((self.key[1], image.stem)):
            for suffix, data in sorted(self._sidecars.get(stem, {}).items(), reverse=True):
                found |= _fields(suffix, data)
        return _storable(found)


def _json_error(data: bytes) -> LookalikeError | None:
    if len(data) > MAX_SIDECAR_BYTES:
        return InvalidParameter(f"The metadata beside the image is larger than {MAX_SIDECAR_BYTES} bytes.")
    try:
        good = isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        good = False
    return None if good else InvalidParameter("The metadata beside the image is not a JSON object.")


def _fields(suffix: str, data: bytes) -> Metadata:
    if suffix == "json":
        found: Metadata = {} if _json_error(data) else json.loads(data)
        return found
    text = data.decode(errors="replace").strip()
    if not text or len(text) > _MAX_TEXT_CHARS:
        return {}
    return {suffix: int(text) if suffix == "cls" and text.isdecimal() and len(text) < 19 else text}


def _storable(metadata: Metadata) -> Metadata:
    from lookalike.vectorstore.schema import check_metadata

    kept: dict[str, Any] = {}
    for name, value in metadata.items():
        try:
            check_metadata({name: value})
            check_metadata({**kept, name: value})
        except InvalidParameter:
            continue
        kept[name] = value
    return kept
