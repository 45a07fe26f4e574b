"""Exports and imports by a worker's ingest lane, on real stores: from one service into another."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ingest_parts import MODEL, work_off
from lookalike.jobstore import StepClaim
from lookalike.records import CollectionRequest, IndexKind, JobKind, JobRecord, JobState, Metric, UploadedFile
from lookalike.records.exports import ExportRequest, ImportRequest
from lookalike.roots import image_id
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage
from lookalike_worker import steps
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane
from lookalike_worker.steps import exports, imports

Make = Callable[..., Context]

MATRIX = np.random.default_rng(7).normal(size=(13, MODEL.dim)).astype(np.float32)
OTHER_MODEL = MODEL.model_copy(update={"fingerprint": "b" * 64})


def stored_images(count: int) -> list[StoredImage]:
    """Images in the order of their ids, one of them a duplicate of another."""
    uris = [f"file:///pictures/Nº {number}.jpg".replace(" ", "%20").replace("º", "%C2%BA") for number in range(count)]
    images = [
        StoredImage(
            id=image_id(uri),
            uri=uri,
            name=f"Nº {number}.jpg",
            sha256=f"{number:064x}",
            size=100 + number,
            mtime_ns=1_700_000_000_123_456_789 + number,
            width=640,
            height=480,
            job="01JOLD",
            etag=f"etag {number}",
            metadata={"number": number, "album": "größer", "tags": ["a", "b"], "ratio": 0.5, "open": True},
        )
        for number, uri in enumerate(uris)
    ]
    images[3] = replace(images[3], sha256=images[2].sha256, duplicate_of=images[2].id)
    return sorted(images, key=lambda image: image.id)


@pytest.fixture
def source(make_worker: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A worker whose collection `origin` has 13 images, compared by L2; steps of six images, in pages of four."""
    monkeypatch.setattr(exports, "STEP_IMAGES", 6)
    monkeypatch.setattr(exports, "PAGE_IMAGES", 4)
    monkeypatch.setattr(imports, "STEP_IMAGES", 5)
    context = make_worker()
    context.vectors.create(CollectionRequest(name="origin", metric=Metric.L2, index=IndexKind.FLAT))
    context.vectors.bind("origin", MODEL)
    context.vectors.upsert("origin", stored_images(13), MATRIX)
    yield context
    for record in context.vectors.collections():
        context.vectors.drop(record.name)


@pytest.fixture
def elsewhere(make_worker: Make, worker_settings: Settings, tmp_path: Path) -> Iterator[Context]:
    """A worker of another service: with a Redis, a Milvus and a data folder of its own, and the same root."""
    from servers import start_milvus_lite

    (tmp_path / "elsewhere").mkdir()
    redis_url = worker_settings.redis_url.get_secret_value().rstrip("/").removesuffix("/0") + "/1"
    with start_milvus_lite(tmp_path / "elsewhere") as (uri, _):
        yield make_worker(
            milvus_uri=uri, redis_url=type(worker_settings.redis_url)(redis_url), data_dir=tmp_path / "their data"
        )


def export(context: Context, **fields: object) -> JobRecord:
    request = ExportRequest.model_validate({"collection": "origin", **fields})
    return work_off(context, context.jobs.create(JobKind.EXPORT, request)[0].id, wait_s=0)


def import_(context: Context, **fields: object) -> JobRecord:
    request = ImportRequest.model_validate({"collection": "restored", **fields})
    return work_off(context, context.jobs.create(JobKind.IMPORT, request)[0].id, wait_s=0)


def download(context: Context, job_id: str, folder: Path) -> Path:
    """Fetch a job's files as a client would."""
    folder.mkdir()
    for file in context.artifacts.of(job_id):
        (folder / file.name).write_bytes(b"".join(context.artifacts.read(job_id, file.name)))
    return folder


def content(context: Context, name: str) -> list[dict[str, Any]]:
    """All of a collection but the job that stored it."""
    images, vectors = context.vectors.matching_vectors(name, None, after=None, limit=100)
    return [{**vars(image), "job": "", "vector": tuple(row)} for image, row in zip(images, vectors, strict=True)]


