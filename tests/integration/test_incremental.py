"""Ingesting again: what is skipped, replaced, moved, removed, linked, and only reported."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_parts import counts, draw, engine_of, ingest, picture, pool_of, submit, work_off
from lookalike.records import FolderSource, JobState, UploadedFile, UploadSource
from lookalike.roots import file_uri, image_id
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane

Make = Callable[..., Context]


def stored(context: Context, collection: str, path: Path) -> StoredImage | None:
    return context.vectors.known(collection, [image_id(file_uri(path))]).get(image_id(file_uri(path)))


def row(context: Context, collection: str, path: Path) -> StoredImage:
    found = stored(context, collection, path)
    assert found
    return found


def touch(path: Path) -> None:
    """Make a file a second younger."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


# --- Unchanged and changed files ------------------------------------------------------------------------------------


def test_unchanged_files_are_skipped_without_opening_a_decoder(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2, sub__c=3)
    context = make_worker()
    assert counts(ingest(context, "again")) == {"added": 3}
    pool_of(context).asked.clear()
    record = ingest(context, "again")
    assert counts(record) == {"unchanged": 3}
    assert (record.progress.total, record.progress.done) == (3, 3)
    assert pool_of(context).asked == []
    assert engine_of(context).seen == [3]


def test_a_changed_file_replaces_its_row_and_keeps_its_metadata(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2)
    context = make_worker()
    ingest(context, "changed", metadata={"album": "spring"})
    before = row(context, "changed", image_root / "a.png")
    draw(image_root, a=30)
    touch(image_root / "a.png")
    assert counts(ingest(context, "changed")) == {"changed": 1, "unchanged": 1}
    after = row(context, "changed", image_root / "a.png")
    assert after.sha256 != before.sha256
    assert after.metadata == {"album": "spring"}
    assert context.vectors.count("changed") == 2


def test_new_metadata_is_merged_into_rows_without_decoding(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2)
    context = make_worker()
    ingest(context, "merged", metadata={"album": "spring", "year": 2024})
    pool_of(context).asked.clear()
    assert counts(ingest(context, "merged", metadata={"album": "summer"})) == {"changed": 2}
    assert row(context, "merged", image_root / "a.png").metadata == {"album": "summer", "year": 2024}
    assert pool_of(context).asked == []
    assert counts(ingest(context, "merged", metadata={"year": 2024})) == {"unchanged": 2}


