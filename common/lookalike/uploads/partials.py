"""Uploads in pieces: files that arrive in several bounded requests, possibly after interruptions.

An unfinished upload is two files: a note of what was announced, and the bytes so far, whose number is the file's
length and is written nowhere else. So whatever dies whenever, what arrived is a beginning of the file, and the sender
goes on from there. Several front-end processes share the folder. Each block is appended under the file's lock, at the
place where its sender thinks the file ends: of two senders, the first to write wins, and the other is told where the
file stands. The lock is not held while a sender is waited for, so that a connection that hangs stands in nobody's way.
"""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import Field

from lookalike.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UploadConflict,
    UploadMismatch,
    UploadNotFound,
)
from lookalike.records import Record, UploadRecord, UploadRequest
from lookalike.uploads.digests import RunningDigests
from lookalike.uploads.locking import flocked, lies_at, opened
from lookalike.uploads.names import is_sha256
from lookalike.uploads.space import full_disk_refused
from lookalike.uploads.store import PART, Stream, UploadStore

log = logging.getLogger(__name__)

_ID: Final = re.compile("[0-9a-f]{32}")
_ID_BYTES: Final = 16
_DATA: Final = ".data"
_NOTE: Final = ".json"
_BLOCK: Final = 1 << 18  #: What a broken connection may cost at most.
_CHECK_EVERY_BYTES: Final = 16 << 20


class _Note(Record):
    """What is known of an upload besides its bytes."""

    request: UploadRequest
    owner: str | None = None  #: Who began it, and alone may see it; None for all who may see everything.
    sha256: str | None = None  #: Of the whole, once it was hashed.
    #: Tells this attempt from others with the same id, which processes may have hashed the beginning of.
    attempt: str = Field(default_factory=lambda: secrets.token_hex(_ID_BYTES))


