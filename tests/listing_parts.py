"""A lister over real folders and a real upload store, with a network that is made up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lookalike.errors import FileMissing, InvalidPath, InvalidURL, PermissionDenied
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.listing import Limits, Listed, Lister
from lookalike.records import IngestRequest, Source
from lookalike.remote import ObjectInfo
from lookalike.roots import Roots
from lookalike.settings import Settings
from lookalike.uploads import UploadStore, upload_uri

LIMITS = Limits(members=1_000_000, unpacked_bytes=1 << 30, ratio=200.0, file_bytes=1 << 20)


@dataclass
class Network:
    """A few files on the web, and the objects of one bucket."""

    files: dict[str, Path] = field(default_factory=dict)
    stored: list[ObjectInfo] = field(default_factory=list)

    def is_remote(self, uri: str) -> bool:
        return "://" in uri

    def check_url(self, url: str) -> str:
        if url.startswith("s3://"):
            if not url.startswith("s3://bucket/"):
                raise InvalidPath
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.port is not None:
            raise InvalidURL
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"

    def check_prefix(self, prefix: str) -> str:
        return self.check_url(prefix).rstrip("/") + "/"

    def download(self, url: str, *, keep: Callable[[], None]) -> Path:
        keep()
        if url not in self.files:
            raise FileMissing
        return self.files[url]

    def objects(self, prefix: str, *, after: str | None) -> Iterator[ObjectInfo]:
        for found in sorted(self.stored, key=lambda found: found.uri.encode()):
            if found.uri.startswith(prefix) and (after is None or found.uri > after):
                yield found

    def exists(self, uri: str) -> bool:
        if "locked" in uri:
            raise PermissionDenied
        return any(found.uri == uri for found in self.stored)


@dataclass
class Place:
    """A root, an upload store and a network, and what lists them."""

    root: Path
    uploads: UploadStore
    network: Network
    jobs: MemoryJobStore
    lister: Lister
    keeps: int = 0

    def list(self, source: Source, *, after: str | None = None, **request: Any) -> list[Listed]:
        """List a source as the planner does."""
        wanted = IngestRequest(source=source, **request)
        return list(self.lister.list(wanted, after=after, keep=self.keep))

    def keep(self) -> None:
        self.keeps += 1

    def content(self, listed: Listed) -> bytes:
        """Read an upload that a listing made."""
        with self.uploads.open(listed.uri) as opened:
            return opened.read(max_bytes=1 << 30)

    def kept(self) -> int:
        """Count the uploads."""
        return sum(1 for _ in self.uploads.walk("images"))


def make_place(folder: Path, *, limits: Limits = LIMITS) -> Place:
    """Make a place in an empty folder."""
    root = folder.resolve() / "root"
    root.mkdir()
    uploads = UploadStore(folder / "uploads", min_free_bytes=0, max_file_bytes=limits.file_bytes)
    network, jobs = Network(), MemoryJobStore(Settings(data_dir=folder / "data"))
    return Place(root, uploads, network, jobs, Lister(Roots([root]), uploads, network, jobs, limits=limits))


def codes(found: Sequence[Listed]) -> dict[str, str | None]:
    """Return what became of each name."""
    return {listed.name: listed.error.code if listed.error else None for listed in found}


def same(listed: Listed) -> tuple[Any, ...]:
    """Return what makes two things listed the same: errors are compared by what they say."""
    error = (listed.error.code, listed.error.message) if listed.error else None
    return (listed.uri, listed.name, listed.cursor, error, listed.size, listed.mtime_ns, listed.etag, listed.metadata)


def assert_resumes_anywhere(place: Place, source: Source, **request: Any) -> list[Listed]:
    """Assert that a listing behind any of its cursors is exactly the rest; returns the whole listing."""
    whole = place.list(source, **request)
    for number, listed in enumerate(whole, 1):
        assert listed.cursor.isascii()
        rest = place.list(source, after=listed.cursor, **request)
        assert [same(one) for one in rest] == [same(one) for one in whole[number:]], listed.cursor
    return whole


__all__ = ["LIMITS", "Network", "Place", "assert_resumes_anywhere", "codes", "make_place", "same", "upload_uri"]
