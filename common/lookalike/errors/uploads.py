"""Uploads that are not there, or not where or what they were said to be."""

from lookalike.errors.base import LookalikeError


class UploadNotFound(LookalikeError):
    """There is no such upload, or not any more. Upload the file again."""

    code = "upload_not_found"


class UploadConflict(LookalikeError):
    """The upload does not stand where this request continues it. Ask for its offset, and go on from there."""

    code = "upload_conflict"

    def __init__(self, message: str | None = None, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset  #: Where the upload stands: bytes that have arrived.


class UploadMismatch(LookalikeError):
    """What arrived does not have the SHA-256 that the upload was announced with. It was dropped: upload it again."""

    code = "upload_mismatch"
