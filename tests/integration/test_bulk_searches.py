"""Bulk searches by a worker's ingest lane, with real decoders, on a real job store and a real vector store."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingest_parts import MODEL, draw, engine_of, ingest, work_off
from lookalike.jobstore import StepClaim
from lookalike.records import BulkSearchRequest, JobKind, JobRecord, JobState
from lookalike.uploads import UploadStore
from lookalike_worker import steps
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane
from lookalike_worker.steps import bulk

Make = Callable[..., Context]


@pytest.fixture
def stored(make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A worker whose collection has five pictures; it reads two queries at a time and takes two in a step."""
    monkeypatch.setattr(bulk, "READ_QUERIES", 2)
    monkeypatch.setattr(bulk, "STEP_QUERIES", 2)
    context = make_worker()
    draw(image_root, **{f"shelf__{number}": number for number in range(5)})
    ingest(context, "bulk")
    yield context
    if "bulk" in [record.name for record in context.vectors.collections()]:
        context.vectors.drop("bulk")


def submit(context: Context, **fields: Any) -> str:
    source = {"type": "folder", "path": "asked"}
    request = BulkSearchRequest.model_validate({"collection": "bulk", "limit": 2, "source": source, **fields})
    return context.jobs.create(JobKind.BULK_SEARCH, request)[0].id


def file(context: Context, job_id: str, name: str) -> bytes:
    return b"".join(context.artifacts.read(job_id, name))


def lines(context: Context, job_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file(context, job_id, "results.jsonl").splitlines()]


def names(context: Context, job_id: str) -> list[str]:
    return [line["query"]["name"] for line in lines(context, job_id)]


def result(record: JobRecord) -> dict[str, Any]:
    assert record.result, record.error
    return record.result


def test_each_image_of_a_folder_is_answered_in_its_order_in_every_file(stored: Context, image_root: Path) -> None:
    draw(image_root, **{f"asked__{number}": number for number in range(5)})
    (image_root / "asked" / "2b.jpg").write_bytes(b"\xff\xd8\xff this is no picture")
    record = work_off(stored, submit(stored))
    assert (record.state, record.progress.total, record.progress.done) == (JobState.SUCCEEDED, 6, 6)
    assert record.progress.failed == 1
    found = lines(stored, record.id)
    assert [line["number"] for line in found] == [1, 2, 3, 4, 5, 6]
    assert [line["query"]["name"] for line in found] == ["0.png", "1.png", "2.png", "2b.jpg", "3.png", "4.png"]
    assert [line["hits"][0]["name"] for line in found if line["hits"]] == [f"{number}.png" for number in range(5)]
    assert {line["hits"][0]["band"] for line in found if line["hits"]} == {"identical"}
    (failure,) = stored.jobs.failures(record.id).failures
    assert (failure.name, failure.stage, found[3]["error"]["code"]) == ("2b.jpg", "decode", failure.code)
    rows = list(csv.DictReader(io.StringIO(file(stored, record.id, "results.csv").decode())))
    assert [(row["query"], row["rank"]) for row in rows][:4] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert [row["error"] for row in rows if row["query"] == "4"] == [failure.code]
    counted = {name: result(record)[name] for name in ("queries", "failed", "hits", "sheets", "not_on_sheets")}
    assert counted == {"queries": 6, "failed": 1, "hits": 10, "sheets": 1, "not_on_sheets": 0}
    assert Image.open(io.BytesIO(file(stored, record.id, "sheet-001.png"))).format == "PNG"


def test_a_worker_that_dies_in_a_step_leaves_each_query_in_the_files_once(
    stored: Context, make_worker: Make, image_root: Path
) -> None:
    draw(image_root, **{f"asked__{number}": number for number in range(5)})
    job_id = submit(stored, sheets=0)
    first = IngestLane(stored, lambda: False)
    first.ring()  # It counts,
    first.ring()  # and answers two.
    claim = stored.jobs.claim_ingest(model=MODEL.fingerprint)
    assert isinstance(claim, StepClaim)
    assert claim.checkpoint
    assert claim.checkpoint["queries"] == 2
    steps.WORK[JobKind.BULK_SEARCH](stored, claim, lambda: None)  # Two more, which it does not come to hand in.
    stored.jobs.give_back(claim)
    assert len(lines(stored, job_id)) == 4
    successor = make_worker()
    record = work_off(successor, job_id)
    first.close()
    assert (record.state, record.progress.total, record.progress.done) == (JobState.SUCCEEDED, 5, 5)
    assert names(successor, job_id) == [f"{number}.png" for number in range(5)]
    assert result(record)["queries"] == 5


