"""Uploads that are kept in an object store, for machines that share no disk."""

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingest_parts import counts, ingest
from lookalike.errors import FileMissing, SourceUnavailable
from lookalike.fetched import open_fetched
from lookalike.garbage import collect
from lookalike.records import JobKind, Query, SearchRequest, UploadedFile, UploadRequest, UploadSource
from lookalike.remote import Remote
from lookalike.remote.objects import ObjectStores
from lookalike.settings import Settings
from lookalike.uploads import Area, UploadStore, query_uri, upload_uri
from lookalike.uploads.objects import ObjectFiles
from lookalike.uploads.partials import Partials
from lookalike_worker.context import Context
from lookalike_worker.lanes import SearchLane
from object_store import BUCKET

CONTENT = b"picture" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
LATER_S = 2 * 86_400.0

MakeWorker = Callable[..., Context]
Machine = Callable[..., tuple[Settings, UploadStore]]


@pytest.fixture
def machine(s3: Any, tmp_path: Path) -> Machine:  # noqa: ARG001 - the environment names it
    """Make what a machine with a disk of its own has."""

    def make(name: str, **values: object) -> tuple[Settings, UploadStore]:
        defaults = {"data_dir": tmp_path / name, "uploads_url": f"s3://{BUCKET}/lookalike", "min_free_bytes": 0}
        settings = Settings.model_validate(defaults | values)
        return settings, UploadStore.from_settings(settings)

    return make


def picture(left: str, right: str) -> bytes:
    image = Image.new("RGB", (64, 64), left)
    image.paste(right, (32, 0, 64, 64))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def key(area: Area, sha256: str = SHA) -> str:
    return f"lookalike/{area}/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def read(store: UploadStore, uri: str) -> bytes:
    with store.open(uri) as file:
        return file.read(max_bytes=1 << 20)


def test_what_one_machine_puts_another_opens(s3: Any, machine: Machine, tmp_path: Path) -> None:
    (_, web), (settings, worker) = machine("web"), machine("worker")

    assert web.put(io.BytesIO(CONTENT)) == web.put(io.BytesIO(CONTENT)) == SHA
    web.put(io.BytesIO(CONTENT), area="queries")

    assert keys(s3) == [key("images"), key("queries")]
    assert files(tmp_path / "web") == []
    assert worker.size(SHA) == len(CONTENT)
    assert read(worker, upload_uri(SHA)) == read(worker, query_uri(SHA)) == CONTENT
    # The copy is the one that the worker hands to its decoders.
    with Remote(settings) as remote, open_fetched(remote.cache.folder, remote.ensure(upload_uri(SHA))) as copy:
        assert copy.read(max_bytes=1 << 20) == CONTENT
    assert len(files(tmp_path / "worker")) == 2


def test_what_is_not_there_is_missing(machine: Machine) -> None:
    _, store = machine("web")

    assert not store.has(SHA)
    assert store.size(SHA) is None
    assert list(store.walk("images")) == []
    with pytest.raises(FileMissing):
        store.open(upload_uri(SHA))


def test_an_upload_in_pieces_ends_in_the_store_even_where_that_was_out_of_reach_for_a_while(
    s3: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = machine("web")
    partials = Partials(store, max_bytes=1 << 30)
    record = partials.begin(UploadRequest(size=len(CONTENT), sha256=SHA))
    record = partials.append(record.id, 0, io.BytesIO(CONTENT[:1000]))
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStores, "put", lambda *_: (_ for _ in ()).throw(SourceUnavailable()))
        with pytest.raises(SourceUnavailable):
            partials.append(record.id, 1000, io.BytesIO(CONTENT[1000:]))

    assert partials.get(record.id).sha256 == SHA

    assert s3.get_object(Bucket=BUCKET, Key=key("images"))["Body"].read() == CONTENT
    assert partials.begin(UploadRequest(size=len(CONTENT), sha256=SHA)).sha256 == SHA


def test_asking_for_a_file_that_is_not_fresh_makes_it_young(s3: Any, machine: Machine) -> None:
    settings, store = machine("web")
    store.put(io.BytesIO(CONTENT))
    (before,) = store.walk("images")
    time.sleep(1.0 - time.time() % 1.0)  # Objects' ages are told to the second.
    assert store.has(SHA)
    assert list(store.walk("images")) == [before]

    stale = ObjectFiles(settings.uploads_url or "", store._files._cache, fresh_s=0.0)  # type: ignore[attr-defined]
    assert stale.renew("images", SHA)

    (after,) = store.walk("images")
    assert after.renewed_at > before.renewed_at
    assert store.remove(SHA, older_than=after.renewed_at) is None
    assert s3.get_object(Bucket=BUCKET, Key=key("images"))["Body"].read() == CONTENT


class NoJobs:
    def __init__(self, *in_use: str) -> None:
        self.in_use = frozenset(in_use)

    def uploads_in_use(self) -> frozenset[str]:
        return self.in_use


class NoRows:
    def collections(self) -> list[Any]:
        return []

    def states(self, *asked: object, **how: object) -> dict[str, Any]:
        raise AssertionError(asked, how)


def test_a_worker_that_shares_no_disk_with_the_front_end_stores_and_finds_what_was_uploaded(
    machine: Machine, make_worker: MakeWorker
) -> None:
    _, web = machine("web")
    pictures = [picture("red", "blue"), picture("green", "yellow")]
    sent = tuple(UploadedFile(sha256=web.put(io.BytesIO(data))) for data in pictures)
    web.put(io.BytesIO(pictures[1]), area="queries")
    context = make_worker(uploads_url=f"s3://{BUCKET}/lookalike", min_free_bytes=0)

    record = ingest(context, "objects", source=UploadSource(files=sent))
    assert counts(record) == {"added": 2}
    search = SearchRequest(collection="objects", queries=(Query(upload=sent[1]),), limit=1)
    job, _ = context.jobs.create(JobKind.SEARCH, search)
    SearchLane(context).ring()

    result = context.jobs.get(job.id).result
    assert result
    assert result["queries"][0]["hits"][0]["sha256"] == sent[1].sha256


def test_a_clean_up_removes_objects_and_tells_the_other_machines_how_much_is_used(s3: Any, machine: Machine) -> None:
    _, web = machine("web", upload_quota_bytes=1 << 30)
    settings, worker = machine("worker", upload_quota_bytes=1 << 30)
    used = web.put(io.BytesIO(b"of a job"))
    web.put(io.BytesIO(CONTENT))
    web.put(io.BytesIO(CONTENT), area="queries")

    garbage = collect(settings, NoJobs(used), NoRows(), worker, dry_run=True, now=time.time() + LATER_S)
    assert (garbage.uploads, garbage.freed_bytes) == (2, 2 * len(CONTENT))
    assert collect(settings, NoJobs(used), NoRows(), worker, dry_run=False).uploads == 0
    assert len(keys(s3)) == 4  # With the published count.
    assert machine("other", upload_quota_bytes=1 << 30)[1].used_bytes() == 8 + 2 * len(CONTENT)

    garbage = collect(settings, NoJobs(used), NoRows(), worker, dry_run=False, now=time.time() + LATER_S)

    assert (garbage.uploads, garbage.freed_bytes) == (2, 2 * len(CONTENT))
    assert keys(s3) == [key("images", used), "lookalike/used.json"]
    assert machine("third", upload_quota_bytes=1 << 30)[1].used_bytes() == 8