def test_checksum_finds_a_change_that_size_and_time_hide(make_worker: Make, image_root: Path) -> None:
    for name, content in {"a.png": picture(1), "b.png": picture(2)}.items():
        (image_root / name).write_bytes(content.ljust(4000, b"\0"))
    context = make_worker()
    ingest(context, "sums")
    status = (image_root / "a.png").stat()
    (image_root / "a.png").write_bytes(picture(3).ljust(4000, b"\0"))
    os.utime(image_root / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    touch(image_root / "b.png")
    assert counts(ingest(context, "sums", checksum=True)) == {"changed": 1, "unchanged": 1}
    assert counts(ingest(context, "sums")) == {"unchanged": 1, "changed": 1}, "by time, b is the changed one"


def test_two_ingests_of_one_folder_at_once_keep_the_metadata_of_both(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1)
    context = make_worker()
    jobs = [submit(context, "both", metadata=metadata) for metadata in ({"album": "spring"}, {"by": "me"})]
    lane = IngestLane(context, stopping=lambda: False)
    lane.ring()
    lane.ring()
    assert [context.jobs.get(job_id).progress.total for job_id in jobs] == [1, 1], "planned before either is stored"
    for job_id in jobs:
        work_off(context, job_id, lane=lane)
    lane.close()
    assert row(context, "both", image_root / "a.png").metadata == {"album": "spring", "by": "me"}


def test_a_file_that_was_only_touched_keeps_its_vector(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1)
    context = make_worker()
    ingest(context, "touched")
    touch(image_root / "a.png")
    assert counts(ingest(context, "touched")) == {"changed": 1}
    assert engine_of(context).seen == [1]
    assert counts(ingest(context, "touched")) == {"unchanged": 1}


def test_a_file_is_stored_as_it_is_read_whatever_the_listing_saw(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1)
    context = make_worker()
    listing = context.lister.list

    def stale(*args: object, **kwargs: object) -> object:
        yield from list(listing(*args, **kwargs))  # type: ignore[arg-type]
        draw(image_root, a=2)

    context.lister.list = stale  # type: ignore[assignment, method-assign]
    ingest(context, "raced")
    found = row(context, "raced", image_root / "a.png")
    assert (found.size, found.mtime_ns) == (
        (image_root / "a.png").stat().st_size,
        (image_root / "a.png").stat().st_mtime_ns,
    )


def test_an_upload_that_is_stored_is_unchanged_whenever_it_comes_again(make_worker: Make, tmp_path: Path) -> None:
    context = make_worker()
    (tmp_path / "up.png").write_bytes(picture(5))
    with (tmp_path / "up.png").open("rb") as stream:
        sha256 = context.sources.uploads.put(stream)
    source = UploadSource(files=(UploadedFile(sha256=sha256, name="up.png"),))
    assert counts(ingest(context, "uploads", source=source)) == {"added": 1}
    assert counts(ingest(context, "uploads", source=source)) == {"unchanged": 1}


# --- Sync -----------------------------------------------------------------------------------------------------------


def test_sync_removes_what_is_gone_and_nothing_else(make_worker: Make, image_root: Path) -> None:
    draw(image_root, here__a=1, here__b=2, here__z=4, elsewhere__c=3)
    context = make_worker()
    ingest(context, "synced")
    (image_root / "here" / "a.png").unlink()
    (image_root / "elsewhere" / "c.png").unlink()
    record = ingest(context, "synced", source=FolderSource(path="here", exclude=("b*",)), sync=True)
    assert counts(record) == {"unchanged": 1, "removed": 1}, "b exists, though it is excluded; c is of another place"
    assert stored(context, "synced", image_root / "here" / "a.png") is None
    assert stored(context, "synced", image_root / "here" / "b.png")
    assert stored(context, "synced", image_root / "elsewhere" / "c.png")


def test_without_sync_nothing_is_removed(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2)
    context = make_worker()
    ingest(context, "kept")
    (image_root / "a.png").unlink()
    assert counts(ingest(context, "kept")) == {"unchanged": 1}
    assert context.vectors.count("kept") == 2


def test_a_moved_file_keeps_its_vector_and_metadata(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2)
    context = make_worker()
    ingest(context, "moved", metadata={"album": "spring"})
    pool_of(context).asked.clear()
    vector = context.vectors.vectors("moved", [image_id(file_uri(image_root / "a.png"))])
    for old, new in (("a.png", "first.png"), ("first.png", "second.png")):  # What was moved can be moved again.
        (image_root / old).rename(image_root / new)
        assert counts(ingest(context, "moved", sync=True)) == {"moved": 1, "unchanged": 1}
    found = row(context, "moved", image_root / "second.png")
    assert found.metadata == {"album": "spring"}
    assert found.duplicate_of is None
    assert stored(context, "moved", image_root / "a.png") is None
    assert context.vectors.count("moved") == 2
    (kept,) = context.vectors.vectors("moved", [found.id]).values()
    assert kept.tolist() == next(iter(vector.values())).tolist()
    assert pool_of(context).take("decode") == [], "it is recognised by its hash"


def test_a_copy_is_no_move(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1)
    context = make_worker()
    ingest(context, "copied", metadata={"album": "spring"})
    draw(image_root, b=1)
    assert counts(ingest(context, "copied", sync=True)) == {"added": 1, "duplicates": 1, "unchanged": 1}
    assert row(context, "copied", image_root / "b.png").metadata == {}


def test_of_two_copies_of_a_gone_file_one_was_moved_and_the_other_is_linked_to_it(
    make_worker: Make, image_root: Path
) -> None:
    draw(image_root, a=1, z=2)
    context = make_worker()
    ingest(context, "forked", metadata={"album": "spring"})
    (image_root / "a.png").unlink()
    draw(image_root, b=1, c=1)
    assert counts(ingest(context, "forked", sync=True)) == {"moved": 1, "added": 1, "duplicates": 1, "unchanged": 1}
    moved, linked = (row(context, "forked", image_root / name) for name in ("b.png", "c.png"))
    assert (moved.metadata, moved.duplicate_of) == ({"album": "spring"}, None)
    assert linked.duplicate_of == moved.id
    assert context.vectors.count("forked") == 3


def test_a_copy_that_was_moved_keeps_its_own_metadata_while_the_original_stays(
    make_worker: Make, image_root: Path
) -> None:
    draw(image_root, a=1)
    context = make_worker()
    ingest(context, "twice", metadata={"album": "spring"})
    original = row(context, "twice", image_root / "a.png").id
    draw(image_root, b=1, c=1)
    ingest(context, "twice", source=FolderSource(path=".", include=("b.png",)), metadata={"album": "summer"})
    ingest(context, "twice", source=FolderSource(path=".", include=("c.png",)), metadata={"album": "autumn"})
    (image_root / "b.png").rename(image_root / "b2.png")
    draw(image_root, d=1)
    expected = {"moved": 1, "added": 1, "duplicates": 1, "unchanged": 2}
    assert counts(ingest(context, "twice", sync=True, dry_run=True)) == {"moved": 1, "added": 1, "unchanged": 2}
    assert counts(ingest(context, "twice", sync=True)) == expected
    rows = [row(context, "twice", image_root / f"{name}.png") for name in ("a", "b2", "c", "d")]
    # Which of the two new ones was moved cannot be told; the first is.
    assert [one.metadata.get("album") for one in rows] == ["spring", "summer", "autumn", None]
    assert [one.duplicate_of for one in rows] == [None, original, original, original]

    for old, new in (("a", "a3"), ("b2", "b3"), ("c", "c3")):
        (image_root / f"{old}.png").rename(image_root / f"{new}.png")
    assert counts(ingest(context, "twice", sync=True)) == {"moved": 3, "unchanged": 1}
    albums = {row(context, "twice", image_root / f"{name}.png").metadata["album"] for name in ("a3", "b3", "c3")}
    assert albums == {"spring", "summer", "autumn"}
    assert context.vectors.count("twice") == 4


def test_a_large_removal_keeps_to_the_look_ahead_and_is_complete(make_worker: Make, image_root: Path) -> None:
    draw(image_root, **{f"p{number:02}": number for number in range(30)})
    context = make_worker(chunk_images=4, lookahead_chunks=2)
    ingest(context, "pruned")
    for number in range(3, 30):
        (image_root / f"p{number:02}.png").unlink()
    record = ingest(context, "pruned", sync=True)
    assert counts(record) == {"unchanged": 3, "removed": 27}
    assert (record.progress.total, record.progress.done) == (3, 3)
    assert context.vectors.count("pruned") == 3


def test_a_folder_that_is_suddenly_empty_is_not_believed(make_worker: Make, image_root: Path) -> None:
    draw(image_root, sub__a=1, sub__b=2)
    context = make_worker()
    ingest(context, "unmounted")
    for path in list((image_root / "sub").iterdir()):
        path.unlink()
    record = ingest(context, "unmounted", source=FolderSource(path="sub"), sync=True)
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "source_empty")
    assert context.vectors.count("unmounted") == 2


