"""Object stores: a real S3 API over HTTP, and a driver that only knows folders."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import _registry

from lookalike.errors import (
    ArchiveTooLarge,
    FileMissing,
    FileTooLarge,
    FolderNotFound,
    InvalidPath,
    MissingExtra,
    PermissionDenied,
    SourceUnavailable,
)
from lookalike.fetched import fetched_uri
from lookalike.remote import ObjectInfo, Remote, objects
from lookalike.settings import Settings
from object_store import BUCKET
from ports import free_port


def make_remote(folder: Path, **values: object) -> Remote:
    defaults = {"data_dir": folder, "object_roots": (f"s3://{BUCKET}", "s3://missing"), "min_free_bytes": 0}
    return Remote(Settings.model_validate(defaults | values))


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with make_remote(tmp_path) as made:
        yield made


def put(s3: Any, key: str, data: bytes = b"x") -> str:
    s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    return f"s3://{BUCKET}/{key}"


def test_objects_are_listed_in_key_order_over_pages_and_from_any_of_them(
    s3: Any, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 3)
    keys = ["a b.jpg", "a-b.jpg", "a.jpg", "a/1.jpg", "a/2/3.jpg", "a0.jpg", "b.jpg", "ä.jpg"]
    for key in [*reversed(keys), "a/", "folder/"]:
        put(s3, key)
    uris = [f"s3://{BUCKET}/{key}" for key in keys]
    assert [found.uri for found in remote.objects(f"s3://{BUCKET}/", after=None)] == uris
    for place, uri in enumerate(uris):
        assert [found.uri for found in remote.objects(f"s3://{BUCKET}/", after=uri)] == uris[place + 1 :]
    assert [found.uri for found in remote.objects(f"s3://{BUCKET}/a", after=None)] == uris[3:5]
    assert list(remote.objects(f"s3://{BUCKET}/none/", after=None)) == []


def test_an_object_is_copied_and_its_listing_tells_whether_it_has_changed(s3: Any, remote: Remote) -> None:
    uri = put(s3, "photos/a b.jpg", b"first")
    (listed,) = remote.objects(f"s3://{BUCKET}/photos/", after=None)
    fetched = remote.fetch(uri).result()
    assert fetched.uri == fetched_uri(uri)
    assert (listed.size, listed.mtime_ns, listed.etag) == (fetched.size, fetched.mtime_ns, fetched.etag)
    assert listed.etag == hashlib.md5(b"first").hexdigest()
    assert listed.mtime_ns > 0
    with remote.local(uri) as file:
        assert file.read(max_bytes=10) == b"first"
    assert remote.fetch(uri, etag=listed.etag).result().not_modified
    put(s3, "photos/a b.jpg", b"second")
    assert remote.fetch(uri, etag=listed.etag).result().size == 6
    with remote.local(uri) as file:
        assert file.read(max_bytes=10) == b"second"


def test_what_is_wrong_with_one_object_is_told_apart(s3: Any, tmp_path: Path) -> None:
    uri = put(s3, "a.jpg", b"too large")
    with make_remote(tmp_path, max_file_bytes=4) as remote:
        with pytest.raises(FileTooLarge):
            remote.fetch(uri).result()
        with pytest.raises(FileMissing):
            remote.fetch(f"s3://{BUCKET}/b.jpg").result()
        assert remote.exists(uri)
        assert not remote.exists(f"s3://{BUCKET}/b.jpg")
        assert [path for path in remote.cache.folder.rglob("*") if path.is_file()] == []


def test_only_what_lies_under_an_object_root_is_read_whatever_was_allowed_before(s3: Any, tmp_path: Path) -> None:
    uri = put(s3, "secret/a.jpg")
    with make_remote(tmp_path, object_roots=(f"s3://{BUCKET}/photos",)) as remote:
        with pytest.raises(PermissionDenied):
            remote.fetch(uri).result()
        with pytest.raises(PermissionDenied):
            remote.fetch(f"s3://{BUCKET}/photos/../secret/a.jpg").result()
        with pytest.raises(InvalidPath):
            remote.objects(f"s3://{BUCKET}/secret/", after=None)


def test_a_missing_bucket_is_a_missing_folder(s3: Any, remote: Remote) -> None:
    assert s3
    with pytest.raises(FolderNotFound):
        list(remote.objects("s3://missing/photos/", after=None))


def test_a_store_that_cannot_be_reached_is_no_fault_of_the_file(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(s3, "a.jpg")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with make_remote(tmp_path) as remote:
        with pytest.raises(SourceUnavailable):
            remote.fetch(uri).result()
        with pytest.raises(SourceUnavailable):
            list(remote.objects(f"s3://{BUCKET}/", after=None))


def test_a_large_object_is_downloaded_in_parts_and_gone_on_with(
    s3: Any, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.remote.downloads._BLOCK", 100_000)
    data = hashlib.shake_128(b"archive").digest(350_000)
    uri = put(s3, "a.tar", data)
    beats: list[int] = []

    def keep() -> None:
        beats.append(1)
        if len(beats) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        remote.download(uri, keep=keep)
    beats = [1] * 10
    path = remote.download(uri, keep=keep)
    assert path.read_bytes() == data
    assert len(beats) == 12  # two more parts: the first two were there
    assert remote.download(uri, keep=keep) == path
    put(s3, "a.tar", data[::-1])
    assert remote.download(uri, keep=keep).read_bytes() == data[::-1]


def test_a_download_larger_than_an_archive_may_be_is_refused(s3: Any, tmp_path: Path) -> None:
    uri = put(s3, "a.tar", b"x" * 100)
    with make_remote(tmp_path, max_archive_bytes=99) as remote, pytest.raises(ArchiveTooLarge):
        remote.download(uri, keep=lambda: None)


def test_uploads_that_are_kept_in_an_object_store_are_fetched_from_there(s3: Any, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"upload").hexdigest()
    put(s3, f"kept/images/{sha256[:2]}/{sha256[2:4]}/{sha256}", b"upload")
    with (
        make_remote(tmp_path, uploads_url=f"s3://{BUCKET}/kept", object_roots=()) as remote,
        remote.local(f"upload:{sha256}") as file,
    ):
        assert file.read(max_bytes=10) == b"upload"


def test_a_driver_that_only_knows_folders_lists_in_the_same_order(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    keys = ["a b.jpg", "a-b.jpg", "a.jpg", "a/1.jpg", "a/2/3.jpg", "a0.jpg", "b.jpg"]
    for key in reversed(keys):
        memory.pipe_file(f"/{BUCKET}/{key}", b"x")
    uris = [f"gs://{BUCKET}/{key}" for key in keys]
    settings = Settings.model_validate({"data_dir": tmp_path, "object_roots": (f"gs://{BUCKET}",), "min_free_bytes": 0})
    with Remote(settings, load=lambda _: memory) as remote:
        found = list(remote.objects(f"gs://{BUCKET}/", after=None))
        assert [info.uri for info in found] == uris
        assert found[0] == ObjectInfo(uri=uris[0], size=1, mtime_ns=found[0].mtime_ns, etag="")
        for place, uri in enumerate(uris):
            assert [info.uri for info in remote.objects(f"gs://{BUCKET}/", after=uri)] == uris[place + 1 :]
        assert [info.uri for info in remote.objects(f"gs://{BUCKET}/a/", after=None)] == uris[3:5]
        assert list(remote.objects(f"gs://{BUCKET}/none/", after=None)) == []
        assert remote.fetch(uris[0]).result().size == 1
    memory.store.clear()


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(_registry, "gs", raising=False)  # As it is where nothing asked for it before.
    with (
        make_remote(tmp_path, object_roots=(f"gs://{BUCKET}",)) as remote,
        pytest.raises(MissingExtra, match=r"lookalike\[gcs\]"),
    ):
        remote.fetch(f"gs://{BUCKET}/a.jpg").result()
