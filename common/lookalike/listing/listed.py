"""One thing that a listing found, and what tells an image by its name."""

import os
import re
from dataclasses import dataclass, field
from typing import Final

from lookalike.errors import LookalikeError
from lookalike.records import Metadata
from lookalike.roots import is_utf8

#: Suffixes that are taken where no `include` glob is given.
IMAGE_SUFFIXES: Final = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"}
    # Not decoded by this service. They are listed nevertheless, so that they end in the ledger as `unsupported_format`
    # and do not vanish. By content, that is: a JPEG named .tif is welcome.
    | {"tif", "tiff", "heic", "heif", "avif", "svg", "psd", "ico", "eps", "jp2"}
)

MAX_NAME_CHARS: Final = 1024  #: Of a label; what is longer keeps its end, which tells more than its beginning.


_HALVES: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # Surrogates that stand for no byte of a file name.


@dataclass(frozen=True, slots=True)
class Listed:
    """One file found, or one thing that cannot be listed."""

    uri: str  #: Canonical where `error` is None.
    name: str  #: The last part of its path, or the name it was given; printable.
    cursor: str  #: Listing after this goes on behind it. ASCII.
    error: LookalikeError | None = None
    size: int | None = None  #: Bytes, where the listing knows them.
    mtime_ns: int | None = None
    etag: str = ""  #: Of a remote file, where its store gives one.
    metadata: Metadata = field(default_factory=dict)  #: Of this file alone. Shared between files: not to be changed.


def has_image_suffix(name: str) -> bool:
    """Tell whether a file's name ends as an image's does."""
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and suffix.lower() in IMAGE_SUFFIXES


def utf8(name: str) -> bool:
    """Tell whether a name, as the operating system gave it, is UTF-8."""
    return name.isascii() or is_utf8(os.fsencode(name))


def printable(name: str) -> str:
    """Return a name, as the operating system gave it, in a form that JSON can hold."""
    return name if name.isascii() else name.encode(errors="surrogateescape").decode(errors="replace")


def label(name: str) -> str:
    """Return a name that its sender chose as a label that can be stored."""
    return printable(_HALVES.sub("\ufffd", name.replace("\0", "")))[-MAX_NAME_CHARS:]
