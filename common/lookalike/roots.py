"""Roots: the folders this service may read, canonical URIs of files in them, and opening those without escape.

A request names a path; `resolve_folder` and `resolve_file` turn it into a real path under a root, or refuse. What the
rest of the service passes on is the canonical URI. `open` trusts no earlier check: a worker may open a file hours after
it was named, and anybody may have replaced a folder by a link since.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

from lookalike.errors import (
    FileEmpty,
    FileMissing,
    FileTooLarge,
    FolderNotFound,
    ImageError,
    InvalidFilename,
    InvalidPath,
    NotRegularFile,
    PermissionDenied,
)

FILE_SCHEME: Final = "file://"
MAX_URI_BYTES: Final = 4096  #: Fits a Milvus VARCHAR, and a path as long as the kernel takes.

#: O_PATH lets us pass through folders that may be entered but not listed; where it is missing they have to be readable.
_ENTER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: a pipe that was put in the file's place must not hold us up.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_BY_ERRNO: Final[dict[int, type[ImageError]]] = {
    errno.ENOENT: FileMissing,
    errno.ENOTDIR: FileMissing,
    errno.ESTALE: FileMissing,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.ELOOP: NotRegularFile,
    errno.EISDIR: NotRegularFile,
    errno.ENXIO: NotRegularFile,
    errno.EOPNOTSUPP: NotRegularFile,
    errno.ENAMETOOLONG: InvalidFilename,
}


def image_id(uri: str) -> str:
    """Return the id of the image with this canonical URI: 32 hex digits of BLAKE2b."""
    return hashlib.blake2b(uri.encode(), digest_size=16).hexdigest()


def file_uri(path: Path) -> str:
    """Return the canonical `file:///` URI of an absolute path, as `Path.as_uri` spells it; raises `InvalidFilename`."""
    name = os.fsencode(path)
    uri = FILE_SCHEME + quote_from_bytes(name)
    if not is_utf8(name) or len(uri) > MAX_URI_BYTES:
        raise InvalidFilename
    return uri


def file_path(uri: str) -> Path:
    """Return the path that `file_uri` made this URI of; raises `InvalidFilename` for anything it did not make."""
    name = unquote_to_bytes(uri.removeprefix(FILE_SCHEME))
    if not uri.startswith(FILE_SCHEME + "/") or b"\0" in name or not is_utf8(name):
        raise InvalidFilename("This is not the URI of a file that this service made.")
    path = Path(os.fsdecode(name))
    if ".." in path.parts or file_uri(path) != uri:
        raise InvalidFilename("This is not the URI of a file that this service made.")
    return path


def is_utf8(name: bytes) -> bool:
    """Tell whether a path can be written in JSON and shown to people."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def file_error(error: OSError) -> ImageError:
    """Translate what the operating system says of a file into the error tree, without its path."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        raise error  # It says nothing about this file.
    known = _BY_ERRNO.get(error.errno or 0)
    return known() if known else ImageError(f"The file could not be read: {os.strerror(error.errno or errno.EIO)}.")


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A regular file, open for reading. Its holder closes it, best by `with`."""

    fd: int
    size: int  #: Bytes, when it was opened.
    mtime_ns: int

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def read(self, *, max_bytes: int) -> bytes:
        """Return all its bytes; raises `FileEmpty`, `FileTooLarge`, and what `file_error` makes of a failing disk."""
        if self.size > max_bytes:
            raise FileTooLarge
        try:
            with open(self.fd, "rb", closefd=False) as file:
                # Python sets aside as many bytes as are asked for, so no more are than the file is thought to have.
                data = file.read(self.size + 1)
                if len(data) > self.size:  # It has grown since it was opened.
                    data += file.read(max_bytes + 1 - len(data))
        except OSError as error:
            raise file_error(error) from error
        if len(data) > max_bytes:
            raise FileTooLarge
        if not data:
            raise FileEmpty
        return data


