"""Transfers: files of any size, sent in bounded pieces that can be gone on with after an interruption.

A file is known by its content: what the service has already is not sent, and what it has in part, from an earlier try
or another sender, is completed.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lookalike.client.connection import Call, Connection
from lookalike.client.parts import shown
from lookalike.errors import FileEmpty, ImageTruncated, ServiceUnreachable, UploadConflict
from lookalike.records import UploadedFile, UploadRecord, UploadRequest
from lookalike.roots import file_error

PIECE_BYTES: Final = 16 << 20  #: One request: what a broken connection costs at most.
_SETTLE_S: Final = 0.5  #: Between two looks at an upload that somebody else sends, or that is being hashed.
#: How long an upload may stand still before it is given up: the service may be restarting.
PATIENCE_S: Final = 120.0

OnBytes = Callable[[int, int], None]  #: Called with the bytes that have arrived, and all bytes.


class Transfer:
    """Sends one file."""

    def __init__(self, connection: Connection, *, max_request_bytes: int, on_bytes: OnBytes | None = None) -> None:
        self._connection = connection
        self._piece = min(PIECE_BYTES, max_request_bytes)
        self._on_bytes = on_bytes

    def send(self, path: Path, name: str) -> UploadedFile:
        """Send a file and return what an ingest names it by; raises `ImageError` classes for one that cannot be read.

        Raises `ServiceUnreachable` where it does not get on for two minutes. Sending it again goes on from there.
        """
        try:
            size = path.stat().st_size
            sha256 = _digest(path)
        except OSError as error:
            raise file_error(error) from error
        if not size:
            raise FileEmpty
        label = shown(name)
        wanted = UploadRequest(size=size, name=label, sha256=sha256)
        call = Call(method="POST", path="/v1/uploads", json=wanted.model_dump(mode="json"), patience_s=PATIENCE_S)
        record = self._connection.fetch(UploadRecord, call)
        moved_s = time.monotonic()
        while record.sha256 is None:
            before = record.offset
            record = self._go_on(record, path)
            if record.offset > before:
                moved_s = time.monotonic()
                self._tell(record)
            elif time.monotonic() - moved_s > PATIENCE_S:
                raise ServiceUnreachable(f"The upload of {label} does not get on. Send it again to go on with it.")
        self._tell(record)
        return UploadedFile(sha256=record.sha256, name=label)

    def _go_on(self, record: UploadRecord, path: Path) -> UploadRecord:
        """Send the next piece, or look how far others are; returns how the upload stands then."""
        where = f"/v1/uploads/{record.id}"
        if record.offset < record.size:
            headers = {"Upload-Offset": str(record.offset), "Content-Type": "application/octet-stream"}
            piece = self._read(path, record)
            try:
                # Sent again after a lost answer, it is refused with a conflict, and the look below tells the truth.
                call = Call(method="PATCH", path=where, headers=headers, content=piece, patience_s=PATIENCE_S)
                return self._connection.fetch(UploadRecord, call)
            except UploadConflict:
                pass  # Somebody else has sent it further, or our own bytes have arrived although the answer was lost.
        else:
            time.sleep(_SETTLE_S)
        return self._connection.fetch(UploadRecord, Call(method="GET", path=where, patience_s=PATIENCE_S))

    def _read(self, path: Path, record: UploadRecord) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(record.offset)
                piece = file.read(min(self._piece, record.size - record.offset))
        except OSError as error:
            raise file_error(error) from error
        if not piece:
            raise ImageTruncated("The file became shorter while it was sent. Send it again once it is complete.")
        return piece

    def _tell(self, record: UploadRecord) -> None:
        if self._on_bytes:
            self._on_bytes(record.offset, record.size)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
