"""A collection with tiles: each image's regions are found, filtered, changed and deleted with it, and counted never."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pymilvus import MilvusClient
from test_vectorstore import DIM, MODEL, OTHER_MODEL, images, name, settings, store

from lookalike.errors import InvalidParameter
from lookalike.records import CollectionRequest, IndexKind, Metric, Tiles
from lookalike.settings import Settings
from lookalike.vectorstore import Candidate, How, VectorStore, physical_name

__all__ = ["name", "settings", "store"]  # Fixtures, too.

GRID = Tiles(grid=2, overlap=0.5)
ROWS = 1 + GRID.count


@pytest.fixture
def tiled(store: VectorStore, name: str) -> str:
    """A collection of three images with four tiles each, every vector another."""
    store.create(CollectionRequest(name=name, tiles=GRID))
    store.bind(name, MODEL)
    store.upsert(name, images(3), vectors(3))
    return name


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """The vectors of some images and their tiles, (count, 5, dim)."""
    return np.random.default_rng(seed).standard_normal((count, ROWS, DIM), dtype=np.float32)


def best(store: VectorStore, name: str, vector: NDArray[np.float32], limit: int = 1, **how: Any) -> list[Candidate]:
    return store.tile_candidates(name, vector[np.newaxis], limit=limit, how=How(consistency="strong", **how))[0]


def tile_rows(settings: Settings, name: str, fingerprint: str = MODEL.fingerprint) -> int:
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    rows = client.query(
        physical_name(name, fingerprint) + "__tiles", output_fields=["count(*)"], consistency_level="Strong"
    )
    client.close()
    return int(rows[0]["count(*)"])


def test_a_region_finds_its_image_and_says_which_it_was(store: VectorStore, tiled: str) -> None:
    for number, image in enumerate(images(3)):
        for tile, box in enumerate(GRID.boxes):
            (found,) = best(store, tiled, vectors(3)[number, 1 + tile])
            assert (found.id, found.box, found.sha256, found.is_stale) == (image.id, box, image.sha256, False)
            assert found.distance == pytest.approx(1, abs=1e-5)


def test_everything_else_is_about_images(store: VectorStore, tiled: str) -> None:
    assert store.count(tiled) == 3
    assert [image.id for image in store.matching(tiled, after=None, limit=10)] == [image.id for image in images(3)]
    (found,) = store.search(tiled, vectors(3)[:1, 1], limit=10)
    assert len(found) == 3
    assert store.collection(tiled).tiles == GRID
    assert tile_vectors(store, tiled).shape == (3, ROWS, DIM)


def tile_vectors(store: VectorStore, name: str) -> NDArray[np.float32]:
    return np.stack(list(store.vectors_of(name, images(3), tiles=True).values()))


def test_a_write_over_an_image_leaves_none_of_its_old_regions(
    settings: Settings, store: VectorStore, tiled: str
) -> None:
    changed = images(1, sha256="e" * 64)
    store.upsert(tiled, changed, vectors(1, seed=1))
    assert tile_rows(settings, tiled) == 3 * GRID.count
    (found,) = best(store, tiled, vectors(1, seed=1)[0, 2])
    assert (found.id, found.sha256, found.distance) == (changed[0].id, "e" * 64, pytest.approx(1, abs=1e-5))
    (old,) = best(store, tiled, vectors(3)[0, 2])
    assert old.distance < 0.99


def test_deleting_an_image_deletes_its_regions(settings: Settings, store: VectorStore, tiled: str) -> None:
    assert store.delete(tiled, [images(3)[1].id]) == 1
    assert tile_rows(settings, tiled) == 2 * GRID.count
    assert images(3)[1].id not in {found.id for found in best(store, tiled, vectors(3)[1, 1], limit=20)}


def test_what_is_patched_is_what_filters_of_regions_see(store: VectorStore, tiled: str) -> None:
    image = images(3)[2]
    assert best(store, tiled, vectors(3)[2, 1], filter="album == 'spring'") == []
    store.patch_metadata(tiled, image.id, {"album": "spring", "number": None})
    found = best(store, tiled, vectors(3)[2, 1], limit=20, filter="album == 'spring'")
    assert [one.id for one in found] == [image.id] * GRID.count
    assert found[0].distance == pytest.approx(1, abs=1e-5)
    assert best(store, tiled, vectors(3)[2, 1], filter="number == 2") == []
    by_id = best(store, tiled, vectors(3)[2, 1], limit=20, filter=f'id == "{images(3)[0].id}" and size > 0')
    assert [one.id for one in by_id] == [images(3)[0].id] * GRID.count


def test_what_a_cut_short_write_left_is_stale_and_its_image_as_it_was(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, store: VectorStore, tiled: str
) -> None:
    call = store._milvus.call

    def dies(method: str, *args: Any, **how: Any) -> Any:
        if method in {"insert", "upsert"} and args[0] == physical_name(tiled, MODEL.fingerprint):
            raise KeyboardInterrupt
        return call(method, *args, **how)

    replaced, new = images(4, sha256="e" * 64)[0], images(4)[3]
    with monkeypatch.context() as patched:
        patched.setattr(store._milvus, "call", dies)
        with pytest.raises(KeyboardInterrupt):
            store.upsert(tiled, [replaced, new], vectors(2, seed=1))
    for number in range(2):
        (found,) = best(store, tiled, vectors(2, seed=1)[number, 1])
        assert found.is_stale
    assert store.known(tiled, [replaced.id, new.id]) == {replaced.id: images(1)[0]}
    assert store.vectors_of(tiled, images(1), tiles=True) == {}, "it has to be embedded again"
    store.upsert(tiled, [replaced, new], vectors(2, seed=1))
    assert tile_rows(settings, tiled) == 4 * GRID.count
    assert not any(found.is_stale for found in best(store, tiled, vectors(1)[0, 1], limit=30))


def test_a_collection_with_tiles_takes_no_image_without(store: VectorStore, tiled: str) -> None:
    with pytest.raises(InvalidParameter, match="4 tiles"):
        store.upsert(tiled, images(1), vectors(1)[:, 0])
    with pytest.raises(InvalidParameter, match="4 tiles"):
        store.upsert(tiled, images(1), vectors(1)[:, :4])
    assert store.rewrite(tiled, [replace(images(1)[0], name="new")]) == []
    np.testing.assert_allclose(tile_vectors(store, tiled), vectors(3), rtol=1e-6)


def test_a_shadow_has_the_same_tiles_and_dropping_leaves_none(
    settings: Settings, store: VectorStore, tiled: str
) -> None:
    store.add_model(tiled, OTHER_MODEL)
    address = physical_name(tiled, OTHER_MODEL.fingerprint)
    other = VectorStore(settings)
    assert other.bind(address, OTHER_MODEL).tiles == GRID
    other.upsert(address, images(2), vectors(2, seed=2))
    assert best(other, address, vectors(2, seed=2)[1, 3])[0].id == images(2)[1].id
    store.delete(tiled, [images(2)[1].id])
    assert tile_rows(settings, tiled, OTHER_MODEL.fingerprint) == GRID.count
    other.close()
    store.drop_model(tiled, OTHER_MODEL.fingerprint)
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    assert not client.has_collection(f"{address}__tiles")
    store.drop(tiled)
    assert not [one for one in client.list_collections() if one.startswith(f"{tiled}__")]
    client.close()


@pytest.mark.parametrize("metric", list(Metric))
def test_regions_are_compared_by_the_collections_metric_whatever_its_index(
    store: VectorStore, name: str, metric: Metric
) -> None:
    store.create(CollectionRequest(name=name, metric=metric, index=IndexKind.HNSW, tiles=GRID))
    store.bind(name, MODEL)
    store.upsert(name, images(3), vectors(3))
    query = vectors(1, seed=5)[0, 0]
    found = best(store, name, query, limit=12, params={"ef": 64})
    rows = vectors(3)[:, 1:].reshape(-1, DIM)
    expected = {
        Metric.COSINE: rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query),
        Metric.L2: ((rows - query) ** 2).sum(axis=1),
        Metric.IP: rows @ query,
    }[metric]
    order = np.argsort(expected if metric is Metric.L2 else -expected)
    assert [one.distance for one in found] == pytest.approx(expected[order].tolist(), rel=1e-4)


def test_a_collection_without_tiles_makes_no_more_calls_than_before(
    monkeypatch: pytest.MonkeyPatch, store: VectorStore, name: str
) -> None:
    store.bind(name, MODEL)
    asked: list[str] = []
    call = store._milvus.call

    def noted(method: str, *args: Any, **how: Any) -> Any:
        asked.extend(str(one) for one in args[:1])
        return call(method, *args, **how)

    monkeypatch.setattr(store._milvus, "call", noted)
    store.upsert(name, images(3), vectors(3)[:, 0])
    store.rewrite(name, images(1))
    store.vectors_of(name, images(1), tiles=True)
    store.delete(name, [images(1)[0].id])
    assert asked
    assert not [one for one in asked if one.endswith("__tiles")]