class Partials:
    """Uploads in pieces, on top of a store that keeps them once they are whole."""

    def __init__(self, store: UploadStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._folder = store.unfinished_folder
        self._digests = RunningDigests()

    def begin(self, wanted: UploadRequest, *, owner: str | None = None) -> UploadRecord:
        """Announce a file; the record is complete already where the store has its content.

        With a hash, an upload that was begun before is gone on with, by whoever has the same file. An owner learns of
        what this owner has sent, and of nothing else: knowing a content's hash does not show whether it is here.
        Raises `PayloadTooLarge` and `InsufficientStorage`.
        """
        if wanted.size > self._max_bytes:
            raise PayloadTooLarge(
                f"The file has {wanted.size} bytes, and this service takes no more than {self._max_bytes} in one file."
            )
        if wanted.sha256 is not None and self._store.was_sent_by(owner, wanted.sha256):
            known = self._kept(wanted.sha256)
            if known is not None and known.size == wanted.size:
                return known.model_copy(update={"name": wanted.name})
        with full_disk_refused():
            self._folder.mkdir(parents=True, exist_ok=True)
            upload_id = _id_of(wanted, owner)
            self._store.check_space(wanted.size - self._length(upload_id))
            if self._create(upload_id) or not self._note(upload_id).exists():
                self._write_note(upload_id, _Note(request=wanted, owner=owner))
        return self.get(upload_id, owner=owner)

    def get(self, upload_id: str, *, owner: str | None = None) -> UploadRecord:
        """Return how far an upload is; raises `UploadNotFound`, also for that of another owner.

        One of which all has arrived has no `sha256` as long as another request puts it away.
        """
        if is_sha256(upload_id):  # It was complete when it was announced.
            known = self._kept(upload_id) if self._store.was_sent_by(owner, upload_id) else None
            if known is None:
                raise UploadNotFound
            return known
        note = self._own(upload_id, owner)
        offset = self._offset(upload_id, note)
        if offset == note.request.size:  # Also where a process died before its last words.
            return self._finish(upload_id)
        return _record(upload_id, note, offset)

    def append(self, upload_id: str, offset: int, stream: Stream, *, owner: str | None = None) -> UploadRecord:
        """Go on with an upload at `offset`, which has to be where it stands; the last byte completes it.

        Raises `UploadNotFound`; `UploadConflict` with the true offset where it stands elsewhere, or another sender has
        come first; `InvalidRequest` where more arrives than was announced; `UploadMismatch` where the whole has another
        hash than was announced; `InsufficientStorage`; and what reading the stream raises. What was written before
        stays, except after a mismatch.
        """
        record = self.get(upload_id, owner=owner)
        if offset != record.offset:
            raise UploadConflict(offset=record.offset)
        if record.offset < record.size:
            with full_disk_refused():
                self._append(upload_id, record, stream)
            record = self.get(upload_id)
        if record.offset == record.size and record.sha256 is None:
            return self._finish(upload_id)
        return record

    def discard(self, upload_id: str, *, owner: str | None = None) -> None:
        """Give an upload up; raises `UploadNotFound`, also for that of another owner.

        The content of a complete one stays for others who have it.
        """
        if is_sha256(upload_id):
            return
        self._own(upload_id, owner)
        try:
            with self._locked(upload_id):
                self._unlink(upload_id)
        except FileNotFoundError:
            self._note(upload_id).unlink(missing_ok=True)  # It is complete.

    def expire(self, *, older_than: float, dry_run: bool = False) -> tuple[int, int]:
        """Remove what nobody went on with since a time; returns how many unfinished uploads, and their bytes."""
        count = size = 0
        for path in self._folder.glob("*"):
            freed = self._expire(path, older_than=older_than, dry_run=dry_run)
            if freed is not None:
                count += 1
                size += freed
        return count, size

    # --- Appending ---

    def _append(self, upload_id: str, record: UploadRecord, stream: Stream) -> None:
        attempt = self._read_note(upload_id).attempt
        digest = self._digests.take(attempt)
        position = record.offset
        try:
            with opened(self._data(upload_id), os.O_RDWR) as fd:
                digest.catch_up_early(fd, position, size=record.size)
                for block in self._blocks(stream, record.size - position):
                    rest = block
                    while rest:  # Of a disk that is nearly full, the beginning of a block may fit.
                        done = self._write(upload_id, fd, position, rest)
                        if digest.position == position:
                            digest.update(rest[:done])
                        position += done
                        rest = rest[done:]
        except FileNotFoundError:
            raise UploadConflict(offset=self.get(upload_id).offset) from None
        finally:
            self._digests.give_back(attempt, digest)
            if position > record.offset:
                self._store.space.add(position - record.offset)

    def _write(self, upload_id: str, fd: int, position: int, block: bytes) -> int:
        """Append to the data, where it ends at `position`; returns how many bytes fitted."""
        with flocked(fd):
            if not lies_at(fd, self._data(upload_id)):
                # Others have completed it meanwhile, or given it up: then it is not found.
                raise UploadConflict(offset=self.get(upload_id).offset)
            length = os.fstat(fd).st_size
            if length != position:
                raise UploadConflict(offset=length)
            return os.pwrite(fd, block, position)

    def _blocks(self, stream: Stream, expected: int) -> Iterator[bytes]:
        """Yield what arrives; nothing of the last block is passed on where it is longer than was announced."""
        arrived = unchecked = 0
        while True:
            if not arrived or unchecked >= _CHECK_EVERY_BYTES:
                self._store.check_space(unbooked_bytes=arrived)
                unchecked = 0
            block = stream.read(min(_BLOCK, expected - arrived + 1))
            if not block:
                return
            arrived += len(block)
            unchecked += len(block)
            if arrived > expected:
                raise InvalidRequest("More bytes arrive than this upload was announced with. Begin a new one.")
            yield block

    # --- Completing ---

    def _finish(self, upload_id: str) -> UploadRecord:
        """Put a file away that has arrived whole. Where another request is at it, which may take minutes, leave it."""
        try:
            with self._locked(upload_id, wait=False) as fd:
                if fd is None:
                    note = self._read_note(upload_id)
                    return _record(upload_id, note.model_copy(update={"sha256": None}), note.request.size)
                with full_disk_refused():
                    return self._put_away(upload_id, fd)
        except FileNotFoundError:
            log.debug("upload %s was put away by another request", upload_id)
        note = self._read_note(upload_id)
        return _record(upload_id, note, note.request.size)

    def _put_away(self, upload_id: str, fd: int) -> UploadRecord:
        note = self._read_note(upload_id)
        sha256 = note.sha256
        if sha256 is None:
            digest = self._digests.take(note.attempt)
            digest.catch_up(fd, note.request.size)
            sha256 = digest.hexdigest()
            if note.request.sha256 not in {None, sha256}:
                self._unlink(upload_id)
                raise UploadMismatch
            # Noted first: should this process die before the move, the next one to ask makes it.
            self._write_note(upload_id, note.model_copy(update={"sha256": sha256}))
        self._store.note_sender(note.owner, sha256)
        self._store.adopt(self._data(upload_id), sha256, booked=True)
        return _record(upload_id, note.model_copy(update={"sha256": sha256}), note.request.size)

    # --- Files ---

    def _data(self, upload_id: str) -> Path:
        return self._folder / (upload_id + _DATA)

    def _note(self, upload_id: str) -> Path:
        return self._folder / (upload_id + _NOTE)

    def _create(self, upload_id: str) -> bool:
        """Make an upload's empty data; False where it has some already."""
        try:
            with opened(self._data(upload_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY):
                return True
        except FileExistsError:
            return False

    def _length(self, upload_id: str) -> int:
        try:
            return self._data(upload_id).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def _locked(self, upload_id: str, *, wait: bool = True) -> Iterator[int | None]:
        """Hold the lock of the data; yields None where another has it, and raises `FileNotFoundError` without data.

        After a wait for the lock, the data may have gone from its place.
        """
        with opened(self._data(upload_id), os.O_RDWR) as fd, flocked(fd, wait=wait) as held:
            yield fd if held else None

    def _read_note(self, upload_id: str) -> _Note:
        if not _ID.fullmatch(upload_id):
            raise UploadNotFound
        try:
            return _Note.model_validate_json(self._note(upload_id).read_bytes())
        except FileNotFoundError:
            raise UploadNotFound from None

    def _own(self, upload_id: str, owner: str | None) -> _Note:
        note = self._read_note(upload_id)
        if owner not in {None, note.owner}:
            raise UploadNotFound
        return note

    def _write_note(self, upload_id: str, note: _Note) -> None:
        part = self._folder / (secrets.token_hex(_ID_BYTES) + PART)
        try:
            part.write_text(note.model_dump_json())
            part.replace(self._note(upload_id))
        finally:
            part.unlink(missing_ok=True)

    def _offset(self, upload_id: str, note: _Note) -> int:
        try:
            return self._data(upload_id).stat().st_size
        except FileNotFoundError:
            # Put away, which is noted first; or removed, which begins with the data.
            if note.sha256 is None and self._read_note(upload_id).sha256 is None:
                raise UploadNotFound from None
            return note.request.size

    def _unlink(self, upload_id: str) -> int:
        """Remove an upload, under its lock; returns the bytes of its data."""
        data = self._data(upload_id)
        size = data.stat().st_size
        data.unlink()
        self._note(upload_id).unlink(missing_ok=True)
        self._store.space.add(-size)
        return size

    def _kept(self, sha256: str) -> UploadRecord | None:
        size = self._store.size(sha256)
        if size is None or not self._store.has(sha256):
            return None
        return UploadRecord(id=sha256, size=size, offset=size, sha256=sha256)

    # --- Expiry ---

    def _expire(self, path: Path, *, older_than: float, dry_run: bool) -> int | None:
        """Remove one of the folder's files where it is too old; returns its bytes where it was an unfinished upload."""
        try:
            with opened(path, os.O_RDWR) as fd, flocked(fd, wait=False) as held:
                status = os.fstat(fd)
                if not held or status.st_mtime >= older_than or not lies_at(fd, path):
                    return None
                return self._remove(path, status.st_size, dry_run=dry_run)
        except FileNotFoundError:
            return None

    def _remove(self, path: Path, size: int, *, dry_run: bool) -> int | None:
        if path.suffix == _NOTE:
            if path.with_suffix(_DATA).exists():
                return None  # It is as old as its data, and goes with it.
            if not dry_run:
                path.unlink(missing_ok=True)
            return None
        if not dry_run:
            if path.suffix == _DATA:
                return self._unlink(path.stem)
            path.unlink(missing_ok=True)
        return size


def _id_of(wanted: UploadRequest, owner: str | None) -> str:
    """Return an id that nobody can guess who does not have the content: then it is the content's own.

    So a sender that was restarted, or another one with the same file, completes what is there; not one of another
    owner, who would learn that it is there.
    """
    if wanted.sha256 is None:
        return secrets.token_hex(_ID_BYTES)
    of_whom = "" if owner is None else f" {owner}"
    return hashlib.blake2b(f"{wanted.sha256} {wanted.size}{of_whom}".encode(), digest_size=_ID_BYTES).hexdigest()


def _record(upload_id: str, note: _Note, offset: int) -> UploadRecord:
    return UploadRecord(id=upload_id, size=note.request.size, offset=offset, name=note.request.name, sha256=note.sha256)
