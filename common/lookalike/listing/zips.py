"""Zip archives, member by member.

The directory at the archive's end is read as it is needed and never held: `zipfile` would take gigabytes for millions
of members. An archive without one was cut off; its members are read from the beginning then, as far as they go.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from lookalike.errors import ArchiveInvalid, UnsupportedFormat
from lookalike.listing.members import BLOCK_BYTES, Limits, Member, MemberKind, Meter
from lookalike.listing.stores import Keep
from lookalike.uploads import Stream

# APPNOTE.TXT of PKWARE, version 6.3.10: 4.3.7, 4.3.12, 4.3.14 to 4.3.16.
ZIP_MAGIC: Final = b"PK\x03\x04"
EMPTY_ZIP_MAGIC: Final = b"PK\x05\x06"
_DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
_ENTRY_MAGIC: Final = b"PK\x01\x02"
_END64_MAGIC: Final = b"PK\x06\x06"
_LOCATOR_MAGIC: Final = b"PK\x06\x07"
_LOCAL: Final = struct.Struct("<4sHHHLLLLHH")
_ENTRY: Final = struct.Struct("<4sHHHHLLLLHHHHHLL")
_END: Final = struct.Struct("<4sHHHHLLH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQHHLLQQQQ")

_MAX_COMMENT_BYTES: Final = 65_535
_ENCRYPTED: Final = 1 << 0
_DESCRIBED: Final = 1 << 3  # Sizes and checksum follow the data.
_UTF8: Final = 1 << 11
_STORED, _DEFLATED = 0, 8
_UNIX: Final = 3
_FORMAT_BITS, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000
_FULL32: Final = 0xFFFFFFFF  # The real value stands in the zip64 field.


@dataclass(frozen=True, slots=True)
class _Entry:
    """What an archive says of one member."""

    raw_name: bytes
    flags: int
    method: int
    crc: int | None  # None where it follows the data.
    packed: int | None
    size: int | None
    offset: int  # Of the local header.
    mode: int = 0  # Of Unix; 0 where it is not known.

    @property
    def name(self) -> str:
        return self.raw_name.decode("utf-8" if self.flags & _UTF8 else "cp437", errors="replace")

    @property
    def kind(self) -> MemberKind:
        format_ = self.mode & _FORMAT_BITS
        if self.raw_name.endswith(b"/") or format_ == _FOLDER:
            return MemberKind.FOLDER
        if format_ not in (0, _REGULAR):
            return MemberKind.OTHER
        return MemberKind.ENCRYPTED if self.flags & _ENCRYPTED else MemberKind.FILE


def zip_members(file: BinaryIO, *, first: int, limits: Limits, keep: Keep) -> Iterator[Member]:
    """Yield the members of a zip from number `first` on; raises `ArchiveInvalid` and `ArchiveTooLarge`."""
    archive_bytes = os.fstat(file.fileno()).st_size
    meter = Meter(limits, lambda: archive_bytes)
    directory = _find_directory(file, archive_bytes)
    members = _listed(file, directory, meter) if directory else _scanned(file, meter)
    for member in members:
        keep()
        meter.count(member.number)
        meter.add(member.size or 0)
        if member.number >= first:
            yield member


# --- By the directory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int  # Where it really begins.
    count: int
    shift: int  # What all its offsets are off by, where something was put in front of the archive.


def _find_directory(file: BinaryIO, archive_bytes: int) -> _Directory | None:
    """Find the directory by the record at the archive's end; None where there is no such record."""
    tail_at = max(0, archive_bytes - _END.size - _MAX_COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read()
    found = tail.rfind(EMPTY_ZIP_MAGIC, 0, len(tail) - _END.size + len(EMPTY_ZIP_MAGIC))
    if found < 0:
        return None
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, found)
    end = tail_at + found
    if end >= _LOCATOR.size:
        file.seek(end - _LOCATOR.size)
        magic, _, end64, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if magic == _LOCATOR_MAGIC:
            end -= _LOCATOR.size + _END64.size
            file.seek(min(end64, archive_bytes))
            record = file.read(_END64.size)
            if len(record) < _END64.size or record[:4] != _END64_MAGIC:
                raise ArchiveInvalid("The archive's directory is damaged.")
            _, _, _, _, _, _, _, count, size, offset = _END64.unpack(record)
    shift = end - size - offset
    if shift < 0:
        raise ArchiveInvalid("The archive's directory is damaged.")
    return _Directory(offset + shift, count, shift)


def _listed(file: BinaryIO, directory: _Directory, meter: Meter) -> Iterator[Member]:
    place = directory.offset
    for number in range(directory.count):
        file.seek(place)
        entry, length = _read_entry(file)
        place += length
        yield Member(
            number,
            entry.name,
            entry.kind,
            entry.size,
            lambda entry=entry: _open(file, entry, directory.shift, meter),  # type: ignore[misc]
            alone=True,
        )


def _read_entry(file: BinaryIO) -> tuple[_Entry, int]:
    head = file.read(_ENTRY.size)
    if len(head) < _ENTRY.size or head[:4] != _ENTRY_MAGIC:
        raise ArchiveInvalid("The archive's directory is damaged.")
    (_, made_by, _, flags, method, _, crc, packed, size, names, extras, comments, _, _, attributes, offset) = (
        _ENTRY.unpack(head)
    )
    rest = file.read(names + extras + comments)
    if len(rest) < names + extras + comments:
        raise ArchiveInvalid("The archive's directory is damaged.")
    size, packed, offset = _widened(rest[names : names + extras], [size, packed, offset])
    mode = attributes >> 16 if made_by >> 8 == _UNIX else 0
    return _Entry(rest[:names], flags, method, crc, packed, size, offset, mode), _ENTRY.size + len(rest)


