"""Clean-ups remove what nothing needs, never what something may, and nothing where that cannot be told."""

import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from lookalike import garbage as garbage_module
from lookalike.errors import JobNotFound, QueueUnavailable, VectorStoreUnavailable
from lookalike.garbage import collect
from lookalike.records import Collection, Garbage, JobRecord, UploadRequest
from lookalike.roots import image_id
from lookalike.settings import Settings
from lookalike.uploads import UploadStore, query_uri, upload_uri
from lookalike.uploads.partials import Partials
from lookalike.vectorstore import RowState
from lookalike_worker.janitor import Janitor

DAY_S = 86_400.0
ROW = RowState(size=1, mtime_ns=1, etag="", job="", sha256="", metadata={})


class Jobs:
    def __init__(self, *in_use: str) -> None:
        self.in_use = set(in_use)

    def uploads_in_use(self) -> frozenset[str]:
        return frozenset(self.in_use)

    def get(self, job_id: str) -> JobRecord:
        raise JobNotFound(job_id)


class Vectors:
    """Collections with rows of uploads; `meanwhile` is called before every look-up."""

    def __init__(self, rows: dict[str, Iterable[str]] | None = None) -> None:
        self.rows = {name: {image_id(upload_uri(sha256)) for sha256 in some} for name, some in (rows or {}).items()}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def collections(self) -> list[Collection]:
        return [Collection(name=name) for name in self.rows]

    def states(self, name: str, ids: Sequence[str], *, settled: bool) -> dict[str, RowState]:
        assert settled
        self.meanwhile()
        self.asked += ids
        return {key: ROW for key in ids if key in self.rows.get(name, set())}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, min_free_bytes=0, upload_ttl_s=DAY_S, result_ttl_s=DAY_S)


@pytest.fixture
def uploads(settings: Settings) -> UploadStore:
    return UploadStore.from_settings(settings)


def path_of(uploads: UploadStore, sha256: str) -> Path:
    (path,) = uploads.folder.rglob(sha256)
    return path


def put(uploads: UploadStore, text: str, *, age_s: float = 2 * DAY_S) -> str:
    sha256 = uploads.put(io.BytesIO(text.encode()))
    os.utime(path_of(uploads, sha256), (time.time() - age_s, time.time() - age_s))
    return sha256


def kept(uploads: UploadStore) -> set[str]:
    return {file.sha256 for file in uploads.walk("images")}


def test_only_old_uploads_go_that_no_row_and_no_job_refers_to(settings: Settings, uploads: UploadStore) -> None:
    stored, elsewhere, in_job = (put(uploads, name) for name in ("stored", "stored elsewhere", "in a job"))
    young, orphan = put(uploads, "young", age_s=DAY_S - 60), put(uploads, "orphan", age_s=DAY_S + 60)
    vectors = Vectors({"one": [stored], "two": [elsewhere], "empty": []})
    jobs = Jobs(in_job)

    assert collect(settings, jobs, vectors, uploads, dry_run=True) == Garbage(dry_run=True, uploads=1, freed_bytes=6)
    assert orphan in kept(uploads)
    assert collect(settings, jobs, vectors, uploads, dry_run=False) == Garbage(dry_run=False, uploads=1, freed_bytes=6)

    assert kept(uploads) == {stored, elsewhere, in_job, young}


def test_what_is_needed_is_not_looked_up_again_before_it_would_be_old_anew(
    settings: Settings, uploads: UploadStore
) -> None:
    stored = put(uploads, "stored")
    vectors = Vectors({"one": [stored]})
    collect(settings, Jobs(), vectors, uploads, dry_run=True)
    collect(settings, Jobs(), vectors, uploads, dry_run=False)
    assert len(vectors.asked) == 2

    collect(settings, Jobs(), vectors, uploads, dry_run=False)
    assert len(vectors.asked) == 2
    vectors.rows.clear()  # The collection is dropped.
    collect(settings, Jobs(), vectors, uploads, dry_run=False, now=time.time() + DAY_S + 60)

    assert kept(uploads) == set()


