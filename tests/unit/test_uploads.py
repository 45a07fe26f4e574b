"""Uploads appear complete or not at all, are kept once, and queries expire."""

import hashlib
import io
import os
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.errors import FileEmpty, FileMissing, FileTooLarge, InsufficientStorage, InvalidFilename, NotRegularFile
from lookalike.roots import Roots
from lookalike.sources import Sources
from lookalike.uploads import UploadStore, query_uri, space, upload_uri

CONTENT = b"picture" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", min_free_bytes=0, max_file_bytes=3 << 20)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


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
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _folder: next(left))
    store = UploadStore(tmp_path / "uploads", min_free_bytes=1, max_file_bytes=1 << 30)

    with pytest.raises(InsufficientStorage):
        store.put(io.BytesIO(bytes(32 << 20)))

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


@pytest.mark.parametrize("renew", [lambda store: store.put(io.BytesIO(CONTENT)), lambda store: store.has(SHA)])
def test_a_file_that_is_sent_or_asked_for_again_is_young_again_and_not_removed(
    store: UploadStore, tmp_path: Path, renew: Callable[[UploadStore], object]
) -> None:
    store.put(io.BytesIO(CONTENT))
    (path,) = files(tmp_path)
    age(path, 3600)
    (found,) = store.walk("images")
    assert found.renewed_at == pytest.approx(time.time() - 3600, abs=5)

    renew(store)

    assert store.remove(SHA, older_than=time.time() - 60) is None
    assert path.exists()
    age(path, 3600)
    assert store.remove(SHA, older_than=time.time() - 60) == len(CONTENT)
    assert store.remove(SHA, older_than=time.time() - 60) is None
    assert files(tmp_path) == []


def test_what_is_not_there_is_not_renewed_and_has_no_size(store: UploadStore) -> None:
    for sha256 in (SHA, "../" + SHA, "", SHA + "\n"):
        assert not store.has(sha256)
        assert store.size(sha256) is None

    store.put(io.BytesIO(CONTENT))

    assert store.has(SHA)
    assert store.size(SHA) == len(CONTENT)
    assert not store.has(SHA, area="queries")


def test_a_walk_finds_every_kept_file_and_nothing_else(store: UploadStore, tmp_path: Path) -> None:
    sent = {store.put(io.BytesIO(bytes([number]))) for number in range(50)}
    store.put(io.BytesIO(CONTENT), area="queries")
    leaf = tmp_path / "uploads" / "images" / SHA[:2] / SHA[2:4]
    leaf.mkdir(parents=True)
    (leaf / "notes.txt").write_text("not ours")

    assert sorted(kept.sha256 for kept in store.walk("images")) == sorted(sent)
    assert [kept.sha256 for kept in store.walk("queries")] == [SHA]


def test_a_walk_does_not_hold_what_it_has_not_come_to(store: UploadStore, tmp_path: Path) -> None:
    first, *_, last = sorted(store.put(io.BytesIO(bytes([number]))) for number in range(50))
    walk = store.walk("images")

    assert next(walk).sha256 == first
    next(path for path in files(tmp_path) if path.name == last).unlink()

    assert last not in {kept.sha256 for kept in walk}


def limited(folder: Path, quota_bytes: int) -> UploadStore:
    return UploadStore(folder, min_free_bytes=0, max_file_bytes=3 << 20, quota_bytes=quota_bytes)


def test_what_is_used_is_counted_as_files_come_and_go_by_every_process(tmp_path: Path) -> None:
    first, second = limited(tmp_path, 1 << 30), limited(tmp_path, 1 << 30)
    assert first.used_bytes() == 0

    first.put(io.BytesIO(bytes(1000)))
    second.put(io.BytesIO(bytes(1000)))  # The same again.
    other = second.put(io.BytesIO(bytes(500)), area="queries")
    assert first.used_bytes() == second.used_bytes() == 1500

    first.remove(other, area="queries", older_than=time.time() + 60)
    assert second.used_bytes() == 1000


def test_no_request_after_the_first_walks_through_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = limited(tmp_path, 1 << 30)
    store.put(io.BytesIO(b"one"))
    monkeypatch.setattr(UploadStore, "walk", lambda *_: pytest.fail("walked"))

    store.put(io.BytesIO(b"two"))

    assert store.used_bytes() == 6


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("12")])
def test_a_lost_or_broken_count_is_made_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    store = limited(tmp_path, 1 << 30)
    store.put(io.BytesIO(bytes(1000)))
    assert store.used_bytes() == 1000

    spoil(tmp_path / "used")

    assert store.used_bytes() == 1000
    store.put(io.BytesIO(b"more"))
    assert store.used_bytes() == 1004


def test_a_count_that_went_wrong_is_put_right_by_the_next(tmp_path: Path) -> None:
    store = limited(tmp_path, 1 << 30)
    store.put(io.BytesIO(bytes(1000)))
    assert store.used_bytes() == 1000
    store.space.add(77_777)  # As of a process that died between a booking and its change.

    assert store.recount() == 1000
    assert store.used_bytes() == 1000


def test_the_quota_refuses_what_would_pass_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = limited(tmp_path, 20 << 20)

    for number in range(6):
        store.put(io.BytesIO(bytes([number]) * (3 << 20)))

    with pytest.raises(InsufficientStorage, match="QUOTA"):
        store.put(io.BytesIO(bytes([6]) * (3 << 20)))

    assert store.used_bytes() == 18 << 20
    assert sum(path.stat().st_size for path in files(tmp_path) if path.name != "used") == 18 << 20


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