def _widened(extra: bytes, values: list[int]) -> list[int]:
    """Replace the values that do not fit 32 bits by those of the zip64 field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            field = extra[4 : 4 + length]
            for place, value in enumerate(values):
                if value == _FULL32 and len(field) >= 8:
                    values[place] = int.from_bytes(field[:8], "little")
                    field = field[8:]
            break
        extra = extra[4 + length :]
    return values


def _open(file: BinaryIO, entry: _Entry, shift: int, meter: Meter) -> Stream:
    """Open a member that the directory lists; raises `ArchiveInvalid` where the archive contradicts itself."""
    _go_to(file, entry.offset + shift)
    local, length = _read_local(file)
    if local is None or local.raw_name != entry.raw_name or (local.flags ^ entry.flags) & _ENCRYPTED:
        raise ArchiveInvalid("The archive's directory and this member contradict each other.")
    return _ZipData(file, entry, entry.offset + shift + length, meter)


# --- Without a directory --------------------------------------------------------------------------------------------


def _scanned(file: BinaryIO, meter: Meter) -> Iterator[Member]:
    """Read members one behind the other, then raise `ArchiveInvalid`."""
    place = number = 0
    while True:
        _go_to(file, place)
        entry, length = _read_local(file)
        if entry is None:
            raise ArchiveInvalid("The archive ends before its directory, so it is not whole.")
        data = _ZipData(file, entry, place + length, meter)
        yield Member(number, entry.name, entry.kind, entry.size, lambda data=data: data)  # type: ignore[misc]
        number += 1
        place = data.end()


def _go_to(file: BinaryIO, place: int) -> None:
    """Go to a place that the archive names. No file can be sought as far as 64 bits reach, so its end is far enough."""
    file.seek(min(place, os.fstat(file.fileno()).st_size))


def _read_local(file: BinaryIO) -> tuple[_Entry | None, int]:
    """Read a member's own header; None where there is none."""
    place = file.tell()
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != ZIP_MAGIC:
        return None, 0
    _, _, flags, method, _, crc, packed, size, names, extras = _LOCAL.unpack(head)
    rest = file.read(names + extras)
    if len(rest) < names + extras:
        return None, 0
    size, packed = _widened(rest[names:], [size, packed])
    length = _LOCAL.size + len(rest)
    if flags & _DESCRIBED:
        return _Entry(rest[:names], flags, method, None, None, None, place), length
    return _Entry(rest[:names], flags, method, crc, packed, size, place), length


class _ZipData:
    """What one member holds: its size and checksum are compared at its end."""

    def __init__(self, file: BinaryIO, entry: _Entry, begin: int, meter: Meter) -> None:
        self._file = file
        self._entry = entry
        self._meter = meter
        self._place = begin  # Of the next packed bytes.
        self._end = None if entry.packed is None else begin + entry.packed
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == _DEFLATED else None
        self._waiting = b""  # Packed bytes that were read and not used.
        self._unpacked = self._crc = 0
        self._ended = False

    def read(self, size: int, /) -> bytes:
        if self._entry.method not in (_STORED, _DEFLATED):
            raise UnsupportedFormat("The member is packed in a way that is not read here. Pack it with deflate.")
        if self._ended:
            return b""
        data = self._unpack(min(size, BLOCK_BYTES))
        self._unpacked += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._entry.size is None:
            self._meter.add(len(data))
        elif self._unpacked > self._entry.size:
            raise ArchiveInvalid("This member of the archive is larger than it says.")
        if not data:
            self._ended = True
            self._check()
        return data

    def end(self) -> int:
        """Return where the next member begins, reading up to there where nothing else tells."""
        if self._end is not None:
            return self._end
        if self._entry.kind is MemberKind.ENCRYPTED or self._entry.method != _DEFLATED:
            raise ArchiveInvalid("The archive ends before its directory, and nothing else tells where members begin.")
        while self.read(BLOCK_BYTES):
            pass
        # Sizes of 4 or of 8 bytes, with or without a mark before them: what follows decides.
        self._file.seek(self._place - len(self._waiting))
        tail = self._file.read(28)
        mark = 4 if tail.startswith(_DESCRIPTOR_MAGIC) else 0
        for length in (mark + 12, mark + 20):
            if tail[length : length + 4] in (ZIP_MAGIC, _ENTRY_MAGIC):
                return self._place - len(self._waiting) + length
        raise ArchiveInvalid("The archive ends before its directory, so it is not whole.")

    def _unpack(self, size: int) -> bytes:
        if self._inflate is None:
            return self._packed(size)
        while not self._inflate.eof:
            if not self._waiting:
                self._waiting = self._packed(BLOCK_BYTES >> 2)
            try:
                data = self._inflate.decompress(self._waiting, size)
            except zlib.error as error:
                raise ArchiveInvalid("This member of the archive is damaged.") from error
            if not data and not self._waiting:
                raise ArchiveInvalid("The archive ends in the middle of this member.")
            self._waiting = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                return data
        return b""

    def _packed(self, size: int) -> bytes:
        if self._end is None and self._inflate is None:
            raise ArchiveInvalid("The archive ends before its directory, and nothing else tells where members end.")
        # Members can be opened in between by nobody, but the directory is read in between.
        self._file.seek(self._place)
        data = self._file.read(size if self._end is None else min(size, self._end - self._place))
        self._place += len(data)
        return data

    def _check(self) -> None:
        entry = self._entry
        if entry.size is not None and self._unpacked != entry.size:
            raise ArchiveInvalid("The archive ends in the middle of this member.")
        if entry.crc is not None and self._crc != entry.crc:
            raise ArchiveInvalid("This member of the archive is damaged: its checksum does not fit.")
