"""What a source is that somebody named: a folder, an image, an archive, a manifest, here or elsewhere."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lookalike.errors import InvalidURL

ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
MANIFEST_SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".pq")
_WEB: Final = ("http", "https")
_STORES: Final = ("s3", "gs")


class Kind(StrEnum):
    """What a source holds."""

    IMAGE = "image"
    FOLDER = "folder"
    ARCHIVE = "archive"
    MANIFEST = "manifest"
    OBJECTS = "objects"  #: A prefix of an object store.


@dataclass(frozen=True, kw_only=True)
class Place:
    """A named source: at an address, or at a path that may be here or under a root of the service."""

    kind: Kind
    url: str | None = None
    path: Path | None = None
    is_here: bool = False  #: Whether there is something at the path on this machine.


def place_of(named: str | Path) -> Place:
    """Tell what a source is by how it is named, and, at a path of this machine, by what is there.

    Raises `InvalidURL` for an address of a kind that no service reads.
    """
    text = str(named)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme in _STORES:
        return Place(kind=Kind.OBJECTS, url=text)
    if scheme in _WEB:
        return Place(kind=_by_name(urlsplit(text).path, other=Kind.IMAGE), url=text)
    path = Path(named)
    if not path.exists():
        if scheme:
            raise InvalidURL(f"{text} is none of a path, http://, https://, s3:// and gs://.")
        # Of a path that is only the service's, the name is all there is to go by.
        return Place(kind=_by_name(text, other=Kind.FOLDER), path=path)
    kind = Kind.FOLDER if path.is_dir() else _by_name(text, other=Kind.IMAGE)
    return Place(kind=kind, path=path, is_here=True)


def _by_name(name: str, *, other: Kind) -> Kind:
    lower = name.lower()
    if lower.endswith(ARCHIVE_SUFFIXES):
        return Kind.ARCHIVE
    return Kind.MANIFEST if lower.endswith(MANIFEST_SUFFIXES) else other
