"""Links are followed where that is asked for: never out of a root, never in circles, and each file once."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listing_parts import Place, assert_resumes_anywhere, codes, make_place
from lookalike.listing import Listed, list_folder
from lookalike.records import FolderSource
from lookalike.roots import Roots, file_path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def link(folder: Path, name: str, target: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target)


def listed_as(place: Place, found: list[Listed]) -> list[tuple[str, str]]:
    """Return by which name each file was found, and where it really is."""
    return [(one.name, file_path(one.uri).relative_to(place.root).as_posix()) for one in found]


def test_links_lead_to_files_and_folders_elsewhere_under_the_root(place: Place) -> None:
    make(place.root, "photos/a.jpg", "store/b.jpg", "store/deep/c.jpg", "blobs/0123")
    link(place.root, "photos/more", "../store")
    link(place.root, "photos/named.jpg", "../blobs/0123")

    found = assert_resumes_anywhere(place, FolderSource(path="photos", symlinks=True), label_from_folder=True)

    assert listed_as(place, found) == [
        ("a.jpg", "photos/a.jpg"),
        ("b.jpg", "store/b.jpg"),
        ("c.jpg", "store/deep/c.jpg"),
        ("named.jpg", "blobs/0123"),
    ]
    assert [one.metadata["label"] for one in found] == ["photos", "more", "deep", "photos"]
    assert all(one.size == 1 and one.mtime_ns for one in found)
    assert [one.name for one in place.list(FolderSource(path="photos"))] == ["a.jpg", "named.jpg"]


def test_links_that_leave_the_roots_or_lead_nowhere_are_told(place: Place) -> None:
    outside = place.root.parent / "secret"
    make(outside, "a.jpg")
    link(place.root, "out.jpg", str(outside / "a.jpg"))
    link(place.root, "folder", str(outside))
    link(place.root, "by-the-way", "../secret")
    link(place.root, "gone.jpg", "nothing")
    link(place.root, "circle.jpg", "circle.jpg")
    link(place.root, "notes.txt", str(outside / "a.jpg"))

    assert codes(place.list(FolderSource(path=".", symlinks=True))) == {
        "by-the-way": "not_regular_file",
        "circle.jpg": "not_regular_file",
        "folder": "not_regular_file",
        "gone.jpg": "file_missing",
        "out.jpg": "not_regular_file",
    }


def test_a_second_root_may_be_led_to(tmp_path: Path) -> None:
    first, second = tmp_path.resolve() / "first", tmp_path.resolve() / "second"
    make(second, "b.jpg")
    link(first, "other", str(second))

    assert [one.uri for one in list_folder(first, roots=Roots([first, second]))] == [(second / "b.jpg").as_uri()]


def test_a_file_is_listed_once_however_many_ways_lead_to_it(place: Place) -> None:
    make(place.root, "top/a.jpg", "top/sub/b.jpg", "top/.hidden/c.jpg", "store/d.jpg")
    for name, target in {
        "again.jpg": "a.jpg",
        "b-too.jpg": "sub/b.jpg",
        "sub-too": "sub",
        "one": "../store",
        "two": "../store",
        "three.jpg": "../store/d.jpg",
        "shown": ".hidden",
        "shown-too.jpg": ".hidden/c.jpg",
        "itself": ".",
        "up": "..",
    }.items():
        link(place.root, f"top/{name}", target)

    found = assert_resumes_anywhere(place, FolderSource(path="top", symlinks=True))

    assert listed_as(place, found) == [
        ("a.jpg", "top/a.jpg"),
        ("d.jpg", "store/d.jpg"),
        ("c.jpg", "top/.hidden/c.jpg"),
        ("b.jpg", "top/sub/b.jpg"),
    ]


@pytest.mark.timeout(20)
def test_folders_that_link_to_each_other_in_many_ways_are_walked_once(place: Place) -> None:
    for number in range(24):
        make(place.root, f"store/{number}/x.jpg")
        for name in ("left", "right"):
            link(place.root, f"store/{number}/{name}", f"../{number + 1}")
    link(place.root, "top/in", "../store/0")

    assert len(place.list(FolderSource(path="top", symlinks=True))) == 24


NAMES = st.sampled_from(["a", "b", "c", "a.jpg", "b.jpg", ".h", "store"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(files=st.sets(PATHS, max_size=8), links=st.dictionaries(PATHS, PATHS, max_size=8), hidden=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tangle_of_links_is_listed_once_and_resumes_anywhere(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], links: dict[str, str], hidden: bool
) -> None:
    place = make_place(tmp_path_factory.mktemp("tangle"))
    (place.root / "a").mkdir()
    for make_one in (
        *(lambda name=name: make(place.root, name) for name in sorted(files)),
        *(lambda name=name, to=to: link(place.root, name, str(place.root / to)) for name, to in sorted(links.items())),
    ):
        try:
            make_one()  # type: ignore[no-untyped-call]
        except OSError:
            continue  # Something of this name is there, or in its way.
    options = {"symlinks": True, "hidden": hidden}

    below = assert_resumes_anywhere(place, FolderSource(path="a", **options))
    whole = assert_resumes_anywhere(place, FolderSource(path=".", include=("*",), hidden=True, symlinks=True))

    for found in (below, whole):
        good = [one.uri for one in found if not one.error]
        assert len(set(good)) == len(good)
        for uri in good:
            assert os.path.realpath(file_path(uri)) == str(file_path(uri))
    # Of everything, with hidden names, a walk that follows links lists exactly the files that there are.
    assert {one.uri for one in whole if not one.error} == {
        path.as_uri() for path in place.root.rglob("*") if path.is_file() and not path.is_symlink()
    }
