"""Searching with more than a limit, on Milvus Lite and on a Milvus server."""

from dataclasses import replace

import numpy as np
import pytest
import test_vectorstore
from test_vectorstore import DIM, MODEL, images

from lookalike.errors import InvalidParameter
from lookalike.vectorstore import How, VectorStore

settings, store, name = test_vectorstore.settings, test_vectorstore.store, test_vectorstore.name


def fan(rows: int) -> np.ndarray:
    """Directions that turn away from the first one, each by as much."""
    angles = np.linspace(0, 1.2, rows)
    vectors = np.zeros((rows, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    return vectors


def test_candidates_are_what_a_search_finds_with_what_is_decided_by(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    stored = [replace(image, metadata={"album": f"a{number % 3}"}) for number, image in enumerate(images(12))]
    store.upsert(name, stored, fan(12))
    how = How(filter="album != 'a2'", consistency="strong")
    (whole,) = store.search(name, fan(12)[:1], limit=5, filter=how.filter, consistency="strong")
    (light,) = store.candidates(name, fan(12)[:1], limit=5, how=how, group_by="album")
    assert [(one.id, one.sha256, one.group) for one in light] == [
        (found.image.id, found.image.sha256, found.image.metadata["album"]) for found in whole
    ]
    np.testing.assert_allclose([one.distance for one in light], [found.distance for found in whole], atol=1e-6)
    (widths,) = store.candidates(name, fan(12)[:1], limit=2, how=how, group_by="width")
    assert [one.group for one in widths] == [stored[0].width] * 2
    (absent,) = store.candidates(name, fan(12)[:1], limit=2, how=how, group_by="no_such_field")
    assert [one.group for one in absent] == [None, None]
    ids = [one.id for one in light]
    assert store.images(name, [*ids, "f" * 32]) == {found.image.id: found.image for found in whole}


@pytest.mark.parametrize("field", ["vector", "pk", "id", "a b", "x) or (1"])
def test_what_no_image_has_in_common_with_another_is_no_group(store: VectorStore, name: str, field: str) -> None:
    store.bind(name, MODEL)
    with pytest.raises(InvalidParameter, match="grouped"):
        store.candidates(name, fan(1), limit=1, how=How(), group_by=field)


def test_a_search_takes_its_index_own_parameters_and_no_others(store: VectorStore, name: str) -> None:
    store.bind(name, MODEL)
    stored = images(12)
    store.upsert(name, stored, fan(12))
    taken = [one for one in ("ef", "nprobe") if not refuses(store, name, one)]
    assert len(taken) == 1
    (found,) = store.search(name, fan(12)[:1], limit=3, params={taken[0]: 5}, consistency="strong")
    assert [one.image.id for one in found] == [image.id for image in stored[:3]]


def refuses(store: VectorStore, name: str, param: str) -> bool:
    try:
        store.check_params(name, {param: 5})
    except InvalidParameter:
        with pytest.raises(InvalidParameter, match=param):
            store.search(name, fan(1), limit=1, params={param: 5})
        return True
    return False
