"""What an incremental ingest needs of a vector store: states, contents, places, and rows rewritten without a model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import test_vectorstore
from pymilvus import MilvusClient
from test_vectorstore import DIM, MODEL, images, vectors

from lookalike.errors import CollectionNotFound, InvalidParameter
from lookalike.settings import Settings
from lookalike.vectorstore import RowPlace, RowState, StoredImage, VectorStore, check_metadata

settings, store, name = test_vectorstore.settings, test_vectorstore.store, test_vectorstore.name
ABSENT = "f" * 32


@contextmanager
def milvus(settings: Settings) -> Iterator[MilvusClient]:
    client = MilvusClient(settings.milvus_uri, dedicated=True)
    yield client
    client.close()


def physical(name: str) -> str:
    return f"{name}__{MODEL.fingerprint[:12]}"


def test_the_etag_and_the_original_come_back_and_are_no_metadata(
    store: VectorStore, settings: Settings, name: str
) -> None:
    plain, remote = images(2)
    remote = replace(remote, etag='W/"5f-é"', sha256=plain.sha256, duplicate_of=plain.id)
    store.bind(name, MODEL)
    store.upsert(name, [plain, remote], vectors(2))

    assert store.known(name, [plain.id, remote.id]) == {plain.id: plain, remote.id: remote}
    assert store.states(name, [remote.id])[remote.id].etag == remote.etag
    assert [hit.image for hit in store.search(name, vectors(2)[1:], limit=1)[0]] == [remote]
    hits = store.search(name, vectors(1), limit=2, filter=f"duplicate_of == '{plain.id}'")[0]
    assert [hit.image for hit in hits] == [remote]
    store.upsert(name, [images(2)[1]], vectors(2)[1:])
    assert store.get(name, remote.id) == images(2)[1]
    with milvus(settings) as client:  # As rows are that were stored before there were such fields.
        row = client.query(physical(name), ids=[plain.id], output_fields=["$meta"], consistency_level="Strong")[0]
    assert not {"etag", "duplicate_of"} & set(row)
    for key in ("etag", "duplicate_of"):
        with pytest.raises(InvalidParameter, match="lookalike's own"):
            check_metadata({key: "x"})


def test_thousands_of_files_are_looked_up_in_one_call(store: VectorStore, name: str) -> None:
    rows = [replace(image, etag=f"e{image.size}", job="01J") for image in images(2300)]
    store.bind(name, MODEL)
    store.upsert(name, rows, vectors(2300))
    ids = [image.id for image in images(4600)]

    states = store.states(name, [*ids, *ids])

    assert states == {
        image.id: RowState(
            size=image.size,
            mtime_ns=image.mtime_ns,
            etag=image.etag,
            job=image.job,
            sha256=image.sha256,
            metadata=image.metadata,
        )
        for image in rows
    }
    for settled in (True, False):
        assert store.known(name, ids, settled=settled) == {image.id: image for image in rows}
    assert store.states("nobody_made_this", ids) == {}


def test_only_a_settled_look_up_waits_for_writers_on_milvus_lite(milvus_uri: str) -> None:
    taken: list[str] = []
    guard = threading.Lock()

    @contextmanager
    def noting(name: str) -> Iterator[None]:
        with guard:
            taken.append(name)
        yield

    store = VectorStore(Settings(milvus_uri=milvus_uri), write_lock=noting)
    store.bind("noted", MODEL)
    store.upsert("noted", images(3), vectors(3))
    taken.clear()
    ids = [image.id for image in images(2500)]
    assert len(store.states("noted", ids)) == len(store.known("noted", ids, settled=False)) == 3
    assert taken == []
    assert len(store.states("noted", ids, settled=True)) == 3
    assert taken == ["noted"] * 3  # Once per 1,000 that were not there.
    taken.clear()
    assert len(store.known("noted", ids[:3])) == 3
    assert taken == []
    store.drop("noted")
    store.close()


def test_a_content_is_found_by_the_image_that_was_stored_with_it_first(store: VectorStore, name: str) -> None:
    first, second, other, copy = images(4)
    second = replace(second, sha256=first.sha256)
    copy = replace(copy, duplicate_of=other.id)
    store.bind(name, MODEL)
    store.upsert(name, [first, second, other, copy], vectors(4))

    found = store.same_content(name, [first.sha256, other.sha256, copy.sha256, "d" * 64])

    assert found == {first.sha256: first, other.sha256: other}
    store.upsert(name, [second], vectors(1))  # A later one, embedded by a worker that did not know.
    assert store.same_content(name, [first.sha256]) == {first.sha256: first}
    assert store.same_content("nobody_made_this", [first.sha256]) == {}
    with pytest.raises(InvalidParameter):
        store.same_content(name, ["x' or id != '"])


def test_a_record_of_a_content_that_is_out_of_date_is_ignored_and_heals(store: VectorStore, name: str) -> None:
    original, duplicate, newcomer = images(3)
    content = original.sha256
    duplicate = replace(duplicate, sha256=content, duplicate_of=original.id)
    newcomer = replace(newcomer, sha256=content)
    store.bind(name, MODEL)
    stored = vectors(3)
    store.upsert(name, [original, duplicate], np.stack([stored[0], stored[0]]))

    changed = replace(original, sha256="c" * 64)
    store.upsert(name, [changed], stored[1:2])  # The file was replaced.
    assert store.same_content(name, [content, "c" * 64]) == {"c" * 64: changed}
    store.upsert(name, [newcomer], stored[:1])
    assert store.same_content(name, [content]) == {content: newcomer}

    assert store.delete(name, [newcomer.id]) == 1
    assert store.same_content(name, [content]) == {}
    np.testing.assert_array_equal(store.vectors(name, [duplicate.id])[duplicate.id], stored[0])
    store.upsert(name, [newcomer], stored[:1])
    assert store.same_content(name, [content]) == {content: newcomer}


def test_a_collection_from_before_contents_were_recorded_gets_them_when_bound(
    store: VectorStore, settings: Settings, name: str
) -> None:
    old, new = images(2)
    store.bind(name, MODEL)
    store.upsert(name, [old], vectors(1))
    with milvus(settings) as client:
        client.drop_collection(physical(name) + "__contents")
    assert store.same_content(name, [old.sha256]) == {}

    upgraded = VectorStore(settings)
    upgraded.bind(name, MODEL)
    upgraded.upsert(name, [new], vectors(1))
    assert upgraded.same_content(name, [old.sha256, new.sha256]) == {new.sha256: new}
    upgraded.close()


def test_what_is_kept_beside_a_collection_is_not_listed_and_goes_with_it(
    store: VectorStore, settings: Settings, name: str
) -> None:
    store.bind(name, MODEL)
    store.upsert(name, images(1), vectors(1))
    assert [record.name for record in store.collections() if name in record.name] == [name]
    store.drop(name)
    with milvus(settings) as client:
        assert [left for left in client.list_collections() if name in left] == []
    with pytest.raises(CollectionNotFound):
        store.upsert(name, images(1), vectors(1))


def place(image: StoredImage) -> RowPlace:
    return RowPlace(id=image.id, uri=image.uri, sha256=image.sha256, size=image.size)


def pages(store: VectorStore, name: str, first: str, last: str, limit: int) -> list[list[RowPlace]]:
    found: list[list[RowPlace]] = []
    after = None
    while page := store.under(name, first, last, after=after, limit=limit):
        found.append(page)
        after = page[-1].id
    return found


def test_the_images_under_a_folder_come_page_after_page_and_each_once(
    store: VectorStore, settings: Settings, name: str
) -> None:
    order = np.random.default_rng(3).permutation(600).tolist()
    rows = [
        replace(
            image, uri=f"file:///{'photos' if number % 3 else 'photos2'}/{number}.jpg", sha256=f"{number % 50:064x}"
        )
        for number, image in enumerate(images(600))
    ]
    store.bind(name, MODEL)
    for start in range(0, 600, 200):  # Segments that hold any ids, and on a server one that still grows.
        store.upsert(name, [rows[number] for number in order[start : start + 200]], vectors(200))
        if start == 0:
            with milvus(settings) as client:
                client.flush(physical(name))
    again = [replace(image, size=7) for image in rows[:40]]
    store.upsert(name, again, vectors(40))
    store.delete(name, [image.id for image in rows[580:]])

    found = pages(store, name, "file:///photos/", "file:///photos0", limit=70)

    expected = [place(image) for image in [*again, *rows[40:580]] if image.uri.startswith("file:///photos/")]
    assert [row for page in found for row in page] == expected
    assert [len(page) for page in found[:-1]] == [70] * (len(found) - 1)
    assert pages(store, name, "", "~", limit=10**6) == [[place(image) for image in [*again, *rows[40:580]]]]
    assert store.under(name, "file:///elsewhere/", "file:///elsewhere0", after=None, limit=1) == []
    assert store.under("nobody_made_this", "", "~", after=None, limit=1) == []
    with pytest.raises(InvalidParameter):
        store.under(name, "", "~", after="' or id != '", limit=1)


def test_copies_of_a_content_are_found_within_a_range_of_addresses(store: VectorStore, name: str) -> None:
    rows = [
        replace(image, uri=f"file:///{folder}/{image.id}", sha256=f"{number % 3:064x}")
        for number, (image, folder) in enumerate(zip(images(12), ["a"] * 6 + ["b"] * 6, strict=True))
    ]
    store.bind(name, MODEL)
    store.upsert(name, rows, vectors(12))
    wanted = [f"{1:064x}", f"{2:064x}", f"{9:064x}"]
    found = store.copies(name, wanted, "file:///a/", "file:///a0", limit=100)
    assert sorted(found, key=lambda row: row.id) == [place(rows[number]) for number in (1, 2, 4, 5)]
    assert len(store.copies(name, wanted, "file:///a/", "file:///a0", limit=3)) == 3
    assert store.copies("nobody_made_this", wanted, "", "~", limit=1) == []
    with pytest.raises(InvalidParameter):
        store.copies(name, ['" or id != "'], "", "~", limit=1)


def test_a_link_to_an_original_is_shown_only_as_long_as_it_leads_there(store: VectorStore, name: str) -> None:
    first, second = images(2)
    twin = replace(second, sha256=first.sha256, duplicate_of=first.id)
    store.bind(name, MODEL)

    def linked() -> set[str | None]:
        hits = store.search(name, vectors(2)[1:], limit=2)[0]
        (hit,) = [hit for hit in hits if hit.image.id == twin.id]
        return {store.get(name, twin.id).duplicate_of, hit.image.duplicate_of}

    store.upsert(name, [first, twin], vectors(2))
    assert linked() == {first.id}
    store.upsert(name, [replace(first, sha256="9" * 64)], vectors(1))
    assert linked() == {None}, "the original was changed"
    store.upsert(name, [first], vectors(1))
    assert linked() == {first.id}
    store.delete(name, [first.id])
    assert linked() == {None}, "the original was deleted"


def test_any_address_can_bound_a_range(store: VectorStore, name: str) -> None:
    uris = sorted(
        ['s3://b/it\'s "so"/a.jpg', "s3://b/back\\slash\\/a.jpg", "s3://b/ünï/a.jpg", 'https://h/?q="]', "a\\"]
    )
    rows = [replace(image, uri=uri) for image, uri in zip(images(len(uris)), uris, strict=True)]
    store.bind(name, MODEL)
    store.upsert(name, rows, vectors(len(uris)))
    for image in rows:
        assert store.under(name, image.uri, image.uri + "0", after=None, limit=9) == [place(image)]
        assert place(image) not in store.under(name, "", image.uri, after=None, limit=9)


def test_a_row_rewritten_keeps_its_vector(store: VectorStore, name: str) -> None:
    rows, stored = images(700), vectors(700)
    store.bind(name, MODEL)
    store.upsert(name, rows, stored)
    changed = [replace(image, etag="new", metadata={"album": "new"}, mtime_ns=1) for image in rows[:650]]
    gone = replace(rows[0], id=ABSENT)

    assert store.rewrite(name, [*changed, gone]) == [ABSENT]

    ids = [image.id for image in rows]
    assert store.known(name, [*ids, ABSENT]) == {image.id: image for image in [*changed, *rows[650:]]}
    kept = store.vectors(name, ids)
    np.testing.assert_array_equal(np.stack([kept[image_id] for image_id in ids]), stored)
    assert store.same_content(name, [rows[0].sha256]) == {rows[0].sha256: changed[0]}
    assert kept[ids[0]].shape == (DIM,)


def test_a_row_that_got_another_content_meanwhile_keeps_it(store: VectorStore, name: str) -> None:
    before, other = images(2)
    store.bind(name, MODEL)
    store.upsert(name, [before, other], vectors(2))
    after = replace(before, sha256="9" * 64)
    store.upsert(name, [after], vectors(3)[2:])

    assert store.rewrite(name, [replace(before, metadata={"album": "late"}), other]) == [before.id]

    assert store.known(name, [before.id])[before.id] == after
    assert set(store.vectors_of(name, [before, other])) == {other.id}
    np.testing.assert_array_equal(store.vectors_of(name, [after])[after.id], vectors(3)[2])