def test_a_query_that_kills_its_workers_costs_only_itself(stored: Context, image_root: Path) -> None:
    draw(image_root, asked__0=0, asked__2=2, asked__3=3)
    Image.new("RGB", (24, 24), "white").save(image_root / "asked" / "1.png")  # Poison to this network.
    record = work_off(stored, submit(stored, sheets=0), rings=200)
    assert (record.state, record.progress.done, record.progress.failed) == (JobState.SUCCEEDED, 4, 1)
    assert [(line["query"]["name"], (line["error"] or {}).get("code")) for line in lines(stored, record.id)] == [
        ("0.png", None),
        ("1.png", "quarantined"),
        ("2.png", None),
        ("3.png", None),
    ]


def test_an_archive_that_was_uploaded_is_searched_with_and_the_terms_hold(
    stored: Context, image_root: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "asked.zip"
    with zipfile.ZipFile(archive, "w") as file_:
        for number in range(5):
            file_.write(image_root / "shelf" / f"{number}.png", f"{number}.png")
    uploads = stored.sources.uploads
    assert isinstance(uploads, UploadStore)
    with archive.open("rb") as stream:
        sha256 = uploads.put(stream)
    source = {"type": "archive", "upload": {"sha256": sha256, "name": "asked.zip"}}
    terms = {"exclude_self": True, "limit": 1, "filter": "name != '4.png'", "variants": ["mirror"]}
    record = work_off(stored, submit(stored, source=source, **terms))
    found = lines(stored, record.id)
    assert [line["query"]["name"] for line in found] == [f"{number}.png" for number in range(5)]
    for line in found:
        (hit,) = line["hits"]
        assert hit["name"] not in {line["query"]["name"], "4.png"}


def test_what_there_is_no_room_for_on_the_sheets_is_counted(
    stored: Context, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike_worker.steps.bulk.MAX_GROUPS", 2)
    monkeypatch.setattr("lookalike_worker.steps.bulk_files.MAX_GROUPS", 2)
    draw(image_root, **{f"asked__{number}": number for number in range(5)})
    record = work_off(stored, submit(stored, sheets=2))
    assert [one.name for one in stored.artifacts.of(record.id)] == [
        "results.csv",
        "results.jsonl",
        "sheet-001.png",
        "sheet-002.png",
    ]
    assert (result(record)["sheets"], result(record)["not_on_sheets"]) == (2, 1)


def test_a_job_is_for_the_workers_with_the_model_that_it_names(stored: Context, image_root: Path) -> None:
    draw(image_root, asked__0=0)
    job_id = submit(stored, model=MODEL.fingerprint)
    assert stored.jobs.get(job_id).model == MODEL.fingerprint
    assert stored.jobs.claim_ingest(model="b" * 64) is None
    assert work_off(stored, job_id).state is JobState.SUCCEEDED


def test_queries_are_embedded_in_batches_and_a_cancelled_job_keeps_what_it_answered(
    stored: Context, image_root: Path
) -> None:
    draw(image_root, **{f"asked__{number}": number for number in range(5)})
    engine_of(stored).seen.clear()
    job_id = submit(stored)
    lane = IngestLane(stored, lambda: False)
    lane.ring()
    lane.ring()
    assert engine_of(stored).seen == [2]
    stored.jobs.cancel(job_id)
    record = work_off(stored, job_id, lane=lane)
    lane.close()
    assert (record.state, record.progress.done) == (JobState.CANCELLED, 2)
    assert names(stored, job_id) == ["0.png", "1.png"]


def test_a_source_without_images_is_answered_with_empty_files(stored: Context, image_root: Path) -> None:
    (image_root / "asked").mkdir()
    record = work_off(stored, submit(stored))
    assert (record.state, record.progress.total, result(record)["queries"]) == (JobState.SUCCEEDED, 0, 0)
    assert lines(stored, record.id) == []
