"""Images on their way out: local files, bytes and PIL images as parts of a multipart request.

A file is opened when its turn comes and read block by block, so a request holds one file open and no image in memory,
and can be sent again from its start.
"""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast, runtime_checkable

from lookalike.errors import FileEmpty, FileMissing, ImageError, ImageTruncated, NotRegularFile
from lookalike.records import Failure, Stage
from lookalike.roots import file_error

_NAME_CHARS: Final = 500  #: A name is a label for people; the service takes 1024 characters.
_PART_BYTES: Final = 512  #: What a part adds to a request beside its content and name, generously.


@runtime_checkable
class SupportsSave(Protocol):
    """What we use of a PIL image."""

    def save(self, fp: Any, format: str | None = None, **options: Any) -> None:
        """Write the image to a file."""


Picture = str | os.PathLike[str] | bytes | SupportsSave  #: A local file's path, an encoded image, or a PIL image.


class FileReader:
    """The content of a file for the multipart encoder: `size` bytes, opened at the first read."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._at = 0
        self._file: BinaryIO | None = None
        self.error: ImageError | None = None  #: Why the last sending broke off, where it was this file's fault.

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the start, for a sending, or to the end, which tells the size; no content is read there and then."""
        self.close()
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, size: int) -> bytes:
        """Return the next bytes; raises `ImageError` classes where the file cannot be read as it was announced."""
        try:
            return self._read(size)
        except OSError as error:
            self.error = file_error(error)
            raise self.error from error

    def _read(self, size: int) -> bytes:
        left = self._size - self._at
        if left <= 0:
            self.close()
            return b""
        if self._file is None:
            self._file = self._path.open("rb")
            self._file.seek(self._at)
        # What was appended since the size was announced is not sent.
        block = self._file.read(min(size, left))
        if not block:
            self.close()
            self.error = ImageTruncated("The file became shorter while it was sent. Send it again once it is complete.")
            raise self.error
        self._at += len(block)
        return block

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One image of a request."""

    label: str  #: What people know it by.
    size: int  #: Bytes of its content.
    content: FileReader | io.BytesIO
    uri: str = ""  #: Of a local file, for the failures ledger.
    role: str = "image"  #: The name of its part in the request.

    @property
    def cost_bytes(self) -> int:
        """The room it takes in a request's body, at most."""
        return self.size + _PART_BYTES + 3 * len(self.label.encode())

    @property
    def error(self) -> ImageError | None:
        """Why the last sending broke off, where it was this image's fault."""
        return self.content.error if isinstance(self.content, FileReader) else None

    def field(self) -> tuple[str, Any]:
        """Return it as the HTTP client's multipart encoder takes it."""
        return (self.role, (self.label, self.content, "application/octet-stream"))

    def failure(self, error: ImageError) -> Failure:
        """Return the ledger's line for it."""
        return Failure(
            uri=self.uri or self.label,
            code=error.code,
            message=error.message,
            stage=Stage.READ,
            name=self.label.rpartition("/")[2],
        )


def file_part(path: Path, label: str) -> Part:
    """Return a local file as a part; raises `ImageError` classes for what cannot be sent."""
    try:
        status = path.stat()
    except OSError as error:
        raise file_error(error) from error
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularFile
    if not status.st_size:
        raise FileEmpty
    return Part(label=shown(label), size=status.st_size, content=FileReader(path, status.st_size), uri=local_uri(path))


def picture_part(picture: Picture, number: int) -> Part:
    """Return a query as a part; `number` names one that has no name of its own."""
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        try:
            return file_part(path, path.name)
        except FileMissing as error:
            raise FileMissing(
                f"There is no file {shown(str(path))} here. Check its path, or name a file of the service as such."
            ) from error
        except ImageError as error:
            raise type(error)(f"{shown(str(path))}: {error.message}") from error
    if isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
    elif isinstance(picture, SupportsSave):
        data = _encoded(picture)
    else:
        raise TypeError(f"a query is a path, bytes or a PIL image, not {type(picture).__name__}")
    if not data:
        raise FileEmpty
    return Part(label=f"image-{number}", size=len(data), content=io.BytesIO(data))


def _encoded(picture: SupportsSave) -> bytes:
    """Write a PIL image as PNG, which loses nothing, with the orientation that its pixels still need."""
    buffer = io.BytesIO()
    exif = picture.getexif() if hasattr(picture, "getexif") else None
    try:
        picture.save(buffer, format="PNG", exif=exif)
    except OSError:
        # PNG has no CMYK, YCbCr, LAB or floating-point pixels.
        buffer = io.BytesIO()
        cast(Any, picture).convert("RGB").save(buffer, format="PNG", exif=exif)
    return buffer.getvalue()


def local_uri(path: Path) -> str:
    """Return the URI of a local file, for reports."""
    return path.absolute().as_uri()


def shown(name: str) -> str:
    """Return a file's name as text that can be sent, whatever its bytes are."""
    return os.fsencode(name).decode(errors="replace")[-_NAME_CHARS:]
