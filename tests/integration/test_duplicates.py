"""Duplicates jobs on a real job store and a real vector store: pictures drawn by the test, in known clusters."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingest_parts import ingest, pool_of, work_off
from lookalike.gallery import STYLES, draw_picture
from lookalike.jobstore import StepClaim
from lookalike.records import DuplicatesRequest, JobKind, JobState
from lookalike_worker import steps
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane
from lookalike_worker.steps import duplicates

Make = Callable[..., Context]
NAME = "lanes"
DRAWN = list(STYLES)[:4]


@pytest.fixture
def stored(make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A worker whose collection has four pictures: the first three times over, the second twice; in small pages."""
    monkeypatch.setattr(duplicates, "PAGE_IMAGES", 2)
    monkeypatch.setattr(duplicates, "SCAN_PAGES", 1)
    monkeypatch.setattr(duplicates, "PAGE_VECTORS", 3)
    monkeypatch.setattr(duplicates, "FIRST_LIMIT", 2)
    monkeypatch.setattr(duplicates, "WRITE_IMAGES", 2)
    for number, style in enumerate(DRAWN):
        draw_picture(style, 3).convert("RGB").save(image_root / f"{number}.png")
    whole = Image.open(image_root / "0.png")
    whole.save(image_root / "0-compressed.jpg", quality=60)
    whole.resize((whole.width * 3 // 5, whole.height * 3 // 5)).save(image_root / "0-small.png")
    (image_root / "1-again.png").write_bytes((image_root / "1.png").read_bytes())
    context = make_worker()
    ingest(context, NAME)
    yield context
    context.vectors.drop(NAME)


def find(context: Context, **fields: object) -> str:
    request = DuplicatesRequest.model_validate({"collection": NAME, **fields})
    return context.jobs.create(JobKind.DUPLICATES, request)[0].id


def clusters(context: Context, job_id: str) -> list[dict[str, Any]]:
    lines = b"".join(context.artifacts.read(job_id, "clusters.jsonl")).decode().splitlines()
    return [json.loads(line) for line in lines]


def names(found: list[dict[str, Any]]) -> list[list[str]]:
    return [[image["uri"].rpartition("/")[2] for image in one["images"]] for one in found]


TRUTH = {
    "content": [{"1.png", "1-again.png"}],
    "picture": [{"0.png", "0-compressed.jpg", "0-small.png"}, {"1.png", "1-again.png"}],
    "near": [{"0.png", "0-compressed.jpg", "0-small.png"}, {"1.png", "1-again.png"}],
}
NEAR = {"min_score": 0.9999}


def twice(context: Context, job_id: str) -> None:
    """Do each step of a job, give it back as if its worker had died, and do it again."""
    lane = IngestLane(context, lambda: False)
    while not context.jobs.get(job_id).state.final:
        claim = context.jobs.claim_ingest()
        assert isinstance(claim, StepClaim)
        steps.WORK[claim.kind](context, claim, lambda: None)
        context.jobs.give_back(claim)
        lane.ring()
    lane.close()


@pytest.mark.parametrize("level", TRUTH)
def test_known_clusters_are_found_whatever_step_is_done_twice(stored: Context, level: str) -> None:
    job_id = find(stored, level=level, keep="first", **(NEAR if level == "near" else {}))
    twice(stored, job_id)
    record = stored.jobs.get(job_id)
    found = clusters(stored, job_id)
    assert [set(one) for one in names(found)] == TRUTH[level]
    result = record.result or {}
    assert (record.state, record.progress.done, record.progress.total) == (JobState.SUCCEEDED, 7, 7)
    images = sum(map(len, TRUTH[level]))
    assert (result["clusters"], result["images"], result["unhashed"]) == (len(found), images, 0)
    assert (result["deletable"], result["deleted"]) == (images - len(found), 0)
    assert [one[0] for one in names(found)] == sorted(min(one) for one in TRUTH[level])
    assert {one["why"] for one in found} == {"the first by address"}
    table = list(csv.DictReader(io.StringIO(b"".join(stored.artifacts.read(job_id, "clusters.csv")).decode())))
    assert [row["keep"] for row in table].count("yes") == len(found)
    assert [row["id"] for row in table] == [image["id"] for one in found for image in one["images"]]
    assert b"".join(stored.artifacts.read(job_id, "sheet.png")).startswith(b"\x89PNG")
    assert {file.name for file in stored.artifacts.of(job_id)} == {"clusters.jsonl", "clusters.csv", "sheet.png"}
    assert not list(stored.settings.artifacts_dir.rglob("*.npy"))  # What the steps left for one another.


def test_all_but_the_keepers_leave_the_collection_and_are_counted_once(stored: Context, image_root: Path) -> None:
    record = work_off(stored, find(stored, level="picture", delete=True, dry_run=True))
    assert ((record.result or {})["deletable"], (record.result or {})["deleted"]) == (3, 0)
    assert stored.vectors.count(NAME) == 7
    job_id = find(stored, level="picture", delete=True)
    twice(stored, job_id)
    assert (stored.jobs.get(job_id).result or {})["deleted"] == 3
    left = {image.uri.rpartition("/")[2] for image in stored.vectors.matching(NAME, after=None, limit=10)}
    assert {"2.png", "3.png"} < left
    assert len(left) == 4
    assert "0-small.png" not in left  # The largest picture is kept.
    assert len(list(image_root.iterdir())) == 7


def test_a_distance_to_the_keeper_and_the_reason_for_it_are_told(stored: Context) -> None:
    job_id = find(stored, level="picture")
    work_off(stored, job_id)
    cluster = clusters(stored, job_id)[0]
    assert cluster["why"] == "the largest file"
    assert cluster["images"][0]["distance"] == 0
    assert all(0 <= image["distance"] <= 6 for image in cluster["images"])
    assert cluster["keep"] == cluster["images"][0]["id"]


def test_rows_without_a_hash_are_counted_and_get_one_without_being_embedded(stored: Context) -> None:
    from dataclasses import replace

    rows = stored.vectors.matching(NAME, after=None, limit=10)
    stored.vectors.rewrite(NAME, [replace(row, picture_hash="") for row in rows])
    record = work_off(stored, find(stored, level="picture"))
    assert ((record.result or {})["unhashed"], (record.result or {})["clusters"]) == (7, 0)
    assert "checksum" in (record.result or {})["note"]
    pool_of(stored).take("decode")
    record = ingest(stored, NAME, checksum=True)
    assert (record.progress.unchanged, record.progress.stored) == (7, 0)
    record = work_off(stored, find(stored, level="picture"))
    assert ((record.result or {})["unhashed"], (record.result or {})["clusters"]) == (0, 2)
    ingest(stored, NAME, checksum=True)
    assert len(pool_of(stored).take("decode")) == 7  # Once, and not the second time.


def test_a_picture_that_is_gone_leaves_its_place_on_the_sheet_blank(stored: Context, image_root: Path) -> None:
    (image_root / "0-small.png").unlink()
    job_id = find(stored, level="picture")
    assert work_off(stored, job_id).state is JobState.SUCCEEDED
    with Image.open(io.BytesIO(b"".join(stored.artifacts.read(job_id, "sheet.png")))) as sheet:
        assert sheet.width > 1_000


def test_copies_whose_keeper_went_before_them_stay(stored: Context) -> None:
    job_id = find(stored, level="content", delete=True)
    lane = IngestLane(stored, lambda: False)
    while (claim := stored.jobs.claim_ingest()) and isinstance(claim, StepClaim):
        is_next = bool((claim.checkpoint or {}).get("page"))
        stored.jobs.give_back(claim, burn_attempt=False)
        if is_next:
            break
        lane.ring()
    (cluster,) = clusters(stored, job_id)
    stored.vectors.delete(NAME, [cluster["keep"]])
    record = work_off(stored, job_id)
    assert (record.state, (record.result or {})["deleted"]) == (JobState.SUCCEEDED, 0)
    assert stored.vectors.count(NAME) == 6
    lane.close()
