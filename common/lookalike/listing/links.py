"""Links: where those in a listed folder lead, where a listing is asked to follow them.

A file is listed once, under its own canonical URI. What the walk lists anyway, under its own name, is not listed
through a link; what lies elsewhere is listed at the first link to it, and a folder is entered at the first link that
leads to it. So no loop is walked, and folders that link to each other in many ways are not walked in as many.
"""

import os
import sqlite3
from pathlib import Path

from lookalike.errors import ImageError, NotRegularFile
from lookalike.listing.globs import Choice
from lookalike.roots import Roots, file_error

_LEADS_OUT = "This link leads out of the folders that this service may read; such links are not followed."


class Links:
    """Decides about the links of one listing."""

    def __init__(self, roots: Roots, top: Path, choice: Choice) -> None:
        self._roots = roots
        self._top = top
        self._choice = choice
        self._seen = _Seen()
        self._seen.add(str(top))

    def close(self) -> None:
        """Forget what was seen."""
        self._seen.close()

    def real(self, place: str, *, folder: bool) -> str | None:
        """Return the real path of what a link at `place` leads to; None where it is listed elsewhere.

        Raises `NotRegularFile` for what lies outside the roots, and what `file_error` makes of a link to nothing.
        """
        try:
            real = os.path.realpath(place, strict=True)
        except OSError as error:
            raise file_error(error) from error
        path = Path(real)
        if not self._roots.covers(path):
            raise NotRegularFile(_LEADS_OUT)
        if path.is_relative_to(self._top):
            parts = path.relative_to(self._top).parts
            if self._choice.reaches_folder(parts) if folder else self._choice.reaches_file(parts):
                return None
        return real if self.is_new(real) else None

    def is_new(self, real: str) -> bool:
        """Tell whether a file or folder that was reached through a link is met for the first time."""
        return self._seen.add(real)

    def open_folder(self, real: str) -> int:
        """Open a folder by its real path, following no link on the way; raises `ImageError` classes."""
        return self._roots.open_folder(Path(real))


class _Seen:
    """Paths, on disk once they are many: farms of a million links exist, and memory is to stay flat."""

    def __init__(self) -> None:
        # SQLite's unnamed database is a temporary file that it begins when its small cache is full.
        self._paths = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._paths.execute("PRAGMA journal_mode = OFF")
        self._paths.execute("PRAGMA synchronous = OFF")
        self._paths.execute("CREATE TABLE paths (path BLOB PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        self._paths.close()

    def add(self, path: str) -> bool:
        added = self._paths.execute("INSERT OR IGNORE INTO paths VALUES (?)", (os.fsencode(path),))
        return added.rowcount == 1


def leads_out(place: str, top: Path) -> bool:
    """Tell whether a link is to a file outside the listed folder."""
    target = Path(os.path.realpath(place))
    return not target.is_relative_to(top) and not target.is_dir()


def outside() -> ImageError:
    """Return what becomes of a link out of the folder where links are not followed."""
    return NotRegularFile("This is a link that leads out of the folder; such links are not followed.")
