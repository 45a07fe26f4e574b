"""What uploads are called: their URIs, and where in an area a content's file lies."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

#: Those of `senders` are empty files that say who has sent which content; they have no URIs.
Area = Literal["images", "queries", "senders"]

UPLOAD_SCHEME: Final = "upload:"
QUERY_SCHEME: Final = "query:"
AREAS: Final[tuple[Area, ...]] = ("images", "queries")

_AREA_OF: Final[dict[str, Area]] = {UPLOAD_SCHEME: "images", QUERY_SCHEME: "queries"}
_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kept file, as a walk through its area finds it."""

    sha256: str
    size: int
    renewed_at: float  #: Seconds since the epoch: when it was last sent, or asked for by its hash.


def upload_uri(sha256: str) -> str:
    """Return the URI of an uploaded image."""
    return UPLOAD_SCHEME + sha256


def query_uri(sha256: str) -> str:
    """Return the URI of an uploaded query."""
    return QUERY_SCHEME + sha256


def make_uri(area: Area, sha256: str) -> str:
    """Return the URI of a file of an area."""
    return (UPLOAD_SCHEME if area == "images" else QUERY_SCHEME) + sha256


def is_sha256(text: str) -> bool:
    """Tell whether this is a SHA-256 as we write it, which is safe in a path."""
    return _SHA256.fullmatch(text) is not None


def parse_uri(uri: str) -> tuple[Area, str] | None:
    """Return the area and the hash that a URI names, or None where it is not the URI of an upload."""
    scheme, _, sha256 = uri.rpartition(":")
    area = _AREA_OF.get(scheme + ":")
    return (area, sha256) if area is not None and is_sha256(sha256) else None


def sender_mark(owner: str, sha256: str) -> str:
    """Return what the mark is called that an owner has sent a content: from it, neither of both can be learnt."""
    return hashlib.sha256(f"{owner}\n{sha256}".encode()).hexdigest()


def relative_path(sha256: str) -> str:
    """Return where in its area a content lies.

    Two levels of 256 folders keep each one small: a million uploads are 15 files in a folder.
    """
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
