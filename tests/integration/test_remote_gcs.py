"""Google Cloud Storage, as an emulator speaks it: what gcsfs makes of our calls, and what we make of its answers."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.server import create_server

from lookalike.errors import FileMissing, FileTooLarge, FolderNotFound
from lookalike.remote import Remote
from lookalike.remote.objects import ObjectStores
from lookalike.settings import Settings
from lookalike.uploads import UploadStore
from ports import free_port

BUCKET = "pictures"


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStores]:
    port = free_port()
    server: Any = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    # Nobody is asked for credentials, neither this account's files nor a cloud this machine may be in.
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    yield ObjectStores()
    server.stop()


def put(stores: ObjectStores, folder: Path, key: str, data: bytes = b"x") -> str:
    file = folder / "put"
    file.write_bytes(data)
    stores.put(file, f"gs://{BUCKET}/{key}")
    return f"gs://{BUCKET}/{key}"


def test_a_bucket_is_listed_in_key_order_and_from_any_object_on(stores: ObjectStores, tmp_path: Path) -> None:
    keys = ["a b.jpg", "a-b.jpg", "a.jpg", "a/1.jpg", "a/2/3.jpg", "b.jpg", "ä.jpg"]
    uris = [put(stores, tmp_path, key) for key in reversed(keys)][::-1]
    settings = Settings(data_dir=tmp_path, object_roots=(f"gs://{BUCKET}", "gs://missing"))
    with Remote(settings) as remote:
        assert [found.uri for found in remote.objects(f"gs://{BUCKET}/", after=None)] == uris
        for place in (0, 2, 3):
            assert [found.uri for found in remote.objects(f"gs://{BUCKET}/", after=uris[place])] == uris[place + 1 :]
        assert [found.uri for found in remote.objects(f"gs://{BUCKET}/a", after=None)] == uris[3:5]
        with pytest.raises(FolderNotFound):
            list(remote.objects("gs://missing/", after=None))


def test_an_object_is_described_copied_and_missed_as_in_any_store(stores: ObjectStores, tmp_path: Path) -> None:
    uri = put(stores, tmp_path, "photos/a b.jpg", b"first")
    (listed,) = stores.walk(f"gs://{BUCKET}/photos/", after=None)
    assert listed == stores.info(uri), "or every ingest would take it for changed"
    assert (listed.size, listed.etag) == (5, base64.b64encode(hashlib.md5(b"first").digest()).decode())
    assert listed.mtime_ns > 0
    target = tmp_path / "copy"
    assert stores.copy(uri, target, max_bytes=5) == listed
    assert (target.read_bytes(), stores.read(uri, 1, 3)) == (b"first", b"ir")
    with pytest.raises(FileTooLarge):
        stores.copy(uri, target, max_bytes=4)
    for absent in (f"gs://{BUCKET}/absent.jpg", "gs://missing/a.jpg"):
        with pytest.raises(FileMissing):
            stores.info(absent)
    put(stores, tmp_path, "photos/a b.jpg", b"second")
    assert stores.info(uri).etag != listed.etag


@pytest.mark.usefixtures("stores")
def test_uploads_live_in_a_bucket(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, uploads_url=f"gs://{BUCKET}/kept", min_free_bytes=0)
    store = UploadStore.from_settings(settings)
    with (tmp_path / "picture").open("w+b") as file:
        file.write(b"picture")
        file.seek(0)
        sha256 = store.put(file)
    assert sha256 == hashlib.sha256(b"picture").hexdigest()
    assert (store.has(sha256), store.size(sha256)) == (True, 7)
    assert [kept.sha256 for kept in store.walk("images")] == [sha256]
    assert store.remove(sha256, older_than=0) is None
    assert store.remove(sha256, older_than=1e12) == 7
    assert not store.has(sha256)