def test_a_disk_that_is_unmounted_after_its_listing_removes_nothing(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2)
    context = make_worker()
    ingest(context, "vanished")
    job_id = submit(context, "vanished", sync=True)
    IngestLane(context, stopping=lambda: False).ring()
    assert context.jobs.get(job_id).progress.total == 2
    for path in image_root.glob("*.png"):
        path.unlink()
    record = work_off(context, job_id)
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "source_empty")
    assert context.vectors.count("vanished") == 2


# --- Dry runs -------------------------------------------------------------------------------------------------------


def test_a_dry_run_reports_what_the_real_run_then_does(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=2, c=3, d=4)
    context = make_worker()
    ingest(context, "plans", metadata={"album": "spring"})
    (image_root / "a.png").rename(image_root / "sub.png")
    (image_root / "b.png").unlink()
    draw(image_root, c=30, new=5, more=6)
    touch(image_root / "c.png")
    engine_of(context).seen.clear()

    dry = ingest(context, "plans", sync=True, dry_run=True)
    assert counts(dry) == {"added": 2, "changed": 1, "moved": 1, "unchanged": 1, "removed": 1}
    assert (dry.progress.total, dry.progress.done) == (5, 5)
    assert engine_of(context).seen == []
    assert context.vectors.count("plans") == 4
    assert stored(context, "plans", image_root / "sub.png") is None

    real = ingest(context, "plans", sync=True)
    assert counts(real) == counts(dry)
    assert context.vectors.count("plans") == 5


def test_a_dry_run_into_a_collection_that_is_not_there_does_not_make_it(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1)
    context = make_worker()
    assert counts(ingest(context, "absent", dry_run=True)) == {"added": 1}
    assert "absent" not in [collection.name for collection in context.vectors.collections()]


# --- Exact duplicates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_images", [1, 8], ids=["in-other-chunks", "in-one-chunk"])
def test_the_same_content_is_embedded_once_and_linked(make_worker: Make, image_root: Path, chunk_images: int) -> None:
    draw(image_root, a=1, b=1, sub__c=1, d=2)
    context = make_worker(chunk_images=chunk_images)
    name = f"twins{chunk_images}"
    assert counts(ingest(context, name)) == {"added": 4, "duplicates": 2}
    assert sum(engine_of(context).seen) == 2
    original = row(context, name, image_root / "a.png")
    assert original.duplicate_of is None
    for path in (image_root / "b.png", image_root / "sub" / "c.png"):
        twin = row(context, name, path)
        assert twin.duplicate_of == original.id
        vectors = context.vectors.vectors(name, [original.id, twin.id])
        assert vectors[original.id].tolist() == vectors[twin.id].tolist()
    assert context.vectors.count(name) == 4


def test_a_duplicate_whose_content_changes_is_one_no_longer(make_worker: Make, image_root: Path) -> None:
    draw(image_root, a=1, b=1)
    context = make_worker()
    ingest(context, "parted")
    draw(image_root, b=2)
    touch(image_root / "b.png")
    assert counts(ingest(context, "parted")) == {"changed": 1, "unchanged": 1}
    assert row(context, "parted", image_root / "b.png").duplicate_of is None
