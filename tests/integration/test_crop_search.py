"""Crops that find their originals: collections with tiles, through a real worker, decoders and vector store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ingest_parts import counts, engine_of, ingest, many, submit, work_off
from lookalike.records import CollectionRequest, JobKind, JobRecord, JobState, SearchRequest, Tiles
from lookalike.records.exports import ExportRequest, ImportRequest
from lookalike.roots import file_uri, image_id
from lookalike.settings import Decoding
from lookalike.vectorstore import How
from lookalike_worker.context import Context
from lookalike_worker.lanes import SearchLane

Make = Callable[..., Context]

QUARTERS = Tiles(grid=2, overlap=0)


def place(context: Context, kind: str) -> str:
    """A collection of each test's own: they share a server."""
    return f"{kind}{image_id(str(context.settings.roots[0]))[:12]}"


def tiled(context: Context, tiles: Tiles = QUARTERS) -> str:
    name = place(context, "tiled")
    context.vectors.create(CollectionRequest(name=name, tiles=tiles))
    return name


def draw_quarters(root: Path, **quarters: tuple[str, str, str, str]) -> None:
    """Draw pictures of four coloured quarters: upper left and right, lower left and right."""
    for name, four in quarters.items():
        picture = Image.new("RGB", (256, 256))
        for at, colour in zip(((0, 0), (128, 0), (0, 128), (128, 128)), four, strict=True):
            picture.paste(colour, (*at, at[0] + 128, at[1] + 128))
        picture.save(root / f"{name}.png")


def found(context: Context, collection: str, query: dict[str, Any], **terms: Any) -> list[dict[str, Any]]:
    body = {"collection": collection, "limit": 3, **terms, "queries": [query]}
    job_id = context.jobs.create(JobKind.SEARCH, SearchRequest.model_validate(body))[0].id
    SearchLane(context).ring()
    record: JobRecord = context.jobs.get(job_id)
    assert record.result, record.error
    return list(record.result["queries"][0]["hits"])


@pytest.fixture
def context(make_worker: Make, image_root: Path) -> Context:
    """A worker, two pictures whose parts are of one colour each, and others that are nearly of that colour."""
    draw_quarters(
        image_root,
        mixed=("red", "blue", "green", "black"),
        other=("blue", "black", "red", "green"),
        reddish=("#d03030",) * 4,
        bluish=("#3030d0",) * 4,
    )
    return make_worker()


def test_a_crop_finds_its_originals_with_tiles_and_another_picture_without(context: Context, image_root: Path) -> None:
    name, plain = tiled(context), place(context, "plain")
    for one in (name, plain):
        assert ingest(context, one, metadata={"kind": "drawn"}).progress.stored == 4
    Image.new("RGB", (90, 90), "red").save(image_root / "crop.png")
    query = {"path": "crop.png"}
    assert found(context, plain, query)[0]["name"] == "reddish.png"
    assert all(hit["box"] is None for hit in found(context, plain, query))

    hits = found(context, name, query, limit=4)
    assert [hit["name"] for hit in hits[:2]] in (["mixed.png", "other.png"], ["other.png", "mixed.png"])
    assert {hit["name"]: hit["box"] for hit in hits[:2]} == {
        "mixed.png": [0, 0, 0.5, 0.5],
        "other.png": [0, 0.5, 0.5, 0.5],
    }
    assert [hit["distance"] for hit in hits[:2]] == pytest.approx([1, 1], abs=1e-5)
    assert "identical" not in {hit["band"] for hit in hits}, "a part of a picture is not the picture"
    assert len({hit["id"] for hit in hits}) == 4, "and each image is there once"
    assert [hit["distance"] for hit in hits] == sorted((hit["distance"] for hit in hits), reverse=True)
    whole = found(context, name, {"path": "mixed.png"}, limit=1)[0]
    assert (whole["name"], whole["box"], whole["band"]) == ("mixed.png", None, "identical")


def test_pages_filters_bounds_and_groups_hold_over_regions(context: Context, image_root: Path) -> None:
    name = tiled(context)
    ingest(context, name)
    Image.new("RGB", (90, 90), "red").save(image_root / "crop.png")
    query = {"path": "crop.png"}
    whole = [hit["id"] for hit in found(context, name, query, limit=4)]
    assert len(whole) == 4
    for offset in range(4):
        assert [hit["id"] for hit in found(context, name, query, limit=1, offset=offset)] == [whole[offset]]
    assert {hit["name"] for hit in found(context, name, query, max_distance=0.9999)} == {"mixed.png", "other.png"}
    only = found(context, name, query, filter="name == 'other.png'")
    assert [(hit["name"], hit["box"]) for hit in only] == [("other.png", [0, 0.5, 0.5, 0.5])]
    assert len(found(context, name, query, group_by="width")) == 1
    itself = found(context, name, {"path": "mixed.png", "box": [0, 0, 0.5, 0.5]}, exclude_self=True, limit=1)
    assert itself[0]["name"] == "other.png"


