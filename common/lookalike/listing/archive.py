"""Archives: their images, put into the upload store one by one as the archive is read.

Nothing is ever extracted to a path: the image's bytes become an upload named after their hash, and the member's own
name is only a label, so `..` in it leads nowhere. Links are not followed, archives inside are not opened; both get a
line of their own, since somebody may miss what is behind them. Names that begin with a dot are passed over, as they
are in folders: what macOS puts into archives is among them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final
from urllib.parse import quote

from lookalike.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    FileTooLarge,
    ImageError,
    LookalikeError,
    NotRegularFile,
    PermissionDenied,
    UnsupportedFormat,
)
from lookalike.listing.listed import Listed, has_image_suffix, label
from lookalike.listing.material import Material
from lookalike.listing.members import BLOCK_BYTES, Limits, Member, MemberKind
from lookalike.listing.samples import MAX_MEMBERS, MAX_SIDECAR_BYTES, SIDECARS, Found, Key, Sample
from lookalike.listing.stores import Keep, UploadFiles
from lookalike.listing.tars import GZIP_MAGIC, tar_members
from lookalike.listing.zips import EMPTY_ZIP_MAGIC, ZIP_MAGIC, zip_members
from lookalike.uploads import Stream, upload_uri

#: What the URI of a member that is listed with an error has between the archive's URI and the member's name. No
#: canonical URI of an archive has it, so nobody takes such a URI for one that can be opened.
MEMBER_MARK: Final = "#"

_END: Final = "end"  # The cursor behind an archive's own line.
_NESTED: Final = frozenset({"zip", "tar", "tgz", "gz", "bz2", "tbz2", "xz", "txz", "zst", "7z", "rar"})
_HEAD_BYTES: Final = 16  # Enough to tell an image by.
_MAGIC: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


def list_archive(
    material: Material, uploads: UploadFiles, limits: Limits, *, folder_labels: bool, after: str | None, keep: Keep
) -> Iterator[Listed]:
    """List an archive's images, behind the cursor `after`.

    Damage, and a limit that is reached, end the listing with a line for the archive itself, behind everything that
    could be read before.
    """
    if after == _END:
        return
    first, passed = (int(number) for number in after.split(".")) if after else (0, -1)
    reader = _Reader(material, uploads, limits, folder_labels, keep)
    sample: Sample | None = None
    failed: LookalikeError | None = None
    try:
        for member in _members(material.file, first, limits, keep):
            key = reader.key(member.name)
            if sample is None or sample.key != key or sample.members == MAX_MEMBERS:
                if sample:
                    yield from sample.listed()
                sample = Sample(key, member.number, passed)
            sample.members += 1
            reader.take(member, sample, listed=member.number <= passed)
    except (ArchiveInvalid, ArchiveTooLarge) as error:
        failed = error
    if sample:
        yield from sample.listed()
    if failed:
        yield Listed(material.uri + MEMBER_MARK, material.name, _END, failed)


def count_archive(file: BinaryIO, limits: Limits, *, keep: Keep) -> int | None:
    """Count the members of a zip that seem to be images, by its directory; None for a tar, which has none."""
    if not _is_zip(file):
        return None
    members = zip_members(file, first=0, limits=limits, keep=keep)
    return sum(member.kind is MemberKind.FILE and _looks_listed(member.name) for member in members)


def _looks_listed(name: str) -> bool:
    parts = _parts(name)
    return not any(part.startswith(".") for part in parts) and has_image_suffix(name)


def _is_zip(file: BinaryIO) -> bool:
    head = file.read(len(ZIP_MAGIC))
    file.seek(0)
    return head in (ZIP_MAGIC, EMPTY_ZIP_MAGIC)


def _members(file: BinaryIO, first: int, limits: Limits, keep: Keep) -> Iterator[Member]:
    """Tell an archive's format by its first bytes, whatever its name."""
    if _is_zip(file):
        return zip_members(file, first=first, limits=limits, keep=keep)
    head = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return tar_members(file, packed=head == GZIP_MAGIC, first=first, limits=limits, keep=keep)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the members of one archive into uploads."""

    material: Material
    uploads: UploadFiles
    limits: Limits
    folder_labels: bool
    keep: Keep

    def key(self, name: str) -> Key:
        """Return what the members of a sample have in common."""
        *folder, last = _parts(name) or ("",)
        return tuple(folder), last.partition(".")[0]

    def take(self, member: Member, sample: Sample, *, listed: bool) -> None:
        """Read a member, and note in its sample what there is to list; `listed` ones are only read as sidecars."""
        parts = _parts(member.name)
        if not parts or member.kind is MemberKind.FOLDER or any(part.startswith(".") for part in parts):
            return
        stem, _, suffix = parts[-1].rpartition(".")
        suffix = suffix.lower() if stem else ""
        try:
            if suffix in SIDECARS and member.kind is MemberKind.FILE:
                self._take_sidecar(member, sample, stem, suffix)
            elif not listed and (sha256_and_size := self._put(member, suffix)):
                sha256, size = sha256_and_size
                found = Found(
                    member.number, upload_uri(sha256), label(member.name), stem, self._label(parts), size, None
                )
                sample.add_image(found)
        except ImageError as error:
            sample.add_image(self._line(member, stem, error))
        except ArchiveInvalid as error:
            if not member.alone:
                raise
            sample.add_image(self._line(member, stem, error))

    def _put(self, member: Member, suffix: str) -> tuple[str, int] | None:
        """Put an image into the upload store; None for what is no image. Raises `ImageError` classes."""
        if member.kind is MemberKind.OTHER:
            raise NotRegularFile("This member is a link or a device. Pack the file itself.")
        if member.kind is MemberKind.ENCRYPTED:
            raise PermissionDenied("This member is encrypted. Pack it without a password.")
        if suffix in _NESTED:
            raise UnsupportedFormat("An archive inside an archive is not opened. Ingest it by itself.")
        if suffix and not has_image_suffix(member.name):
            return None
        if suffix and member.size is not None and member.size > self.limits.file_bytes:
            raise FileTooLarge
        stream = _Kept(member.open(), self.keep)
        if not suffix and not _is_image(stream.peek(_HEAD_BYTES)):
            return None
        return self.uploads.put(stream), stream.passed

    def _take_sidecar(self, member: Member, sample: Sample, stem: str, suffix: str) -> None:
        stream = member.open()
        data = b""
        while len(data) <= MAX_SIDECAR_BYTES and (block := stream.read(MAX_SIDECAR_BYTES + 1)):
            data += block
        sample.add_sidecar(self._line(member, stem, None), suffix, data)

    def _line(self, member: Member, stem: str, error: LookalikeError | None) -> Found:
        """Return what is listed of a member that is not an upload."""
        name = label(member.name)
        return Found(member.number, self.material.uri + MEMBER_MARK + quote(name), name, stem, {}, None, error)

    def _label(self, parts: list[str]) -> dict[str, str]:
        return {"label": label(parts[-2])} if self.folder_labels and len(parts) > 1 else {}


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _is_image(head: bytes) -> bool:
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # Its reserved bytes; two letters alone begin many a text.
    )


class _Kept:
    """A member's stream that shows progress, counts, and lets its beginning be looked at."""

    def __init__(self, stream: Stream, keep: Keep) -> None:
        self._stream = stream
        self._keep = keep
        self._head = b""
        self.passed = 0  #: Bytes that were read.

    def peek(self, size: int) -> bytes:
        """Return the first bytes without passing them."""
        while len(self._head) < size and (block := self._stream.read(size - len(self._head))):
            self._head += block
        return self._head

    def read(self, size: int, /) -> bytes:
        self._keep()
        head, self._head = self._head, b""
        data = head or self._stream.read(min(size, BLOCK_BYTES))
        self.passed += len(data)
        return data
