"""What a vector store promises, held by Milvus Lite and by a Milvus server."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pymilvus import MilvusClient

from lookalike.errors import (
    CollectionExists,
    CollectionNotFound,
    ImageNotFound,
    InvalidFilter,
    InvalidParameter,
    ModelMismatch,
)
from lookalike.records import CollectionRequest, IndexKind, Metric, ModelInfo
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore, indexes

DIM = 16
MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="ab" * 32, dim=DIM)
OTHER_MODEL = MODEL.model_copy(update={"name": "resnet18", "fingerprint": "cd" * 32})


@pytest.fixture(
    scope="module",
    params=["milvus_uri", pytest.param("standalone_uri", marks=pytest.mark.servers)],
    ids=["lite", "standalone"],
)
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings(milvus_uri=request.getfixturevalue(request.param), consistency="Strong")


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[VectorStore]:
    store = VectorStore(settings)
    yield store
    store.close()


@pytest.fixture
def name(store: VectorStore) -> Iterator[str]:
    """A collection's name that nobody has used."""
    name = f"c{uuid.uuid4().hex[:12]}"
    yield name
    if name in [record.name for record in store.collections()]:
        store.drop(name)


def images(count: int, **fields: Any) -> list[StoredImage]:
    return [
        StoredImage(
            **{
                "id": f"{number:032x}",
                "uri": f"file:///photos/{number}.jpg",
                "name": f"{number}.jpg",
                "sha256": f"{number:064x}",
                "size": 10**10 + number,
                "mtime_ns": 1_700_000_000_000_000_001,
                "width": 640,
                "height": 480,
                "metadata": {"number": number},
            }
            | fields
        )
        for number in range(count)
    ]


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)


def test_a_created_collection_is_empty_until_a_model_is_bound(store: VectorStore, name: str) -> None:
    created = store.create(CollectionRequest(name=name, metric=Metric.IP, index=IndexKind.FLAT))

    assert store.collection(name) == created
    assert created in store.collections()
    assert (created.metric, created.index, created.model) == (Metric.IP, IndexKind.FLAT, None)
    assert store.count(name) == 0
    assert store.known(name, [images(1)[0].id]) == {}
    assert store.search(name, vectors(2), limit=3) == [[], []]
    with pytest.raises(CollectionExists):
        store.create(CollectionRequest(name=name))
    store.drop(name)
    with pytest.raises(CollectionNotFound):
        store.collection(name)


@pytest.mark.parametrize("name", ["nobody_made_this", "a'b", "_lookalike_catalog", "x" * 60, "tail\n", ""])
def test_a_collection_that_nobody_made_is_not_found(store: VectorStore, name: str) -> None:
    for call in (store.collection, store.count, store.drop, lambda name: store.search(name, vectors(1), limit=1)):
        with pytest.raises(CollectionNotFound):
            call(name)
    assert store.known(name, [images(1)[0].id]) == {}


def test_the_preset_of_the_tutorial_brings_its_metric(store: VectorStore, name: str) -> None:
    with pytest.raises(InvalidParameter, match="L2"):
        store.create(CollectionRequest(name=name, metric=Metric.COSINE, index=IndexKind.TUTORIAL))
    assert store.create(CollectionRequest(name=name, index=IndexKind.TUTORIAL)).metric is Metric.L2


def test_binding_creates_a_missing_collection_under_an_alias(store: VectorStore, settings: Settings, name: str) -> None:
    bound = store.bind(name, MODEL)

    assert (bound.metric, bound.index, bound.model) == (settings.metric, settings.index, MODEL)
    assert store.collection(name) == store.bind(name, MODEL) == bound
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    assert client.describe_alias(name)["collection_name"] == f"{name}__{MODEL.fingerprint[:12]}"
    client.close()


