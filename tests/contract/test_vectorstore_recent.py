"""What a process remembers of collections for a few seconds, and what it does where that is out of date."""

from collections.abc import Iterator

import numpy as np
import pytest

from lookalike.errors import CollectionNotFound, ModelNotFound
from lookalike.records import ModelInfo
from lookalike.settings import Settings
from lookalike.vectorstore import VectorStore, physical_name

OLD = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="a" * 64, dim=8)
NEW = OLD.model_copy(update={"fingerprint": "b" * 64})
QUERY = np.ones((1, 8), np.float32)


@pytest.fixture
def processes(milvus_uri: str) -> Iterator[tuple[VectorStore, VectorStore]]:
    """The stores of two processes, with a collection that both have just seen."""
    settings = Settings(milvus_uri=milvus_uri)
    one, other = VectorStore(settings), VectorStore(settings)
    one.bind("remembered", OLD)
    assert one.recent("remembered").model == other.recent("remembered").model == OLD
    yield one, other
    one.close()
    other.close()


def test_a_remembered_collection_costs_no_call(
    processes: tuple[VectorStore, VectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = processes

    def call(*_: object, **__: object) -> None:
        raise AssertionError("Milvus was asked")

    monkeypatch.setattr(one._milvus, "call", call)
    assert one.recent("remembered").model == OLD


def test_a_collection_that_another_process_deleted_is_missed_by_the_search(
    processes: tuple[VectorStore, VectorStore],
) -> None:
    one, other = processes
    other.drop("remembered")
    with pytest.raises(CollectionNotFound):
        one.search("remembered", QUERY, limit=1)
    with pytest.raises(CollectionNotFound):
        one.recent("remembered")


def test_vectors_of_a_model_never_meet_those_of_a_collection_made_anew_with_another(
    processes: tuple[VectorStore, VectorStore],
) -> None:
    one, other = processes
    other.drop("remembered")
    other.bind("remembered", NEW)
    with pytest.raises(ModelNotFound):
        one.search(physical_name("remembered", OLD.fingerprint), QUERY, limit=1)
    assert one.recent("remembered").model == NEW, "a look that failed is remembered no longer"


def test_what_is_not_bound_to_a_model_is_not_remembered(milvus_uri: str) -> None:
    one, other = VectorStore(Settings(milvus_uri=milvus_uri)), VectorStore(Settings(milvus_uri=milvus_uri))
    with pytest.raises(CollectionNotFound):
        one.recent("later")
    other.bind("later", OLD)
    assert one.recent("later").model == OLD
    one.close()
    other.drop("later")
    other.close()
