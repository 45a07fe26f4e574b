"""Folders: their files, lazily, in one order that depends on names only, and resumable at any of them.

The order is depth first, each folder's entries by name. A cursor is a place in that order, so a listing goes on from
it whatever was added, removed or already listed meanwhile. Memory is bounded by `window` names per folder level: a
folder is read again for each window instead of being held whole.

What is skipped without a word: hidden names, files that no glob or image suffix takes, links to folders, and links to
files inside the listed folder, which are listed under their own names.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, islice
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from lookalike.errors import FolderNotFound, ImageError, InvalidFilename, NotRegularFile, PermissionDenied
from lookalike.listing.globs import Choice, Parts
from lookalike.listing.links import Links, leads_out, outside
from lookalike.listing.listed import Listed, printable, utf8
from lookalike.records import Metadata
from lookalike.roots import FILE_SCHEME, MAX_URI_BYTES, Roots, file_error

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LAST_NAME: Final = "\U0010ffff" * 256  # Sorts behind every name: none has more than 255 bytes.
_KEEP_EVERY_ENTRIES: Final = 256  # A slow disk takes less than a second for them.


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How a folder is listed."""

    recursive: bool = True
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    hidden: bool = False  #: Take names that begin with a dot, too.
    roots: Roots | None = None  #: Follow links to what lies under these; None follows none.
    label: bool = False  #: Give each file its parent folder's name as the metadata field `label`.
    stat: bool = False  #: Give size and time of each file.
    window: int = 65_536  #: Names of one folder that are held at a time; twice as many for a moment.


def list_folder(  # noqa: PLR0913 - each narrows or resumes the same listing
    folder: Path,
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    hidden: bool = False,
    roots: Roots | None = None,
    after: str | None = None,
) -> Iterator[Listed]:
    """List the files of a folder, given by its real path, behind the cursor `after`: `walk_folder` in few words."""
    options = FolderOptions(recursive=recursive, include=include, exclude=exclude, hidden=hidden, roots=roots)
    return walk_folder(folder, options, after=after)


def walk_folder(
    folder: Path, options: FolderOptions, *, after: str | None = None, keep: Callable[[], None] = lambda: None
) -> Iterator[Listed]:
    """List the files of a folder, given by its real path, behind the cursor `after`.

    With no `include`, `IMAGE_SUFFIXES` are taken; `exclude` wins, and prunes whole folders too. Raises
    `FolderNotFound` and `PermissionDenied` for the folder itself; a folder below it that cannot be read is listed with
    its error. `keep` is called while folders are read, however little is found in them.
    """
    walk = _Walk(folder, options, keep)
    behind = [] if after is None else _place(after)
    try:
        # Which files were found through links before the cursor has to be known behind it, so those are met again.
        walk.begin([] if options.roots else behind)
        for listed in walk:
            if behind and options.roots and _place(listed.cursor)[: len(behind)] <= behind:
                continue
            yield listed
    finally:
        walk.close()


def _place(cursor: str) -> list[str]:
    return [os.fsdecode(unquote_to_bytes(part)) for part in cursor.split("/")]


class _Kind(IntEnum):
    FILE = 0
    FOLDER = 1
    LINK = 2
    FOLDER_LINK = 3
    OTHER = 4  # A pipe, a device, a socket.


@dataclass(slots=True)
class _Level:
    """One folder on the way down to where the walk stands."""

    fd: int
    parts: Parts  # Of the way that led here, by links too.
    real: str
    uri: str
    cursor: str  # What its entries' cursors begin with.
    utf8: bool
    linked: bool  # Reached through a link, so that others may lead here as well.
    entries: Iterator[tuple[str, _Kind]] = field(default_factory=lambda: iter(()))
    metadata: Metadata = field(default_factory=dict)