def test_copies_moves_and_patches_keep_their_regions(context: Context, image_root: Path) -> None:
    name = tiled(context)
    ingest(context, name)
    engine_of(context).seen.clear()
    (image_root / "copy.png").write_bytes((image_root / "mixed.png").read_bytes())
    (image_root / "other.png").rename(image_root / "moved.png")
    assert counts(ingest(context, name, sync=True)) == {"added": 1, "moved": 1, "duplicates": 1, "unchanged": 3}
    assert engine_of(context).seen == [], "nothing was embedded again"
    moved = image_id(file_uri(image_root / "moved.png"))
    context.vectors.patch_metadata(name, moved, {"album": "spring"})
    Image.new("RGB", (90, 90), "red").save(image_root / "crop.png")
    hits = found(context, name, {"path": "crop.png"})
    assert {hit["name"]: hit["box"] for hit in hits} == {
        "mixed.png": [0, 0, 0.5, 0.5],
        "copy.png": [0, 0, 0.5, 0.5],
        "moved.png": [0, 0.5, 0.5, 0.5],
    }
    only = found(context, name, {"path": "crop.png"}, filter="album == 'spring'")
    assert [(hit["id"], hit["box"]) for hit in only] == [(moved, [0, 0.5, 0.5, 0.5])]


def test_a_worker_killed_between_regions_and_image_leaves_nothing_wrong(
    monkeypatch: pytest.MonkeyPatch, context: Context, image_root: Path
) -> None:
    name = tiled(context)
    ingest(context, name)
    draw_quarters(image_root, mixed=("lime", "yellow", "silver", "gray"), new=("lime", "cyan", "navy", "teal"))
    milvus = context.vectors._milvus
    call, writes = milvus.call, ("insert", "upsert")

    class Killed(BaseException):
        pass

    def dies(method: str, collection: str = "", *args: Any, **how: Any) -> Any:
        if method in writes and collection.startswith(f"{name}__") and collection.count("__") == 1:
            raise Killed
        return call(method, collection, *args, **how) if collection else call(method, *args, **how)

    job_id = submit(context, name)
    with monkeypatch.context() as patched:
        patched.setattr(milvus, "call", dies)
        with pytest.raises(Killed):
            work_off(context, job_id)
    old = context.vectors.known(name, [image_id(file_uri(image_root / "mixed.png"))])
    assert len(old) == 1
    Image.new("RGB", (90, 90), "lime").save(image_root.parent / "crop.png")
    lime = np.asarray(engine_of(context).embed(np.asarray([_plain("lime")])))
    (candidates,) = context.vectors.tile_candidates(name, lime, limit=2, how=How(consistency="strong"))
    assert all(candidate.is_stale for candidate in candidates)

    record = work_off(context, job_id, wait_s=0.5)
    assert record.progress.failed == 0
    (candidates,) = context.vectors.tile_candidates(name, lime, limit=2, how=How(consistency="strong"))
    assert not any(candidate.is_stale for candidate in candidates)
    assert context.vectors.count(name) == 5


def _plain(colour: str) -> NDArray[np.uint8]:
    return np.asarray(Image.new("RGB", (224, 224), colour))


def test_batches_are_filled_with_regions_and_each_image_is_decoded_once(make_worker: Make, image_root: Path) -> None:
    many(image_root, 6)
    context = make_worker()
    pool = context.decoders
    name = tiled(context)
    assert ingest(context, name).progress.stored == 6
    assert len(pool.take("decode")) == 6  # type: ignore[attr-defined]
    assert sum(engine_of(context).seen) == 6 * 5
    assert max(engine_of(context).seen) == 5, "its batches hold four, and an image is not taken apart"


@pytest.mark.parametrize("decoding", list(Decoding))
def test_regions_are_cut_as_pictures_of_their_own_would_be(
    make_worker: Make, image_root: Path, decoding: Decoding
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (24, 36, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((1800, 1200), Image.Resampling.BICUBIC)
    picture.save(image_root / "large.jpg", quality=95, exif=_turned())
    context = make_worker(decode=decoding)
    boxes = Tiles(grid=3, overlap=0.5).boxes
    uri = file_uri(image_root / "large.jpg")
    whole = context.decoders.decode(uri, tiles=boxes).result()
    assert whole.pixels.shape == (10, 224, 224, 3)
    alone = [
        context.decoders.decode(uri).result(),
        *(context.decoders.decode(uri, region=box).result() for box in boxes),
    ]
    for together, single in zip(whole.pixels, alone, strict=True):
        difference = np.abs(together.astype(int) - single.pixels)
        assert difference.max() <= (0 if decoding is Decoding.EXACT else 12)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_an_import_into_a_collection_with_tiles_is_refused_before_anything_is_written(context: Context) -> None:
    name, plain = tiled(context), place(context, "plain")
    ingest(context, plain)
    exported = context.jobs.create(JobKind.EXPORT, ExportRequest.model_validate({"collection": plain}))[0].id
    assert work_off(context, exported, wait_s=0).state is JobState.SUCCEEDED
    request = ImportRequest.model_validate({"collection": name, "job_id": exported})
    refused = work_off(context, context.jobs.create(JobKind.IMPORT, request)[0].id, wait_s=0)
    assert refused.error
    assert refused.error.code == "invalid_request"
    assert "tiles" in refused.error.message
    assert context.vectors.count(name) == 0
