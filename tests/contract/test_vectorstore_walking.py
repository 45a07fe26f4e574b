"""Walking through a collection, on Milvus Lite and on a Milvus server."""

import numpy as np
import pytest
import test_vectorstore
from test_vectorstore import DIM, MODEL, images

from lookalike.errors import CollectionNotFound, InvalidFilter
from lookalike.vectorstore import VectorStore

settings, store, name = test_vectorstore.settings, test_vectorstore.store, test_vectorstore.name


def walk(store: VectorStore, name: str, filter: str | None, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = store.matching(name, filter, after=found[-1] if found else None, limit=limit)
        found += [image.id for image in page]
        if not page:
            return found


def test_every_image_is_on_exactly_one_page_in_the_order_of_ids(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    stored = images(25)
    for some in (stored[10:], stored[:10]):  # Two files on Milvus Lite, in the other order.
        store.upsert(name, some, np.ones((len(some), DIM), np.float32))
    assert walk(store, name, None, 7) == [image.id for image in stored]
    assert walk(store, name, "number >= 20", 2) == [image.id for image in stored[20:]]
    assert store.count_matching(name, "number < 5 or number == 24") == 6
    assert walk(store, name, "number < 5 or number == 24", 4) == [stored[n].id for n in (0, 1, 2, 3, 4, 24)]


def test_vectors_come_with_their_images(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    stored = images(5)
    matrix = np.arange(5 * DIM, dtype=np.float32).reshape(5, DIM)
    store.upsert(name, stored, matrix)
    found, got = store.matching_vectors(name, "number > 1", after=stored[2].id, limit=10)
    assert found == stored[3:]
    np.testing.assert_array_equal(got, matrix[3:])
    nothing, none = store.matching_vectors(name, "number > 99", after=None, limit=10)
    assert nothing == []
    assert len(none) == 0


@pytest.mark.parametrize("bad", ["number >", "1 == 1) or (number > 0", "", "  "])
@pytest.mark.parametrize("after", [None, "0" * 32])
def test_a_filter_that_is_none_is_refused_on_every_page(
    store: VectorStore,
    name: str,
    bad: str,
    after: str | None,
) -> None:
    store.bind(name, MODEL)
    store.upsert(name, images(3), np.ones((3, DIM), np.float32))
    with pytest.raises(InvalidFilter):
        store.matching(name, bad, after=after, limit=10)


def test_an_unbound_collection_is_empty_and_a_missing_one_is_not_found(store: VectorStore, name: str) -> None:
    with pytest.raises(CollectionNotFound):
        store.matching(name, None, after=None, limit=10)
    with pytest.raises(CollectionNotFound):
        store.count_matching(name, "number > 1")
