"""The upload store: puts a stream away under its hash, and opens it again by its URI."""

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

from lookalike.errors import FileMissing, FileTooLarge
from lookalike.roots import OpenedFile
from lookalike.uploads.folder import FolderFiles
from lookalike.uploads.names import AREAS, Area, Kept, is_sha256, parse_uri, sender_mark
from lookalike.uploads.space import Space, full_disk_refused

if TYPE_CHECKING:  # The decoder's child process reads uploads, and has no use for pydantic.
    from lookalike.settings import Settings

PART: Final = ".part"  #: What the name of a file ends in that `put` is still writing.
_BLOCK: Final = 1 << 20
_ASK_EVERY_S: Final = 60.0
_CHECK_EVERY_BLOCKS: Final = 16  #: How often a long upload looks at the space again.


class Stream(Protocol):
    """What an upload is read from: a file, or a request's part."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class Files(Protocol):
    """Where complete files are kept, by area and hash."""

    is_local: bool

    def add(self, area: Area, sha256: str, part: Path) -> bool:
        """Take over a complete file; returns whether its content is new here. It counts as renewed in any case."""

    def renew(self, area: Area, sha256: str) -> bool:
        """Make a file as young as if it had been sent now. False where there is none."""

    def size(self, area: Area, sha256: str) -> int | None:
        """Return a file's bytes, or None where there is none."""

    def open(self, area: Area, sha256: str) -> OpenedFile:
        """Open a file; raises `FileMissing`."""

    def walk(self, area: Area) -> Iterator[Kept]:
        """Yield every file of an area, with little memory."""

    def remove(self, area: Area, sha256: str, *, older_than: float) -> int | None:
        """Remove a file last renewed before a time; returns its bytes, or None where it is younger or gone."""

    def publish_count(self, used_bytes: int, spool: Path) -> None:
        """Tell machines that do not share the folder how much is used."""

    def published_count(self) -> tuple[int, float] | None:
        """Return what was told last, and when (seconds since the epoch)."""