@pytest.mark.parametrize(
    "again", [lambda uploads, sha256: uploads.has(sha256), lambda uploads, _: uploads.put(io.BytesIO(b"orphan"))]
)
def test_a_file_that_is_wanted_again_between_the_look_and_the_removal_stays(
    settings: Settings, uploads: UploadStore, again: Callable[[UploadStore, str], object]
) -> None:
    orphan = put(uploads, "orphan")
    vectors = Vectors({"one": []})
    vectors.meanwhile = lambda: again(uploads, orphan)

    assert collect(settings, Jobs(), vectors, uploads, dry_run=False).uploads == 0
    assert kept(uploads) == {orphan}


@pytest.mark.parametrize(
    "again", [lambda uploads, sha256: uploads.has(sha256), lambda uploads, _: uploads.put(io.BytesIO(b"orphan"))]
)
def test_nobody_is_told_that_a_file_is_there_while_it_is_being_removed(
    uploads: UploadStore, monkeypatch: pytest.MonkeyPatch, again: Callable[[UploadStore, str], object]
) -> None:
    orphan = put(uploads, "orphan")
    told: list[object] = []
    asking = threading.Thread(target=lambda: told.append(again(uploads, orphan)))
    unlink = Path.unlink

    def unlinked_late(path: Path, missing_ok: bool = False) -> None:
        if path.name == orphan:
            asking.start()
            asking.join(0.2)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlinked_late)

    assert uploads.remove(orphan, older_than=time.time() - 60) == 6

    asking.join(30)
    assert told == ([orphan] if uploads.size(orphan) == 6 else [False])


def test_a_collection_that_is_renamed_during_the_look_is_found_under_its_new_name(
    settings: Settings, uploads: UploadStore
) -> None:
    stored = put(uploads, "stored")
    vectors = Vectors({"a": [], "old": [stored]})

    def rename() -> None:
        if "old" in vectors.rows:
            vectors.rows["a2"] = vectors.rows.pop("old")

    vectors.meanwhile = rename

    assert collect(settings, Jobs(), vectors, uploads, dry_run=False).uploads == 0
    assert kept(uploads) == {stored}


def test_while_collections_come_and_go_without_end_nothing_is_removed(settings: Settings, uploads: UploadStore) -> None:
    orphan = put(uploads, "orphan")
    vectors = Vectors({"one": []})
    vectors.meanwhile = lambda: vectors.rows.setdefault(f"c{len(vectors.asked)}", set())

    assert collect(settings, Jobs(), vectors, uploads, dry_run=False).uploads == 0
    assert kept(uploads) == {orphan}


def fail(error: type[Exception]) -> Callable[..., object]:
    def raising(*_: object, **__: object) -> object:
        raise error

    return raising


@pytest.mark.parametrize(
    ("failing", "orphans"),
    [
        ((Jobs, "uploads_in_use", QueueUnavailable), 1),
        ((Vectors, "collections", VectorStoreUnavailable), 1),
        ((Vectors, "collections", VectorStoreUnavailable), 0),
        ((Vectors, "states", VectorStoreUnavailable), 1),
    ],
)
def test_where_it_cannot_be_told_what_is_needed_nothing_is_removed(
    settings: Settings,
    uploads: UploadStore,
    monkeypatch: pytest.MonkeyPatch,
    failing: tuple[type, str, type[Exception]],
    orphans: int,
) -> None:
    part, method, error = failing
    for number in range(orphans):
        put(uploads, f"orphan {number}")
    Partials(uploads, max_bytes=100).begin(UploadRequest(size=1))
    for path in uploads.folder.rglob("*"):
        os.utime(path, (1, 1))
    before = sorted(uploads.folder.rglob("*"))
    monkeypatch.setattr(part, method, fail(error))

    with pytest.raises(error):
        collect(settings, Jobs(), Vectors({"one": []}), uploads, dry_run=False)

    assert sorted(uploads.folder.rglob("*")) == before