def test_another_model_is_refused_before_anything_is_written(store: VectorStore, settings: Settings, name: str) -> None:
    store.bind(name, MODEL)
    other_worker = VectorStore(settings)
    with pytest.raises(ModelMismatch, match=r"resnet50.*resnet18"):
        other_worker.bind(name, OTHER_MODEL)
    other_worker.close()
    assert store.collection(name).model == MODEL


def test_many_threads_may_bind_at_the_same_moment(store: VectorStore, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda _: store.bind(name, MODEL), range(8)))
    assert {record.model for record in records} == {MODEL}


def test_what_is_stored_comes_back_whole(store: VectorStore, name: str) -> None:
    metadata = {
        "album": "spring 'n' \"süd\"\n\\ \U0001f600",
        "year": 2**53 + 1,
        "least": -(2**63) + 1,
        "whole": 1.0,
        "part": 0.1,
        "open": True,
        "tags": ["a", 1, 2.5, True],
        "none": [],
        "a" * 64: "long",
    }
    image, plain = images(2)
    image = replace(image, metadata=metadata, uri="file:///" + "%E6" * 5000, name="ü" * 2000)
    plain = replace(plain, metadata={})
    stored = vectors(2)
    store.bind(name, MODEL)
    store.upsert(name, [image, plain], stored)

    assert store.get(name, image.id) == image
    assert store.known(name, [image.id, plain.id, "f" * 32]) == {image.id: image, plain.id: plain}
    assert store.search(name, stored[:1], limit=1)[0][0].image == image
    back = store.vectors(name, [plain.id, "f" * 32])
    assert list(back) == [plain.id]
    np.testing.assert_array_equal(back[plain.id], stored[1])
    assert back[plain.id].dtype == np.float32