def found(context: Context, name: str) -> list[list[tuple[str, float]]]:
    """What searches find."""
    answers = context.vectors.search(name, MATRIX[:4] + 0.01, limit=5)
    return [[(hit.image.id, hit.distance) for hit in hits] for hits in answers]


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_collection_is_the_same_on_another_machine(
    source: Context, elsewhere: Context, image_root: Path, format: str
) -> None:
    record = export(source, format=format)
    assert (record.state, record.progress.done, record.progress.total) == (JobState.SUCCEEDED, 13, 13), record.error
    download(source, record.id, image_root / "backup")

    restored = import_(elsewhere, path="backup")

    assert (restored.state, restored.progress.done) == (JobState.SUCCEEDED, 13), restored.error
    assert restored.result
    assert (restored.result["stored"], restored.result["failed"]) == (13, 0)
    there = elsewhere.vectors.collection("restored")
    assert (there.metric, there.index, there.model) == (Metric.L2, IndexKind.FLAT, MODEL)
    assert content(elsewhere, "restored") == content(source, "origin")
    assert found(elsewhere, "restored") == found(source, "origin")
    assert elsewhere.vectors.same_content("restored", [stored_images(13)[0].sha256])
    import_(elsewhere, path="backup")
    assert elsewhere.vectors.count("restored") == 13


def test_an_export_is_imported_by_its_job_and_by_uploads(source: Context) -> None:
    record = export(source, filter="number < 7")
    assert (record.result or {})["images"] == 7
    assert [file.name for file in source.artifacts.of(record.id)] == [
        "collection.json",
        "images-00000.parquet",
        "images-00001.parquet",
    ]
    assert import_(source, job_id=record.id).state is JobState.SUCCEEDED
    assert source.vectors.count("restored") == 7
    uploads = [
        UploadedFile(sha256=source.sources.uploads.put(source.artifacts.open(record.id, file.name)), name=file.name)
        for file in source.artifacts.of(record.id)
    ]
    assert import_(source, collection="uploaded", uploads=uploads).state is JobState.SUCCEEDED
    assert content(source, "uploaded") == content(source, "restored")
    lone = import_(source, collection="lone", uploads=uploads[2:])
    assert (lone.result or {})["stored"] == 1, "one file alone says what it is"


def test_the_files_are_what_other_programs_read(source: Context, tmp_path: Path) -> None:
    folder = download(source, export(source).id, tmp_path / "parquet")
    header = json.loads((folder / "collection.json").read_text())
    assert (header["images"], header["files"], header["model"]["fingerprint"]) == (13, 3, MODEL.fingerprint)
    tables = [pyarrow.parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    table = pyarrow.concat_tables(tables)
    assert table.num_rows == 13
    assert table.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), MODEL.dim)
    assert table.column("id").to_pylist() == [image.id for image in stored_images(13)]
    np.testing.assert_array_equal(np.stack(table.column("vector").to_numpy()), MATRIX)
    assert pyarrow.parquet.ParquetFile(folder / "images-00000.parquet").num_row_groups == 2
    folder = download(source, export(source, format="npy").id, tmp_path / "npy")
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), MATRIX)
    lines = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    assert [line["metadata"] for line in lines] == [image.metadata for image in stored_images(13)]


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_step_that_is_done_again_leaves_one_part_and_none_of_what_was_deleted(source: Context, format: str) -> None:
    request = ExportRequest.model_validate({"collection": "origin", "format": format})
    job_id = source.jobs.create(JobKind.EXPORT, request)[0].id
    lane = IngestLane(source, lambda: False)
    for _ in range(3):  # The count, and two parts of six.
        lane.ring()
    claim = source.jobs.claim_ingest()
    assert isinstance(claim, StepClaim)
    steps.WORK[JobKind.EXPORT](source, claim, lambda: None)  # The last image, never handed in...
    source.vectors.delete("origin", [stored_images(13)[12].id])  # ...is deleted.
    source.jobs.give_back(claim)
    record = work_off(source, job_id, lane=lane, wait_s=0)
    lane.close()
    assert (record.progress.done, (record.result or {})["images"]) == (12, 12)
    assert import_(source, job_id=job_id).state is JobState.SUCCEEDED
    assert content(source, "restored") == content(source, "origin")


