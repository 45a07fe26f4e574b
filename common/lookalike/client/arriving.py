"""Files on their way from the service: what has arrived stays, so that a download goes on where it was interrupted.

It lies beside the file, named by the ETag of what it is a beginning of. The file itself appears once it is whole.
"""

import re
from pathlib import Path
from typing import Final

import httpx2

_ETAG: Final = re.compile('"([0-9A-Za-z_-]{1,64})"')


class Arriving:
    """One file that is downloaded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        pattern = re.compile(rf"\.{re.escape(path.name)}\.([0-9A-Za-z_-]{{1,64}})\.part")
        found = [(other, match[1]) for other in path.parent.iterdir() if (match := pattern.fullmatch(other.name))]
        self._part: Path | None = found[0][0] if found else None
        self._etag: str | None = found[0][1] if found else None

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return self._part.stat().st_size if self._part else 0

    def headers(self) -> dict[str, str]:
        """Return what asks for the rest, if it is still the same file."""
        whole = {"Accept-Encoding": "identity"}
        return {"Range": f"bytes={self.size}-", "If-Range": f'"{self._etag}"', **whole} if self.size else whole

    def take(self, answer: httpx2.Response) -> None:
        """Write what an answer brings, behind what is here or instead of it; the last byte completes the file."""
        goes_on = answer.status_code == httpx2.codes.PARTIAL_CONTENT and answer.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {self.size}-")
        if not goes_on:
            self.discard()
            tag = _ETAG.fullmatch(answer.headers.get("ETag", ""))
            self._etag = tag[1] if tag else None
        part = self._part or self._path.with_name(f".{self._path.name}.{self._etag or 'untagged'}.part")
        self._part = part
        try:
            with part.open("ab") as file:
                for block in answer.iter_bytes():
                    file.write(block)
        except BaseException:
            if self._etag is None:  # There is no telling what it is a beginning of.
                self.discard()
            raise
        part.replace(self._path)

    def discard(self) -> None:
        """Forget what is here."""
        if self._part:
            self._part.unlink(missing_ok=True)
        self._part = self._etag = None