def test_queries_unfinished_uploads_and_copies_of_remote_files_go_too(settings: Settings, uploads: UploadStore) -> None:
    settings = settings.model_copy(update={"fetch_cache_bytes": 5})
    old, young, waiting = (uploads.put(io.BytesIO(text), area="queries") for text in (b"old", b"young", b"waiting"))
    partials = Partials(uploads, max_bytes=100)
    record = partials.begin(UploadRequest(size=10))
    partials.append(record.id, 0, io.BytesIO(b"half"))
    copy = uploads.folder / "fetched" / "aa" / "bb" / ("a" * 32)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"a copy")
    for path in uploads.folder.rglob("*"):
        if path.is_file() and path.name != young:
            os.utime(path, (1, 1))

    for dry_run in (True, False):
        garbage = collect(settings, Jobs(waiting), Vectors(), uploads, dry_run=dry_run)
        assert garbage == Garbage(dry_run=dry_run, uploads=1, parts=1, fetched=1, freed_bytes=3 + 4 + 6)

    assert {file.sha256 for file in uploads.walk("queries")} == {young, waiting}
    assert not list(uploads.folder.rglob(old))
    assert not copy.exists()
    assert not list(uploads.unfinished_folder.iterdir())
    with uploads.open(query_uri(young)) as file:
        assert file.size == 5


def test_files_are_looked_up_in_slabs(
    settings: Settings, uploads: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_module, "_SLAB", 10)
    sent = [put(uploads, f"file {number}") for number in range(35)]
    vectors = Vectors({"one": sent[::2]})
    sizes: list[int] = []
    states = vectors.states
    vectors.states = lambda name, ids, *, settled: sizes.append(len(ids)) or states(name, ids, settled=settled)  # type: ignore[func-returns-value,method-assign]

    collect(settings, Jobs(), vectors, uploads, dry_run=False)

    assert sizes == [10, 10, 10, 5]
    assert kept(uploads) == set(sent[::2])


def test_a_clean_up_puts_the_count_of_what_is_used_right(settings: Settings, uploads: UploadStore) -> None:
    settings = settings.model_copy(update={"upload_quota_bytes": 1000})
    uploads = UploadStore.from_settings(settings)
    put(uploads, "young", age_s=0)
    assert uploads.used_bytes() == 5
    uploads.space.add(900)

    collect(settings, Jobs(), Vectors(), uploads, dry_run=True)
    assert uploads.used_bytes() == 905
    collect(settings, Jobs(), Vectors(), uploads, dry_run=False)
    assert uploads.used_bytes() == 5


# --- The janitor ---


def test_of_janitors_that_share_a_disk_one_cleans_up_at_a_time_and_once_in_a_while(
    settings: Settings, uploads: UploadStore
) -> None:
    orphan = put(uploads, "orphan")
    vectors = Vectors({"one": []})
    others: list[Garbage | None] = []
    other = Janitor(settings, Jobs(), vectors, uploads)
    vectors.meanwhile = lambda: others.append(other.clean())

    assert Janitor(settings, Jobs(), vectors, uploads).clean() == Garbage(dry_run=False, uploads=1, freed_bytes=6)

    assert others == [None]
    assert other.clean() is None  # It was done a moment ago.
    assert orphan not in kept(uploads)
    os.utime(uploads.folder / ".cleaned", (1, 1))
    assert other.clean() == Garbage(dry_run=False)


@pytest.mark.parametrize("problem", [VectorStoreUnavailable(), RuntimeError("a defect")])
def test_a_janitor_that_could_not_ask_tries_again(
    settings: Settings,
    uploads: UploadStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: Exception,
) -> None:
    orphan = put(uploads, "orphan")
    asked = threading.Semaphore(0)

    def down(*_: object) -> list[Collection]:
        asked.release()
        raise problem

    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        patch.setattr(Vectors, "collections", down)
        janitor = Janitor(settings, Jobs(), Vectors({"one": []}), uploads, every_s=0.01)
        janitor.start()
        assert asked.acquire(timeout=30)
        assert asked.acquire(timeout=30)
        assert orphan in kept(uploads)
        patch.undo()
        deadline = time.monotonic() + 30
        while orphan in kept(uploads):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        janitor.stop()
    assert not janitor.is_alive()
    assert "cleaned up: 1 uploads" in caplog.text