def test_another_model_is_refused_before_anything_is_written(source: Context) -> None:
    record = export(source)
    source.vectors.bind("restored", OTHER_MODEL)
    refused = import_(source, job_id=record.id)
    assert refused.state is JobState.FAILED
    assert refused.error
    assert refused.error.code == "model_mismatch"
    assert source.vectors.count("restored") == 0


def test_vectors_of_another_model_are_not_handed_to_the_workers_of_the_collections_own(source: Context) -> None:
    source.heart.beat()
    assert MODEL.fingerprint in {worker.model.fingerprint for worker in source.jobs.workers()}
    source.vectors.bind("foreign", OTHER_MODEL)
    source.vectors.upsert("foreign", stored_images(4), MATRIX[:4])
    refused = import_(source, collection="origin", job_id=export(source, collection="foreign").id)
    assert refused.error
    assert refused.error.code == "model_mismatch"
    assert source.vectors.count("origin") == 13


def test_an_empty_collection_is_restored_with_its_settings(source: Context) -> None:
    source.vectors.create(CollectionRequest(name="empty", metric=Metric.IP, index=IndexKind.HNSW))
    for format in ("parquet", "npy"):
        record = export(source, collection="empty", format=format)
        restored = import_(source, collection=f"from_{format}", job_id=record.id)
        assert restored.state is JobState.SUCCEEDED, restored.error
        there = source.vectors.collection(f"from_{format}")
        assert (there.metric, there.index, there.model) == (Metric.IP, IndexKind.HNSW, None)


def test_rows_that_cannot_be_used_are_in_the_ledger_and_the_others_are_stored(
    source: Context, image_root: Path
) -> None:
    folder = download(source, export(source, format="npy").id, image_root / "backup")
    matrix = MATRIX.copy()
    matrix[0, 3], matrix[1] = np.nan, 0
    np.save(folder / "vectors.npy", matrix)
    lines = (folder / "images.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[2]["id"] = rows[3]["id"]
    rows[4]["uri"] = "fetched:" + "0" * 32
    rows[4]["id"] = image_id(rows[4]["uri"])
    rows[5]["metadata"] = {"id": 1}
    rows[6]["width"] = "wide"
    written = [json.dumps(row) for row in rows]
    written[7] = "not JSON"
    (folder / "images.jsonl").write_text("\n".join(written) + "\n")

    record = import_(source, path="backup")

    assert (record.state, record.progress.failed, record.progress.done) == (JobState.SUCCEEDED, 7, 13)
    assert record.failure_counts == {"vector_invalid": 2, "row_invalid": 5}
    ledger = source.jobs.failures(record.id).failures
    assert {failure.uri for failure in ledger} >= {rows[0]["uri"], rows[2]["uri"], "images.jsonl: Line 8"}
    origin = content(source, "origin")
    assert content(source, "restored") == [origin[3], *origin[8:]]


def damaged(folder: Path, what: str) -> None:
    file = folder / "images-00001.parquet"
    data = file.read_bytes()
    match what:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            middle = len(data) // 3
            file.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
        case "emptied":
            table = pyarrow.parquet.read_table(file)
            pyarrow.parquet.write_table(table.slice(0, 1), file)
        case "foreign":
            (folder / "collection.json").write_text("{}")


@pytest.mark.parametrize("what", ["missing", "cut", "flipped", "emptied", "foreign"])
def test_files_that_are_damaged_or_not_all_there_are_never_taken_for_whole(
    source: Context, image_root: Path, what: str
) -> None:
    damaged(download(source, export(source).id, image_root / "backup"), what)
    record = import_(source, path="backup")
    assert record.state is JobState.FAILED
    assert record.error
    assert record.error.code == "export_invalid", record.error