def test_storing_an_image_again_replaces_it(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    first, second = vectors(40), vectors(40, seed=1)
    store.upsert(name, images(40, metadata={"album": "old", "only_old": 1}), first)
    store.upsert(name, images(40, metadata={"album": "new"}), second)

    assert store.count(name) == 40
    hits = store.search(name, second[:3], limit=40)
    assert [len({hit.image.id for hit in row}) for row in hits] == [40, 40, 40]
    assert [row[0].image for row in hits] == images(3, metadata={"album": "new"})
    assert hits[0][0].distance == pytest.approx(1, abs=1e-5)


def test_an_image_given_twice_in_one_call_is_stored_once(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    once = images(1)[0]
    store.upsert(name, [replace(once, size=1), replace(once, size=2)], vectors(2))
    assert store.count(name) == 1
    assert store.get(name, once.id).size == 2


def test_an_upsert_of_any_size_is_stored_whole(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    rows = images(2500)
    store.upsert(name, rows, vectors(2500))
    assert store.count(name) == 2500
    assert store.known(name, [image.id for image in rows]) == {image.id: image for image in rows}


def exact(stored: NDArray[np.float32], query: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """What Milvus' documentation says the distances are."""
    if metric is Metric.L2:
        return np.asarray(((stored - query) ** 2).sum(axis=1))
    products = stored @ query
    if metric is Metric.IP:
        return np.asarray(products)
    return np.asarray(products / np.linalg.norm(stored, axis=1) / np.linalg.norm(query))


@pytest.mark.parametrize(
    ("metric", "index"),
    [
        (Metric.COSINE, IndexKind.AUTO),
        (Metric.IP, IndexKind.AUTO),
        (Metric.L2, IndexKind.FLAT),
        (Metric.L2, IndexKind.TUTORIAL),
        (Metric.COSINE, IndexKind.IVF_FLAT),
        (Metric.COSINE, IndexKind.HNSW),
    ],
)
def test_searches_agree_with_an_exact_one(store: VectorStore, name: str, metric: Metric, index: IndexKind) -> None:
    store.create(CollectionRequest(name=name, metric=metric, index=index))
    store.bind(name, MODEL)
    stored, queries = vectors(300), vectors(8, seed=1)
    for start in range(0, 300, 75):  # Several segments on Milvus Lite, each with an index.
        part = slice(start, start + 75)
        store.upsert(name, images(300)[part], stored[part])

    answers = store.search(name, queries, limit=10)

    for query, hits in zip(queries, answers, strict=True):
        distances = exact(stored, query, metric)
        order = np.argsort(distances if metric is Metric.L2 else -distances)[:10]
        assert [hit.image.metadata["number"] for hit in hits] == order.tolist()
        np.testing.assert_allclose([hit.distance for hit in hits], distances[order], rtol=1e-4, atol=1e-4)


def test_a_filter_selects_by_fields_and_metadata(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    rows = [
        replace(image, metadata={"album": "spring" if number % 2 else "autumn", "tags": ["a", f"t{number}"]})
        for number, image in enumerate(images(20))
    ]
    store.upsert(name, rows, vectors(20))

    def found(expression: str) -> set[int]:
        hits = store.search(name, vectors(1), limit=20, filter=expression)[0]
        return {int(hit.image.id, 16) for hit in hits}

    assert found("album == 'spring'") == set(range(1, 20, 2))
    assert found("album like 'aut%' and size >= 10000000010") == set(range(10, 20, 2))
    assert found("array_contains(tags, 't7')") == {7}
    assert found("name in ['3.jpg', '4.jpg']") == {3, 4}
    assert found("no_such_field == 1") == set()


@pytest.mark.parametrize(
    "expression",
    ["album ==", "album = 'x'", "size > 'a'", "id in ['x']) or (size > 0", "album == {x}", "album == 'x", "size", " "],
)
def test_a_filter_that_milvus_rejects_is_the_users_mistake(store: VectorStore, name: str, expression: str) -> None:
    store.bind(name, MODEL)
    store.upsert(name, images(3), vectors(3))
    with pytest.raises(InvalidFilter, match=r"album == 'spring'\.$") as caught:
        store.search(name, vectors(1), limit=1, filter=expression)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 450


@pytest.mark.parametrize("bad", ["x", "f" * 31, "F" * 32, "f" * 32 + "\n", "' or id != '", 'f" or id != "'])
def test_an_id_that_is_none_never_reaches_milvus(store: VectorStore, name: str, bad: str) -> None:
    store.bind(name, MODEL)
    store.upsert(name, images(3), vectors(3))
    for call in (store.known, store.vectors, store.delete):
        with pytest.raises(InvalidParameter):
            call(name, [bad])
    with pytest.raises(ImageNotFound):
        store.get(name, bad)
    with pytest.raises(InvalidParameter):
        store.upsert(name, [replace(images(1)[0], id=bad)], vectors(1))
    assert store.count(name) == 3


def test_vectors_of_another_length_or_without_numbers_are_refused(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    for wrong in (np.ones((1, DIM + 1), np.float32), np.full((1, DIM), np.nan, np.float32)):
        with pytest.raises(InvalidParameter):
            store.search(name, wrong, limit=1)
        with pytest.raises(InvalidParameter):
            store.upsert(name, images(1), wrong)
    for limit in (0, 16_385):
        with pytest.raises(InvalidParameter):
            store.search(name, vectors(1), limit=limit)
    assert store.count(name) == 0


def test_deleting_tells_how_many_were_there(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    rows = images(5)
    store.upsert(name, rows, vectors(5))

    assert store.delete(name, [rows[0].id, rows[1].id, "f" * 32]) == 2

    assert store.count(name) == 3
    assert store.delete(name, [rows[0].id]) == 0
    with pytest.raises(ImageNotFound):
        store.get(name, rows[0].id)
    assert rows[0].id not in {hit.image.id for hit in store.search(name, vectors(1), limit=5)[0]}


def test_dropping_a_collection_leaves_those_with_similar_names(store: VectorStore, name: str) -> None:
    neighbours = [f"{name}x", f"{name}_x"]
    for each in (name, *neighbours):
        store.bind(each, MODEL)
        store.upsert(each, images(2), vectors(2))
    store.drop(name)
    assert [store.count(each) for each in neighbours] == [2, 2]
    store.bind(name, OTHER_MODEL)
    assert store.count(name) == 0
    for each in neighbours:
        store.drop(each)


def test_a_collection_dropped_by_another_process_is_noticed_and_can_be_bound_anew(
    store: VectorStore, settings: Settings, name: str
) -> None:
    store.bind(name, MODEL)
    store.upsert(name, images(2), vectors(2))
    other = VectorStore(settings)
    other.drop(name)
    other.bind(name, OTHER_MODEL)

    with pytest.raises(CollectionNotFound):  # Not: the vectors land among the other model's.
        store.upsert(name, images(2), vectors(2))
    with pytest.raises(ModelMismatch):
        store.bind(name, MODEL)
    assert store.count(name) == other.count(name) == 0
    other.close()


def test_a_collections_settings_are_kept_in_milvus(store: VectorStore, settings: Settings, name: str) -> None:
    store.create(CollectionRequest(name=name, metric=Metric.L2, index=IndexKind.HNSW))
    bound = store.bind(name, MODEL)
    newcomer = VectorStore(settings)
    assert newcomer.collection(name) == bound
    assert (bound.metric, bound.index) == (Metric.L2, IndexKind.HNSW)
    newcomer.close()


def test_thirty_two_threads_share_one_store(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    rows, stored = images(320), vectors(320)

    def work(number: int) -> bool:
        part = slice(number * 10, number * 10 + 10)
        store.upsert(name, rows[part], stored[part])
        hits = store.search(name, stored[part], limit=1)
        return [row[0].image for row in hits] == rows[part]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(32)))
    assert store.count(name) == 320


def test_a_collection_gets_another_index_while_searches_run_and_each_is_right(store: VectorStore, name: str) -> None:
    store.create(CollectionRequest(name=name, index=IndexKind.FLAT))
    store.bind(name, MODEL)
    rows, stored = images(600), vectors(600)
    store.upsert(name, rows, stored)

    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(store.reindex, name, index=IndexKind.HNSW, build={"M": 8})
        answers = []
        while not change.done() or len(answers) < 20:
            answers.append(store.search(name, stored[7:8], limit=1)[0][0].image)

    assert change.result().rebuilt
    assert answers == [rows[7]] * len(answers)
    assert not store.reindex(name, index=IndexKind.HNSW).rebuilt
    facts = store.index_of(name)
    assert facts
    assert (facts.chosen.index_type, facts.chosen.params["M"]) == ("HNSW", 8)


def test_a_large_collection_is_reindexed_only_where_searches_may_fail(
    store: VectorStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(CollectionRequest(name=name, index=IndexKind.HNSW))
    store.bind(name, MODEL)
    store.upsert(name, images(20), vectors(20))
    monkeypatch.setattr(indexes, "REBUILT_ROWS", 19)
    with pytest.raises(InvalidParameter, match="offline"):
        store.reindex(name, index=IndexKind.FLAT)
    assert store.collection(name).index is IndexKind.HNSW
    assert not store.reindex(name, search={"ef": 99}).rebuilt
    assert store.collection(name).search == {"ef": 99}
    assert store.reindex(name, index=IndexKind.FLAT, offline=True).rebuilt


def test_milvus_lite_says_when_it_is_outgrown(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VectorStore(Settings(milvus_uri=milvus_uri))
    monkeypatch.setattr(indexes, "LITE_BYTES", 4 * 20 * DIM)
    store.bind("grown", MODEL)
    store.upsert("grown", images(20), vectors(20))
    assert store.outgrown("grown") is None
    store.upsert("grown", images(21), vectors(21))
    assert (
        store.outgrown("grown")
        == "21 images of 16 values are more than Milvus Lite is good for; run a Milvus server for them"
    )
    store.drop("grown")
    store.close()
