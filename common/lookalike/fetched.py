"""Fetched files: where the copies of remote images lie on this machine, and how they are opened.

A copy is named after its image's id, `fetched:<32 hex digits>`. Whoever fetches writes it (`lookalike.remote`); the
decoder's child reads it, so this module imports nothing that talks to a network. Any copy may vanish at any time: it is
fetched again where it is needed.
"""

import re
from pathlib import Path
from typing import Final

from lookalike.errors import FileMissing
from lookalike.roots import OpenedFile, image_id, open_regular

FETCHED_SCHEME: Final = "fetched:"
FETCHED_AREA: Final = "fetched"  #: The folder in the upload folder that copies lie in.

_ID: Final = re.compile("[0-9a-f]{32}")


def fetched_uri(uri: str) -> str:
    """Return the URI of the copy of a remote image, by the image's own canonical URI."""
    return FETCHED_SCHEME + image_id(uri)


def fetched_path(folder: Path, uri: str) -> Path:
    """Return the place of the copy with this `fetched:` URI; raises `FileMissing` for anything else."""
    name = uri.removeprefix(FETCHED_SCHEME)
    if not uri.startswith(FETCHED_SCHEME) or not _ID.fullmatch(name):
        raise FileMissing("There is no copy with this URI.")
    # Two levels of 256 folders keep each one small.
    return folder / name[:2] / name[2:4] / name


def open_fetched(folder: Path, uri: str) -> OpenedFile:
    """Open a copy; raises `FileMissing` where it is not there, or not any more. The caller closes it."""
    return open_regular(fetched_path(folder, uri))
