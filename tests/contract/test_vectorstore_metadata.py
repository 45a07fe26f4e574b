"""Listing images and changing their metadata, on Milvus Lite and on a Milvus server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import test_vectorstore
from numpy.typing import NDArray
from test_vectorstore import DIM, MODEL, images

from lookalike.errors import CollectionNotFound, ImageNotFound, InvalidFilter, InvalidParameter
from lookalike.vectorstore import StoredImage, VectorStore

settings, store, name = test_vectorstore.settings, test_vectorstore.store, test_vectorstore.name


@pytest.fixture
def stored(store: VectorStore, name: str) -> list[StoredImage]:
    """Five images with a vector each."""
    store.bind(name, MODEL)
    found = images(5)
    store.upsert(name, found, matrix())
    return found


def matrix() -> NDArray[np.float32]:
    return np.arange(1, 5 * DIM + 1, dtype=np.float32).reshape(5, DIM)


def test_pages_are_full_but_for_the_last_and_follow_one_another(
    store: VectorStore, name: str, stored: list[StoredImage]
) -> None:
    assert store.listed(name, None, after=None, limit=3) == (stored[:3], stored[2].id)
    assert store.listed(name, None, after=stored[2].id, limit=3) == (stored[3:], None)
    assert store.listed(name, "number >= 3", after=None, limit=2) == (stored[3:], stored[4].id)
    assert store.listed(name, "number >= 3", after=stored[4].id, limit=2) == ([], None)
    with pytest.raises(InvalidFilter):
        store.listed(name, "number >", after=None, limit=2)
    with pytest.raises(CollectionNotFound):
        store.listed("absent", None, after=None, limit=2)


def test_a_link_to_an_original_that_is_gone_is_taken_back_in_a_list(
    store: VectorStore, name: str, stored: list[StoredImage]
) -> None:
    copy = replace(stored[1], sha256=stored[0].sha256, duplicate_of=stored[0].id)
    store.upsert(name, [copy], matrix()[:1])
    assert store.listed(name, None, after=None, limit=9)[0][1] == copy
    store.delete(name, [stored[0].id])
    assert store.listed(name, None, after=None, limit=9)[0][0] == replace(copy, duplicate_of=None)


def test_a_patch_changes_what_it_names_and_nothing_else(
    store: VectorStore, name: str, stored: list[StoredImage]
) -> None:
    first = replace(stored[0], metadata={"number": 0, "album": "spring"})
    store.upsert(name, [first], matrix()[:1])
    patched = store.patch_metadata(name, first.id, {"album": None, "stars": 5})
    assert patched == replace(first, metadata={"number": 0, "stars": 5})
    assert store.get(name, first.id) == patched
    np.testing.assert_array_equal(store.vectors(name, [first.id])[first.id], matrix()[0])
    assert store.count_matching(name, "stars == 5") == 1
    for bad in ({"uri": "x"}, {"a": float("nan")}, {"a": {"b": 1}}, {"a": "x" * 40_000}):
        with pytest.raises(InvalidParameter):
            store.patch_metadata(name, first.id, bad)
    assert store.get(name, first.id) == patched
    with pytest.raises(ImageNotFound):
        store.patch_metadata(name, "f" * 32, {"a": 1})


def test_patches_at_the_same_time_all_count(store: VectorStore, name: str, stored: list[StoredImage]) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: store.patch_metadata(name, stored[0].id, {f"k{number}": number}), range(8)))
    assert store.get(name, stored[0].id).metadata.items() >= {f"k{number}": number for number in range(8)}.items()


def test_a_patch_keeps_the_content_that_came_in_its_middle(
    store: VectorStore, name: str, stored: list[StoredImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(stored[0], sha256="f" * 64, size=999)
    rewrite = store.rewrite

    def replaced_first(name: str, some: list[StoredImage]) -> list[str]:
        monkeypatch.undo()
        store.upsert(name, [newer], matrix()[4:])
        return rewrite(name, some)

    monkeypatch.setattr(store, "rewrite", replaced_first)
    store.patch_metadata(name, newer.id, {"stars": 5})
    found = store.get(name, newer.id)
    assert (found.sha256, found.size, found.metadata["stars"]) == (newer.sha256, 999, 5)
    np.testing.assert_array_equal(store.vectors(name, [newer.id])[newer.id], matrix()[4])


def in_the_middle(monkeypatch: pytest.MonkeyPatch, store: VectorStore, act: Callable[[], object]) -> None:
    """Have somebody else write after the next change to a row has looked at it, and before it is made."""
    looked = store.vectors_of

    def look_then_act(*asked: Any, **how: Any) -> Any:
        found = looked(*asked, **how)
        monkeypatch.undo()
        act()
        return found

    monkeypatch.setattr(store, "vectors_of", look_then_act)


def test_a_patch_overwrites_no_content_that_is_stored_between_its_look_and_its_write(
    store: VectorStore, name: str, stored: list[StoredImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(stored[0], sha256="f" * 64, size=999, metadata={"album": "new"})
    in_the_middle(monkeypatch, store, lambda: store.upsert(name, [newer], matrix()[4:]))
    store.patch_metadata(name, newer.id, {"stars": 5})
    assert store.get(name, newer.id) == replace(newer, metadata={"album": "new", "stars": 5})
    np.testing.assert_array_equal(store.vectors(name, [newer.id])[newer.id], matrix()[4])


def test_a_patch_brings_no_image_back_that_is_deleted_between_its_look_and_its_write(
    store: VectorStore, name: str, stored: list[StoredImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_middle(monkeypatch, store, lambda: store.delete(name, [stored[0].id]))
    with pytest.raises(ImageNotFound):
        store.patch_metadata(name, stored[0].id, {"stars": 5})
    assert store.count(name) == 4
