"""Listing: the files of a folder, lazily, in one order that depends on names only, and resumable at any of them.

The order is depth first, each folder's entries by name. A cursor is a place in that order, so a listing goes on from
it whatever was added, removed or already listed meanwhile. Memory is bounded by `window` names per folder level: a
folder is read again for each window instead of being held whole. Knows nothing of roots: its caller resolved it.

What is skipped without a word: names that begin with a dot, files that no glob or image suffix takes, links to folders,
and links to files inside the listed folder, which are listed under their own names.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from lookalike.errors import FolderNotFound, ImageError, InvalidFilename, NotRegularFile, PermissionDenied
from lookalike.roots import FILE_SCHEME, MAX_URI_BYTES, file_error, is_utf8

#: Suffixes that are taken where no `include` glob is given.
IMAGE_SUFFIXES: Final = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"}
    # Not decoded by this service. They are listed nevertheless, so that they end in the ledger as `unsupported_format`
    # and do not vanish. By content, that is: a JPEG named .tif is welcome.
    | {"tif", "tiff", "heic", "heif", "avif", "svg", "psd", "ico", "eps", "jp2"}
)

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_LAST_NAME: Final = "\U0010ffff" * 256  # Sorts behind every name: none has more than 255 bytes.

Parts = tuple[str, ...]  # A path relative to the listed folder.


@dataclass(frozen=True, slots=True)
class Listed:
    """One file found, or one thing that cannot be listed."""

    uri: str  #: Canonical where `error` is None.
    name: str  #: The last part of its path, printable.
    cursor: str  #: Listing after this goes on behind it. ASCII.
    error: ImageError | None = None


def list_folder(  # noqa: PLR0913 - each narrows or resumes the same listing
    folder: Path,
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    after: str | None = None,
    window: int = 65_536,
    on_folder: Callable[[], None] = lambda: None,
) -> Iterator[Listed]:
    """List the files of a folder, given by its real path, behind the cursor `after`.

    Globs compare with the name, or, where they hold a `/`, with the path relative to the folder, in which `**` stands
    for any number of folders. They ignore case, since cameras write `.JPG`. With no `include`, `IMAGE_SUFFIXES` are
    taken; `exclude` wins, and prunes whole folders too. Raises `FolderNotFound` and `PermissionDenied` for the folder
    itself; a folder below it that cannot be read is listed with its error. `on_folder` is called for each folder that
    is entered, so that a long walk past files that nobody asked for can show progress.
    """
    walk = _Walk(folder, _Choice(recursive, include, exclude), window, on_folder)
    try:
        walk.begin([] if after is None else [os.fsdecode(unquote_to_bytes(part)) for part in after.split("/")])
        yield from walk
    finally:
        walk.close()


class _Kind(IntEnum):
    FILE = 0
    FOLDER = 1
    LINK = 2
    OTHER = 3  # A pipe, a device, a socket.


@dataclass(slots=True)
class _Level:
    """One folder on the way down to where the walk stands."""

    fd: int
    parts: Parts
    uri: str
    cursor: str  # What its entries' cursors begin with.
    utf8: bool
    entries: Iterator[tuple[str, _Kind]]


class _Walk:
    """A depth-first walk with a stack of its own: folders can lie deeper than Python recurses.

    Each level keeps its folder open and steps down by `dir_fd` without following links, so that a folder that becomes
    a link in mid-walk cannot lead out.
    """

    def __init__(self, folder: Path, choice: "_Choice", window: int, on_folder: Callable[[], None]) -> None:
        self._folder = folder
        self._on_folder = on_folder
        self._choice = choice
        self._window = window
        self._levels: list[_Level] = []
        self._behind: list[str] = []  # What is left of the cursor's path on the way down to it.

    def begin(self, behind: list[str]) -> None:
        """Open the top folder, to go on behind this path."""
        try:
            fd = os.open(self._folder, _OPEN_FOLDER)
        except PermissionError as error:
            raise PermissionDenied("The service may not list this folder. Give its user the right to.") from error
        except OSError as error:
            raise FolderNotFound from error
        self._behind = behind
        name = os.fsencode(self._folder)
        self._push(fd, (), FILE_SCHEME + quote_from_bytes(name).rstrip("/"), "", is_utf8(name))

    def close(self) -> None:
        """Close the folders that are open."""
        while self._levels:
            os.close(self._levels.pop().fd)

    def __iter__(self) -> Iterator[Listed]:
        while self._levels:
            level = self._levels[-1]
            try:
                entry = next(level.entries, None)
            except OSError as error:
                name = _printable(level.parts[-1] if level.parts else self._folder.name)
                yield Listed(level.uri, name, level.cursor.rstrip("/"), file_error(error))
                entry = None
            if entry is None:
                os.close(self._levels.pop().fd)
                continue
            name, kind = entry
            quoted = quote_from_bytes(os.fsencode(name))
            uri, cursor = f"{level.uri}/{quoted}", level.cursor + quoted
            objection = (
                self._enter(level, name, uri, cursor)
                if kind is _Kind.FOLDER
                else _objection(kind, uri, utf8=level.utf8 and _is_utf8(name))
            )
            if kind is not _Kind.FOLDER or objection:
                yield Listed(uri, _printable(name), cursor, objection)

    def _enter(self, level: _Level, name: str, uri: str, cursor: str) -> ImageError | None:
        """Step down into a folder; returns why not, or None where it is gone."""
        try:
            fd = os.open(name, _OPEN_FOLDER, dir_fd=level.fd)
        except OSError as error:
            self._behind = []
            vanished = isinstance(error, (FileNotFoundError, NotADirectoryError))
            return None if vanished else file_error(error)
        self._push(fd, (*level.parts, name), uri, cursor + "/", level.utf8 and _is_utf8(name))
        return None

    def _push(self, fd: int, parts: Parts, uri: str, cursor: str, utf8: bool) -> None:
        self._on_folder()
        after, self._behind = self._behind[:1], self._behind[1:]
        entries = self._windows(fd, parts, after[0] if after else "")
        if self._behind:  # The place to go on behind lies in that folder.
            entries = chain([(after[0], _Kind.FOLDER)], entries)
        self._levels.append(_Level(fd, parts, uri, cursor, utf8, entries))

    def _windows(self, fd: int, parts: Parts, after: str) -> Iterator[tuple[str, _Kind]]:
        while True:
            entries = self._smallest(fd, parts, after)
            yield from entries
            if len(entries) < self._window:
                return
            after = entries[-1][0]

    def _smallest(self, fd: int, parts: Parts, after: str) -> list[tuple[str, _Kind]]:
        """Return the first entries behind `after`, as many as a window holds."""
        kept: list[tuple[str, _Kind]] = []
        last = _LAST_NAME
        with os.scandir(fd) as entries:
            for entry in entries:
                # A folder of a million files passes here sixteen million times, so most have to leave at this line.
                if not after < entry.name <= last:
                    continue
                kind = _kind(entry)
                if self._choice.takes(parts, entry.name, kind) and (
                    kind is not _Kind.LINK or self._leads_out(parts, entry.name)
                ):
                    kept.append((entry.name, kind))
                    if len(kept) == 2 * self._window:
                        kept.sort()
                        del kept[self._window :]
                        last = kept[-1][0]
        kept.sort()
        return kept[: self._window]

    def _leads_out(self, parts: Parts, name: str) -> bool:
        """Tell whether a link is to a file outside the listed folder."""
        target = Path(os.path.realpath(self._folder.joinpath(*parts, name)))
        return not target.is_relative_to(self._folder) and not target.is_dir()


def _kind(entry: os.DirEntry[str]) -> _Kind:
    # It comes with the folder's entry; asking for the file's status would cost far more.
    if entry.is_file(follow_symlinks=False):
        return _Kind.FILE
    if entry.is_dir(follow_symlinks=False):
        return _Kind.FOLDER
    return _Kind.LINK if entry.is_symlink() else _Kind.OTHER


def _objection(kind: _Kind, uri: str, *, utf8: bool) -> ImageError | None:
    if not utf8 or len(uri) > MAX_URI_BYTES:
        return InvalidFilename()
    if kind is _Kind.LINK:
        return NotRegularFile("This is a link that leads out of the folder; such links are not followed.")
    return None if kind is _Kind.FILE else NotRegularFile()


def _is_utf8(name: str) -> bool:
    return name.isascii() or is_utf8(os.fsencode(name))


def _printable(name: str) -> str:
    return name if name.isascii() else os.fsencode(name).decode(errors="replace")


# --- Globs ----------------------------------------------------------------------------------------------------------


class _Choice:
    """Which entries of a folder are listed, or entered."""

    def __init__(self, recursive: bool, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._recursive = recursive
        self._include = [_glob(pattern) for pattern in include]
        self._exclude = [_glob(pattern) for pattern in exclude]

    def takes(self, parts: Parts, name: str, kind: _Kind) -> bool:
        if name.startswith("."):
            return False
        if kind is _Kind.FOLDER:
            wanted = self._recursive
        elif self._include:
            path = (*parts, name)
            wanted = any(matches(path) for matches in self._include)
        else:
            _, dot, suffix = name.rpartition(".")
            wanted = bool(dot) and suffix.lower() in IMAGE_SUFFIXES
        return wanted and not (self._exclude and any(matches((*parts, name)) for matches in self._exclude))


def _glob(pattern: str) -> Callable[[Parts], bool]:
    """Compile a glob to a test of a relative path."""
    if "/" not in pattern:
        fits = _name_glob(pattern)
        return lambda parts: fits(parts[-1])
    steps = [None if step == "**" else _name_glob(step) for step in pattern.strip("/").split("/")]

    def open_after(place: int) -> Iterator[int]:
        yield place
        while place < len(steps) and steps[place] is None:
            place += 1
            yield place

    def matches(parts: Parts) -> bool:
        # All ways to match are followed side by side: going back would take for ever on a hostile glob.
        places = set(open_after(0))
        for part in parts:
            reached: set[int] = set()
            for place in places:
                if place < len(steps):
                    step = steps[place]
                    if step is None:
                        reached.update(open_after(place))
                    elif step(part):
                        reached.update(open_after(place + 1))
            places = reached
        return len(steps) in places

    return matches


def _name_glob(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(fnmatch.translate(pattern), re.IGNORECASE)
    return lambda name: compiled.match(name) is not None
