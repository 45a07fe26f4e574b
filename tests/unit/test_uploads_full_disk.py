"""A disk that is full: nothing half-written stays, but for what can be gone on with."""

import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.errors import InsufficientStorage
from lookalike.records import UploadRequest
from lookalike.uploads import UploadStore
from lookalike.uploads.partials import Partials

DISK_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.fail(f"this test has to be run by a user who may mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def store(disk: Path) -> UploadStore:
    return UploadStore(disk / "uploads", min_free_bytes=0, max_file_bytes=1 << 30)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def fill(disk: Path) -> Path:
    """Take the rest of the disk."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free))
    assert shutil.disk_usage(disk).free == 0
    return filler


def test_a_disk_that_fills_in_the_middle_of_an_upload_leaves_nothing_behind(disk: Path, store: UploadStore) -> None:
    with pytest.raises(InsufficientStorage):
        store.put(io.BytesIO(bytes(DISK_BYTES + 1)))

    assert files(disk) == []
    assert store.size(store.put(io.BytesIO(bytes(DISK_BYTES // 2)))) == DISK_BYTES // 2


def test_an_upload_in_pieces_goes_on_once_there_is_space_again(disk: Path, store: UploadStore) -> None:
    content = bytes(range(256)) * (DISK_BYTES // 2 // 256)
    partials = Partials(store, max_bytes=1 << 30)
    record = partials.begin(UploadRequest(size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    record = partials.append(record.id, 0, io.BytesIO(content[:1_000_000]))
    filler = fill(disk)

    with pytest.raises(InsufficientStorage):
        partials.append(record.id, record.offset, io.BytesIO(content[record.offset :]))
    with pytest.raises(InsufficientStorage):
        partials.begin(UploadRequest(size=1))

    record = partials.get(record.id)
    assert 1_000_000 <= record.offset < len(content)
    assert {path.suffix for path in files(disk)} == {"", ".data", ".json"}
    filler.unlink()
    record = partials.append(record.id, record.offset, io.BytesIO(content[record.offset :]))
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_an_upload_that_arrived_whole_before_the_disk_filled_is_completed_later(disk: Path, store: UploadStore) -> None:
    content = bytes(range(256)) * 4096
    partials = Partials(store, max_bytes=1 << 30)
    record = partials.begin(UploadRequest(size=len(content)))
    filler = disk / "filler"

    class Filling(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                fill(disk)
            return data

    with pytest.raises(InsufficientStorage):
        partials.append(record.id, 0, Filling(content))
    filler.unlink()

    assert partials.get(record.id).sha256 == hashlib.sha256(content).hexdigest()
    assert store.has(hashlib.sha256(content).hexdigest())