class UploadStore:
    """Content-addressed files. A file appears complete or not at all, and the same content is kept once."""

    def __init__(
        self,
        folder: Path,
        *,
        min_free_bytes: int,
        max_file_bytes: int,
        quota_bytes: int = 0,
        files: Files | None = None,
    ) -> None:
        self.folder = folder
        self.space = Space(folder, min_free_bytes=min_free_bytes, quota_bytes=quota_bytes)
        self._max_file_bytes = max_file_bytes
        self._files = files or FolderFiles(folder)
        self._asked_at = 0.0  # When another machine's count was last asked for, by this process's clock,
        self._counted_at = 0.0  # and which one was taken over last.

    @classmethod
    def from_settings(cls, settings: "Settings") -> Self:
        """Make the store that the settings name: in the data folder, or in an object store."""
        files: Files | None = None
        if settings.uploads_url is not None:
            from lookalike.uploads.objects import ObjectFiles  # It talks to a network.

            files = ObjectFiles.from_settings(settings)
        return cls(
            settings.uploads_dir,
            min_free_bytes=settings.min_free_bytes,
            max_file_bytes=settings.max_file_bytes,
            quota_bytes=settings.upload_quota_bytes,
            files=files,
        )

    def put(self, stream: Stream, *, area: Area = "images") -> str:
        """Keep what `stream` holds; returns its SHA-256, whose URI `upload_uri` or `query_uri` makes.

        Raises `FileTooLarge` and `InsufficientStorage`, and leaves nothing behind then. An empty file is kept like any
        other: the worker that reads it puts it into its job's ledger, and the rest of the upload goes on.
        """
        with full_disk_refused(), self._spool() as (file, part):
            sha256 = self._copy(stream, file)
            file.close()
            self.adopt(part, sha256, area=area)
        return sha256

    def adopt(self, part: Path, sha256: str, *, area: Area = "images", booked: bool = False) -> None:
        """Keep a complete file of this folder under its hash. `part` is gone then.

        `booked` says that its bytes are counted as used already.
        """
        size = part.stat().st_size
        is_new = self._files.add(area, sha256, part)
        change = size * (int(is_new) - int(booked))
        if change:
            self.space.add(change)

    def note_sender(self, owner: str | None, sha256: str) -> None:
        """Note that an owner has sent a content, and may name it for at least `upload_ttl_s` from now."""
        if owner is None:
            return
        name = sender_mark(owner, sha256)
        if not self._files.renew("senders", name):
            with full_disk_refused(), self._spool() as (file, part):
                file.close()
                self._files.add("senders", name, part)

    def was_sent_by(self, owner: str | None, sha256: str) -> bool:
        """Tell whether an owner has sent a content, and renew that; None stands for those who may name any."""
        return owner is None or (is_sha256(sha256) and self._files.renew("senders", sender_mark(owner, sha256)))

    def has(self, sha256: str, *, area: Area = "images") -> bool:
        """Tell whether a content is here, and renew it: it stays for at least `upload_ttl_s` from now."""
        return is_sha256(sha256) and self._files.renew(area, sha256)

    def size(self, sha256: str, *, area: Area = "images") -> int | None:
        """Return the bytes of a kept file, or None where there is none."""
        return self._files.size(area, sha256) if is_sha256(sha256) else None

    def open(self, uri: str) -> OpenedFile:
        """Open an upload by its URI; raises `FileMissing` for one that never was or has expired."""
        named = parse_uri(uri)
        if named is None:
            raise FileMissing("There is no upload with this URI.")
        return self._files.open(*named)

    def used_bytes(self) -> int:
        """Return how many bytes all uploads take, those of unfinished ones included, within a few percent."""
        self._take_over_count()
        used = self.space.used()
        if used is not None:
            return used
        if self.is_local:
            return self.recount()
        self.space.replace(0)  # Objects are counted by the clean-up alone: listing a million of them takes minutes.
        return 0

    def check_space(self, wanted_bytes: int = 0, *, unbooked_bytes: int = 0) -> None:
        """Raise `InsufficientStorage` where there is no room for so many more bytes.

        `unbooked_bytes` are written already, and not counted as used yet.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        used_bytes = self.used_bytes() + unbooked_bytes if self.space.quota_bytes else 0
        self.space.check(wanted_bytes, used_bytes=used_bytes)

    def recount(self) -> int:
        """Count what is used by looking at every file, and return it."""
        before = self.space.used()
        kept = sum(file.size for area in AREAS for file in self.walk(area))
        used = self.space.recounted(kept + _size_of(self.unfinished_folder), used_before=before)
        self.unfinished_folder.mkdir(parents=True, exist_ok=True)
        self._files.publish_count(used, self.unfinished_folder / f"{secrets.token_hex(8)}{PART}")
        return used

    @property
    def unfinished_folder(self) -> Path:
        """Where files lie until they are complete: on the same disk, so that moving them is instant."""
        return self.folder / "unfinished"

    @property
    def is_local(self) -> bool:
        """Whether the files lie in the folder, where looking at them and renewing them costs next to nothing."""
        return self._files.is_local

    def walk(self, area: Area) -> Iterator[Kept]:
        """Yield every kept file of an area, with little memory."""
        return self._files.walk(area)

    def remove(self, sha256: str, *, area: Area = "images", older_than: float) -> int | None:
        """Remove a file last renewed before a time; returns its bytes, or None where it is younger or gone."""
        size = self._files.remove(area, sha256, older_than=older_than)
        if size:
            self.space.add(-size)
        return size

    def _take_over_count(self) -> None:
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY_S and self._asked_at:
            return
        self._asked_at = now
        count = self._files.published_count()
        if count is not None and count[1] > self._counted_at:
            self.space.replace(count[0])
            self._counted_at = count[1]

    @contextmanager
    def _spool(self) -> Iterator[tuple[BinaryIO, Path]]:
        self.unfinished_folder.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=self.unfinished_folder, suffix=PART)
        part = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file, part
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, stream: Stream, file: BinaryIO) -> str:
        digest = hashlib.sha256()
        size = blocks = 0
        self.check_space()
        while block := stream.read(_BLOCK):
            blocks += 1
            size += len(block)
            if size > self._max_file_bytes:
                raise FileTooLarge
            if blocks % _CHECK_EVERY_BLOCKS == 0:
                self.check_space(unbooked_bytes=size)
            digest.update(block)
            file.write(block)
        self.check_space(unbooked_bytes=size)
        return digest.hexdigest()


def _size_of(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # It was finished, or given up.
            size += path.stat().st_size
    return size
