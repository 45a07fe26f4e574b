"""A collection with several models: addresses, what is written to which, switching, rolling back, and dropping one."""

from typing import Any

import pytest
from pymilvus import MilvusClient
from test_vectorstore import MODEL, OTHER_MODEL, images, name, settings, store, vectors

from lookalike.errors import ModelInUse, ModelMismatch, ModelNotFound, ReembeddingIncomplete
from lookalike.records import Collection, ModelInfo, ModelState
from lookalike.settings import Settings
from lookalike.vectorstore import VectorStore, physical_name

__all__ = ["name", "settings", "store"]  # Fixtures, too.


def states(record: Collection) -> dict[str, ModelState]:
    return {one.model.name: one.state for one in record.models}


def address(name: str, model: ModelInfo = OTHER_MODEL) -> str:
    return physical_name(name, model.fingerprint)


def with_shadow(settings: Settings, store: VectorStore, name: str, stored: int = 3) -> VectorStore:
    """Store images with `MODEL`, add `OTHER_MODEL`, and return a store that has the place of its workers."""
    store.bind(name, MODEL)
    store.upsert(name, images(stored), vectors(stored))
    store.add_model(name, OTHER_MODEL)
    return VectorStore(settings)


def test_a_shadow_is_filled_while_the_other_model_serves(settings: Settings, store: VectorStore, name: str) -> None:
    other = with_shadow(settings, store, name)
    other.bind(address(name), OTHER_MODEL)
    other.upsert(address(name), images(2), vectors(2, seed=1))

    record = store.counted(store.collection(name))
    assert states(record) == {"resnet50": ModelState.SERVING, "resnet18": ModelState.SHADOW}
    assert {one.model.name: one.count for one in record.models} == {"resnet50": 3, "resnet18": 2}
    assert record.model == MODEL
    (hits,) = store.search(name, vectors(1), limit=5)
    assert hits[0].image.id == images(1)[0].id
    assert len(hits) == 3
    (aside,) = store.search(address(name), vectors(1, seed=1), limit=5)
    assert aside[0].distance == pytest.approx(1, abs=1e-5)
    assert len(aside) == 2
    with pytest.raises(ModelMismatch):
        other.bind(name, OTHER_MODEL)
    with pytest.raises(ModelNotFound):
        store.search(f"{name}__{'0' * 12}", vectors(1), limit=1)
    other.close()


def test_what_is_deleted_or_rewritten_is_so_for_all_models(settings: Settings, store: VectorStore, name: str) -> None:
    other = with_shadow(settings, store, name)
    other.upsert(address(name), images(3), vectors(3, seed=1))
    assert store.delete(name, [images(1)[0].id]) == 1
    changed: Any = {"metadata": {"number": 7}}
    assert store.rewrite(name, images(3, **changed)[1:]) == []
    for where in (name, address(name)):
        rows = store.matching(where, after=None, limit=10)
        assert [row.metadata for row in rows] == [{"number": 7}, {"number": 7}]
    (aside,) = store.search(address(name), vectors(2, seed=1)[1:], limit=1)
    assert aside[0].distance == pytest.approx(1, abs=1e-5), "its vector is its own"
    other.close()


def test_switching_rolling_back_and_dropping(settings: Settings, store: VectorStore, name: str) -> None:
    other = with_shadow(settings, store, name)
    other.upsert(address(name), images(2), vectors(2, seed=1))
    with pytest.raises(ReembeddingIncomplete, match="3 images, and 2"):
        store.switch(name, OTHER_MODEL.fingerprint)
    with pytest.raises(ModelInUse):
        store.drop_model(name, MODEL.fingerprint)
    switched = store.switch(name, OTHER_MODEL.fingerprint, force=True)
    assert (switched.model, states(switched)["resnet50"]) == (OTHER_MODEL, ModelState.RETIRED)
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    assert client.describe_alias(name)["collection_name"] == address(name)
    assert len(store.search(name, vectors(1), limit=5)[0]) == 2
    with pytest.raises(ModelMismatch):
        store.bind(name, MODEL)
    assert store.switch(name, MODEL.fingerprint).model == MODEL
    assert client.describe_alias(name)["collection_name"] == address(name, MODEL)
    assert len(store.search(name, vectors(1), limit=5)[0]) == 3

    assert store.drop_model(name, OTHER_MODEL.fingerprint).models == ()
    assert not client.has_collection(address(name))
    assert len(store.search(name, vectors(1), limit=5)[0]) == 3
    assert store.delete(name, [images(1)[0].id]) == 1
    client.close()
    other.close()


def test_a_switch_that_was_cut_short_goes_by_the_catalog_and_is_repaired(
    settings: Settings, store: VectorStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = with_shadow(settings, store, name, stored=2)
    other.upsert(address(name), images(2), vectors(2, seed=1))

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._milvus, "point", dies)
        with pytest.raises(KeyboardInterrupt):
            store.switch(name, OTHER_MODEL.fingerprint)
    other._catalog.forget(name)
    (hits,) = other.search(name, vectors(1, seed=1), limit=1)
    assert hits[0].distance == pytest.approx(1, abs=1e-5), "the vectors of the model that the catalog names"
    other.bind(name, OTHER_MODEL)
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    assert client.describe_alias(name)["collection_name"] == address(name)
    client.close()
    other.close()


def test_a_model_is_added_once_and_only_to_a_collection_that_has_one(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    with pytest.raises(ModelInUse):
        store.add_model(name, MODEL)
    for _ in range(2):
        assert len(store.add_model(name, OTHER_MODEL).models) == 2
    store.drop(name)
