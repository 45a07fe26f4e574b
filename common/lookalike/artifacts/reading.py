"""The parts of a file read as one, whichever place keeps them."""

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Protocol

from lookalike.errors import SourceUnavailable

BLOCK_BYTES: Final = 1 << 20  #: Read at a time.
_ETAG_BYTES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a file, as its place describes it."""

    number: int
    size: int  #: Bytes.
    version: str  #: Another one where the part was written again.


class PartReader(Protocol):
    """One part, open for reading."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on; none where something else took the part's place."""

    def close(self) -> None:
        """Let go of it."""


OpenPart = Callable[[Part], PartReader]


class ArtifactFile(io.BufferedReader):
    """A file as it was when it was opened; it can seek. Nothing is held open before the first byte is read.

    Reading raises `SourceUnavailable` once a part of it was written again: what was announced is sent, or the reader
    learns that it was not.
    """

    def __init__(self, parts: Sequence[Part], open_part: OpenPart) -> None:
        super().__init__(_Joined(parts, open_part), BLOCK_BYTES)
        self.size = sum(part.size for part in parts)
        facts = " ".join(f"{part.number}:{part.size}:{part.version}" for part in parts)
        #: Tells these bytes from any others under the same name, for whoever goes on with a download.
        self.etag = hashlib.blake2b(facts.encode(), digest_size=_ETAG_BYTES).hexdigest()


class _Joined(io.RawIOBase):
    """Parts read as one, one after another; one of them is open at a time."""

    def __init__(self, parts: Sequence[Part], open_part: OpenPart) -> None:
        super().__init__()
        self._parts = parts
        self._open_part = open_part
        self._ends = list(accumulate(part.size for part in parts))
        self._at = 0
        self._opened: tuple[int, PartReader] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        number = bisect_right(self._ends, self._at)
        if number == len(self._ends):
            return 0
        begin = self._ends[number - 1] if number else 0
        wanted = min(len(buffer), self._ends[number] - self._at)
        data = self._reader(number).read_at(self._at - begin, wanted)
        if not data:
            raise SourceUnavailable("The file was written again while it was read. Ask for it once more.")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._let_go()
        super().close()

    def _reader(self, number: int) -> PartReader:
        if self._opened is None or self._opened[0] != number:
            self._let_go()
            self._opened = (number, self._open_part(self._parts[number]))
        return self._opened[1]

    def _let_go(self) -> None:
        if self._opened:
            self._opened[1].close()
            self._opened = None
