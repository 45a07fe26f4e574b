"""Uploads appear complete or not at all, are kept once, and queries expire."""

import errno
import hashlib
import io
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest

from lookalike import uploads as uploads_module
from lookalike.errors import FileEmpty, FileMissing, FileTooLarge, InsufficientStorage, InvalidFilename, NotRegularFile
from lookalike.roots import Roots
from lookalike.sources import Sources
from lookalike.uploads import UploadStore, query_uri, upload_uri

CONTENT = b"picture" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", min_free_bytes=0, max_file_bytes=3 << 20)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_upload_is_kept_once_by_its_hash_and_opened_by_its_uri(store: UploadStore, tmp_path: Path) -> None:
    assert store.put(io.BytesIO(CONTENT)) == SHA
    assert store.put(io.BytesIO(CONTENT)) == SHA

    assert files(tmp_path) == [tmp_path / "uploads" / "images" / SHA[:2] / SHA[2:4] / SHA]
    with store.open(upload_uri(SHA)) as file:
        assert file.read(max_bytes=1 << 20) == CONTENT


def test_images_and_queries_are_apart(store: UploadStore) -> None:
    store.put(io.BytesIO(CONTENT), area="queries")

    with store.open(query_uri(SHA)) as file:
        assert file.size == len(CONTENT)
    with pytest.raises(FileMissing):
        store.open(upload_uri(SHA))


class Breaking(io.BytesIO):
    """A sender that goes away in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 2 << 20:
            raise ConnectionResetError
        return super().read(size)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (io.BytesIO(bytes((3 << 20) + 1)), FileTooLarge),
        (Breaking(bytes(3 << 20)), ConnectionResetError),
    ],
)
def test_a_failed_upload_leaves_nothing_behind(
    store: UploadStore, tmp_path: Path, stream: io.BytesIO, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.put(stream)

    assert files(tmp_path) == []


def test_an_empty_upload_is_kept_for_the_ledger_to_tell_of(store: UploadStore) -> None:
    with store.open(upload_uri(store.put(io.BytesIO()))) as file, pytest.raises(FileEmpty):
        file.read(max_bytes=1)


def test_an_upload_of_exactly_the_limit_is_kept(store: UploadStore) -> None:
    assert store.put(io.BytesIO(bytes(3 << 20)))


def test_nothing_is_read_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    store = UploadStore(tmp_path / "uploads", min_free_bytes=1 << 60, max_file_bytes=1 << 20)
    stream = io.BytesIO(CONTENT)

    with pytest.raises(InsufficientStorage):
        store.put(stream)

    assert stream.tell() == 0
    assert files(tmp_path) == []


def test_a_disk_that_fills_while_an_upload_is_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    left = iter([usage(1 << 30), usage(0)])
    monkeypatch.setattr(uploads_module.shutil, "disk_usage", lambda _folder: next(left))
    store = UploadStore(tmp_path / "uploads", min_free_bytes=1, max_file_bytes=1 << 30)

    with pytest.raises(InsufficientStorage):
        store.put(io.BytesIO(bytes(32 << 20)))

    assert files(tmp_path) == []


def test_a_full_disk_is_insufficient_storage(store: UploadStore, tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InsufficientStorage):
        store.put(Full())

    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "uri", ["upload:" + "0" * 64, "upload:../../x", "upload:", "other:" + SHA, SHA, "upload:" + SHA + "\n"]
)
def test_a_uri_that_no_upload_has_is_missing(store: UploadStore, uri: str) -> None:
    store.put(io.BytesIO(CONTENT))

    with pytest.raises(FileMissing):
        store.open(uri)


def test_an_upload_that_was_replaced_by_a_link_is_not_followed(store: UploadStore, tmp_path: Path) -> None:
    store.put(io.BytesIO(CONTENT))
    (path,) = files(tmp_path / "uploads")
    path.unlink()
    path.symlink_to("/etc/passwd")

    with pytest.raises(NotRegularFile):
        store.open(upload_uri(SHA))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_old_queries_and_abandoned_parts_expire_and_images_do_not(store: UploadStore, tmp_path: Path) -> None:
    for area in ("images", "queries"):
        store.put(io.BytesIO(CONTENT), area=area)
        (tmp_path / "uploads" / area / "dead.part").write_bytes(b"half")
        (tmp_path / "uploads" / area / "alive.part").write_bytes(b"half")
    for path in files(tmp_path):
        if path.name != "alive.part":
            age(path, 3600)

    assert store.expire_queries(older_than_s=60) == 3

    assert {path.relative_to(tmp_path / "uploads").parts[0] + "/" + path.name for path in files(tmp_path)} == {
        f"images/{SHA}",
        "images/alive.part",
        "queries/alive.part",
    }


def test_sending_a_query_again_renews_it(store: UploadStore, tmp_path: Path) -> None:
    store.put(io.BytesIO(CONTENT), area="queries")
    (path,) = files(tmp_path)
    age(path, 3600)
    store.put(io.BytesIO(CONTENT), area="queries")

    assert store.expire_queries(older_than_s=60) == 0
    assert path.exists()


def test_expiring_before_the_first_upload_removes_nothing(store: UploadStore) -> None:
    assert store.expire_queries(older_than_s=0) == 0


def test_sources_open_every_kind_of_uri(store: UploadStore, tmp_path: Path) -> None:
    root = tmp_path.resolve() / "root"
    root.mkdir()
    (root / "a.jpg").write_bytes(CONTENT)
    sources = Sources(Roots([root]), store)
    store.put(io.BytesIO(CONTENT))
    store.put(io.BytesIO(CONTENT), area="queries")

    for uri in ((root / "a.jpg").as_uri(), upload_uri(SHA), query_uri(SHA)):
        with sources.open(uri) as file:
            assert file.read(max_bytes=1 << 20) == CONTENT
    with pytest.raises(InvalidFilename):
        sources.open("s3://bucket/a.jpg")