def open_regular(name: str | Path, *, dir_fd: int | None = None) -> OpenedFile:
    """Open a regular file without following a link at its end, and without waiting for a pipe's writer."""
    try:
        # Looking first keeps us from opening devices, where opening alone can have effects.
        if not stat.S_ISREG(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise NotRegularFile
        fd = os.open(name, _READ, dir_fd=dir_fd)
    except OSError as error:
        raise file_error(error) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise NotRegularFile
    return OpenedFile(fd=fd, size=status.st_size, mtime_ns=status.st_mtime_ns)


class Roots:
    """The folders this service may read. Knows nothing of images, and echoes no real path in an error."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._named = tuple(Path(os.path.abspath(folder)) for folder in folders)  # noqa: PTH100 - resolve() follows links
        self._real = tuple(Path(os.path.realpath(folder)) for folder in self._named)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The roots' real paths."""
        return self._real

    def resolve_folder(self, path: str) -> Path:
        """Return the real path of a folder named relative to a root, or absolutely.

        Raises `InvalidPath` and `FolderNotFound`.
        """
        real = self._resolve(path)
        if self._root_of(real) is None:
            raise InvalidPath
        try:
            status = real.stat()
        except OSError as error:
            raise FolderNotFound from error
        if not stat.S_ISDIR(status.st_mode):
            raise FolderNotFound("This path names a file, not a folder. Name the folder it is in, or upload the file.")
        return real

    def resolve_file(self, path: str) -> str:
        """Return the canonical URI of a file named relative to a root, or absolutely.

        Raises `InvalidPath`, `FileMissing`, `NotRegularFile`, `PermissionDenied` and `InvalidFilename`.
        """
        real = self._resolve(path)
        if self._root_of(real) is None:
            raise NotRegularFile
        try:
            status = real.stat()
        except OSError as error:
            raise file_error(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularFile
        return file_uri(real)

    def open(self, uri: str) -> OpenedFile:
        """Open the file with this canonical URI, following no link below its root; raises `ImageError` classes."""
        path = file_path(uri)
        root = self._root_of(path)
        if root is None:
            raise PermissionDenied("This file is outside every root now. Start the service with --root for its folder.")
        *folders, name = path.relative_to(root).parts or (".",)
        try:
            with _entered(root, folders) as fd:
                return open_regular(name, dir_fd=fd)
        except OSError as error:
            raise file_error(error) from error

    def covers(self, real: Path) -> bool:
        """Tell whether a real path lies under a root."""
        return self._root_of(real) is not None

    def open_folder(self, real: Path) -> int:
        """Open a folder for listing by its real path, following no link below its root; raises `ImageError` classes."""
        root = self._root_of(real)
        if root is None:
            raise PermissionDenied("This folder is outside every root.")
        try:
            with _entered(root, real.relative_to(root).parts) as fd:
                return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        except OSError as error:
            raise file_error(error) from error

    def _root_of(self, real: Path) -> Path | None:
        return next((root for root in self._real if real.is_relative_to(root)), None)

    def _resolve(self, path: str) -> Path:
        """Follow a named path's links. What comes back may still be anywhere, and need not exist."""
        named = Path(path)
        if "\0" in path or ".." in named.parts or not is_utf8(path.encode(errors="surrogatepass")):
            raise InvalidPath
        if named.is_absolute():
            candidates = [named] if any(named.is_relative_to(root) for root in self._named + self._real) else []
        else:
            candidates = [root / named for root in self._real]
        if not candidates:
            raise InvalidPath
        # A relative path belongs to the first root that has something by that name.
        found = next((candidate for candidate in candidates if os.path.lexists(candidate)), candidates[0])
        return Path(os.path.realpath(found))


@contextmanager
def _entered(root: Path, folders: Sequence[str]) -> Iterator[int]:
    """Walk down from a root, one component at a time, so that no link can be slipped in behind a check."""
    fd = os.open(root, _ENTER)
    try:
        for folder in folders:
            fd = _step(fd, folder)
        yield fd
    finally:
        os.close(fd)


def _step(fd: int, folder: str) -> int:
    """Enter a folder and leave the one it is in, whose descriptor stays open where that fails."""
    try:
        inner = os.open(folder, _ENTER | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as error:
        # A link and a file both answer ENOTDIR on Linux; people are told apart what became of their folder.
        if error.errno == errno.ENOTDIR and stat.S_ISLNK(os.stat(folder, dir_fd=fd, follow_symlinks=False).st_mode):
            raise NotRegularFile from error
        raise
    os.close(fd)
    return inner