class _Walk:
    """A depth-first walk with a stack of its own: folders can lie deeper than Python recurses.

    Each level keeps its folder open and steps down by `dir_fd` without following links, so that a folder that becomes
    a link in mid-walk cannot lead out.
    """

    def __init__(self, folder: Path, options: FolderOptions, keep: Callable[[], None]) -> None:
        self._folder = folder
        self._options = options
        self._choice = Choice(
            recursive=options.recursive, include=options.include, exclude=options.exclude, hidden=options.hidden
        )
        self._links = Links(options.roots, folder, self._choice) if options.roots else None
        self._keep = keep
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
        real = str(self._folder)
        self._push(_Level(fd, (), real.rstrip("/"), _uri(real), "", utf8(real), linked=False))

    def close(self) -> None:
        """Close the folders that are open."""
        while self._levels:
            os.close(self._levels.pop().fd)
        if self._links:
            self._links.close()

    def __iter__(self) -> Iterator[Listed]:
        while self._levels:
            level = self._levels[-1]
            try:
                entry = next(level.entries, None)
                # Most entries are files, so they are dealt with in a loop of their own.
                while entry is not None and entry[1] is _Kind.FILE:
                    if not level.linked or self._is_new(level, entry[0]):
                        yield self._file(level, entry[0])
                    entry = next(level.entries, None)
            except OSError as error:
                name = printable(level.parts[-1] if level.parts else self._folder.name)
                yield Listed(level.uri, name, level.cursor.rstrip("/"), file_error(error))
                entry = None
            if entry is None:
                os.close(self._levels.pop().fd)
                continue
            if listed := self._odd(level, *entry):
                yield listed

    def _file(self, level: _Level, name: str) -> Listed:
        """List a regular file, which is looked at once more where its size is asked for."""
        quoted = quote_from_bytes(os.fsencode(name))
        uri, cursor = f"{level.uri}/{quoted}", level.cursor + quoted
        if not (level.utf8 and utf8(name)) or len(uri) > MAX_URI_BYTES:
            return Listed(uri, printable(name), cursor, InvalidFilename())
        if not self._options.stat:
            return Listed(uri, name, cursor, metadata=level.metadata)
        try:
            status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        except OSError as error:
            return Listed(uri, name, cursor, file_error(error))
        if not stat.S_ISREG(status.st_mode):
            return Listed(uri, name, cursor, NotRegularFile())
        return Listed(uri, name, cursor, None, status.st_size, status.st_mtime_ns, "", level.metadata)

    def _odd(self, level: _Level, name: str, kind: _Kind) -> Listed | None:
        """Deal with what is no regular file: enter a folder, follow a link, or return what to tell of it."""
        quoted = quote_from_bytes(os.fsencode(name))
        uri, cursor = f"{level.uri}/{quoted}", level.cursor + quoted
        try:
            if kind is _Kind.FOLDER:
                self._enter(level, name, uri, cursor)
                return None
            if not (level.utf8 and utf8(name)) or len(uri) > MAX_URI_BYTES:
                raise InvalidFilename
            if kind is _Kind.OTHER:
                raise NotRegularFile
            if self._links is None:
                raise outside()
            return self._follow(level, name, cursor, folder=kind is _Kind.FOLDER_LINK)
        except ImageError as error:
            return Listed(uri, printable(name), cursor, error)

    def _enter(self, level: _Level, name: str, uri: str, cursor: str) -> None:
        """Step down into a folder, unless it is gone; raises `ImageError` classes where it cannot be read."""
        if level.linked and not self._is_new(level, name):
            return
        try:
            fd = os.open(name, _OPEN_FOLDER, dir_fd=level.fd)
        except (FileNotFoundError, NotADirectoryError):
            self._behind = []
            return
        except OSError as error:
            self._behind = []
            raise file_error(error) from error
        real, well_named = f"{level.real}/{name}", level.utf8 and utf8(name)
        self._push(_Level(fd, (*level.parts, name), real, uri, cursor + "/", well_named, level.linked))

    def _follow(self, level: _Level, name: str, cursor: str, *, folder: bool) -> Listed | None:
        """List the file that a link leads to, or step into its folder; raises `ImageError` classes."""
        links = self._links
        real = links.real(f"{level.real}/{name}", folder=folder) if links else None
        if links is None or real is None:
            return None
        uri, well_named = _uri(real), utf8(real)
        if folder:
            fd = links.open_folder(real)
            self._push(_Level(fd, (*level.parts, name), real.rstrip("/"), uri, cursor + "/", well_named, linked=True))
            return None
        if not well_named or len(uri) > MAX_URI_BYTES:
            raise InvalidFilename
        try:
            status = os.lstat(real)
        except OSError as error:
            raise file_error(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularFile
        return Listed(uri, name, cursor, None, status.st_size, status.st_mtime_ns, "", level.metadata)

    def _is_new(self, level: _Level, name: str) -> bool:
        return self._links is None or self._links.is_new(f"{level.real}/{name}")

    def _push(self, level: _Level) -> None:
        self._keep()
        after, self._behind = self._behind[:1], self._behind[1:]
        level.entries = self._windows(level, after[0] if after else "")
        if self._behind:  # The place to go on behind lies in that folder.
            level.entries = chain([(after[0], _Kind.FOLDER)], level.entries)
        if self._options.label:
            level.metadata = {"label": printable(level.parts[-1] if level.parts else self._folder.name)}
        self._levels.append(level)

    def _windows(self, level: _Level, after: str) -> Iterator[tuple[str, _Kind]]:
        while True:
            entries = self._smallest(level, after)
            yield from entries
            if len(entries) < self._options.window:
                return
            after = entries[-1][0]

    def _smallest(self, level: _Level, after: str) -> list[tuple[str, _Kind]]:
        """Return the first entries behind `after`, as many as a window holds."""
        window = self._options.window
        kept: list[tuple[str, _Kind]] = []
        last = _LAST_NAME
        with os.scandir(level.fd) as entries:
            while batch := list(islice(entries, _KEEP_EVERY_ENTRIES)):
                self._keep()
                for entry in batch:
                    # A folder of a million files passes here sixteen million times, so most have to leave at this line.
                    if not after < entry.name <= last:
                        continue
                    kind = self._kind(level, entry)
                    if kind is not None:
                        kept.append((entry.name, kind))
                        if len(kept) == 2 * window:
                            kept.sort()
                            del kept[window:]
                            last = kept[-1][0]
        kept.sort()
        return kept[:window]

    def _kind(self, level: _Level, entry: os.DirEntry[str]) -> _Kind | None:
        """Tell what an entry is; None for what is not wanted."""
        # The kind comes with the folder's entry; asking for the file's status would cost far more.
        parts, name = level.parts, entry.name
        if entry.is_file(follow_symlinks=False):
            return _Kind.FILE if self._choice.takes_file(parts, name) else None
        if entry.is_dir(follow_symlinks=False):
            return _Kind.FOLDER if self._choice.takes_folder(parts, name) else None
        if not entry.is_symlink():
            return _Kind.OTHER if self._choice.takes_file(parts, name) else None
        if self._links and _leads_to_folder(entry):
            return _Kind.FOLDER_LINK if self._choice.takes_folder(parts, name) else None
        wanted = self._choice.takes_file(parts, name)
        if wanted and (self._links or leads_out(f"{level.real}/{name}", self._folder)):
            return _Kind.LINK
        return None


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:  # It leads in a circle, or through a file. Following it says so.
        return False


def _uri(real: str) -> str:
    return FILE_SCHEME + quote_from_bytes(os.fsencode(real)).rstrip("/")
