"""Tar archives, plain or gzipped, read from the beginning to the end as a stream."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Final, Self, cast

from lookalike.errors import ArchiveInvalid, SourceUnavailable
from lookalike.listing.members import BLOCK_BYTES, Limits, Member, MemberKind, Meter
from lookalike.listing.stores import Keep

GZIP_MAGIC: Final = b"\x1f\x8b"

#: Of one member: its name, times and attributes. tarfile reads them whole, and parses them in time that grows with
#: the square of their length in some versions of Python.
_MAX_HEADER_BYTES: Final = 64 << 10


def tar_members(file: BinaryIO, *, packed: bool, first: int, limits: Limits, keep: Keep) -> Iterator[Member]:
    """Yield the members of a tar from number `first` on; raises `ArchiveInvalid` and `ArchiveTooLarge`."""
    stream = _Unpacked(file, packed, limits, keep)
    with _translated():
        # It counts as a file: tarfile uses three of a file's methods.
        tar = tarfile.TarFile(fileobj=cast("IO[bytes]", stream), tarinfo=_StrictInfo)
    number = -1
    # The constructor reads the first member, and keeps it for `next`.
    while (info := _next(tar, stream)) is not None:
        number += 1
        stream.meter.count(number)
        if info.issparse():  # Its holes are not in the archive, and as many bytes as it likes when it is read.
            stream.meter.add(max(0, info.size))
        if number >= first:
            yield Member(number, info.name, _kind(info), info.size, lambda info=info: _TarData(tar, info))  # type: ignore[misc]


def _next(tar: tarfile.TarFile, stream: "_Unpacked") -> tarfile.TarInfo | None:
    # tarfile keeps what it has read for a second pass; there is none, and there may be millions.
    tar.members.clear()  # type: ignore[attr-defined] # typeshed does not know it.
    tar.pax_headers = {}
    stream.header_bytes = 0
    with _translated():
        info = tar.next()
    stream.header_bytes = None
    return info


def _kind(info: tarfile.TarInfo) -> MemberKind:
    if info.isreg():
        return MemberKind.FILE
    return MemberKind.FOLDER if info.isdir() else MemberKind.OTHER


class _StrictInfo(tarfile.TarInfo):
    """Makes an error of a header that tarfile takes for the end: a cut-off archive must not look like a whole one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # A block of zeros: the real end.
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _Unpacked:
    """The unpacked bytes of a tar. It only goes forward."""

    def __init__(self, file: BinaryIO, packed: bool, limits: Limits, keep: Keep) -> None:
        self._file = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        self._packed = packed
        self._keep = keep
        self._position = 0
        self.meter = Meter(limits, file.tell)
        self.header_bytes: int | None = 0  # Read of the header in hand; None while a member's data is read.

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if not self._packed:
            self._keep()
            self._file.seek(position)
            self._move(position - self._position)
        while self._position < position:
            if not self._read(min(BLOCK_BYTES, position - self._position)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        if self.header_bytes is not None:
            self.header_bytes += size
            if self.header_bytes > _MAX_HEADER_BYTES:
                raise tarfile.ReadError("a header is too long")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        self._keep()
        data = self._file.read(size)
        self._move(len(data))
        return data

    def _move(self, change: int) -> None:
        self._position += change
        # What is not packed cannot be larger than it is.
        if self._packed or change > 0:
            self.meter.add(change)


class _TarData:
    """What one member holds."""

    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        with _translated():
            self._file = tar.extractfile(info)

    def read(self, size: int, /) -> bytes:
        with _translated():
            return self._file.read(min(size, BLOCK_BYTES)) if self._file else b""


@contextmanager
def _translated() -> Iterator[None]:
    """Make `ArchiveInvalid` of everything that damage looks like."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise ArchiveInvalid from error
    except OSError as error:
        raise SourceUnavailable("The disk the archive lies on does not answer.") from error
