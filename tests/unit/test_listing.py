"""A listing finds every image once, in one order, goes on from any place in it, and holds little."""

import os
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.errors import FolderNotFound, InvalidFilename, NotRegularFile
from lookalike.listing import FolderOptions, Listed, list_folder, walk_folder
from lookalike.listing.counting import count_folder
from lookalike.roots import Roots, file_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "photos"
    folder.mkdir()
    return folder


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def paths(found: Iterable[Listed], folder: Path) -> list[str]:
    prefix = folder.as_uri() + "/"
    return [listed.uri.removeprefix(prefix) for listed in found]


def test_images_are_found_by_suffix_in_depth_first_order_of_names(folder: Path) -> None:
    make(
        folder,
        "b.jpg",
        "a/z.PNG",
        "a/b/c.webp",
        "a.gif",
        "c.JPEG",
        "notes.txt",
        "jpg",
        "no suffix",
        "d.bmp",
        "a b.jfif",
    )

    assert paths(list_folder(folder), folder) == [
        "a/b/c.webp",
        "a/z.PNG",
        "a%20b.jfif",
        "a.gif",
        "b.jpg",
        "c.JPEG",
        "d.bmp",
    ]


def test_formats_that_are_not_decoded_are_listed_so_that_they_do_not_vanish(folder: Path) -> None:
    make(folder, "a.heic", "b.TIF", "c.svg", "d.psd", "e.pdf")

    assert paths(list_folder(folder), folder) == ["a.heic", "b.TIF", "c.svg", "d.psd"]


def test_a_listed_file_has_the_uri_that_naming_it_gives(folder: Path) -> None:
    make(folder, "späß/ü 1%.jpg")

    (listed,) = list_folder(folder)

    assert listed.uri == Roots([folder]).resolve_file("späß/ü 1%.jpg")
    assert listed.name == "ü 1%.jpg"
    assert listed.error is None


def test_hidden_names_and_folders_below_are_left_out_as_asked(folder: Path) -> None:
    make(folder, ".hidden.jpg", ".trash/a.jpg", "sub/a.jpg", "a.jpg")

    assert paths(list_folder(folder), folder) == ["a.jpg", "sub/a.jpg"]
    assert paths(list_folder(folder, recursive=False), folder) == ["a.jpg"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.jpg"], [], ["2023/a.JPG", "2024/raw/c.jpg", "x.jpg"]),
        (["*.dat", "x.*"], [], ["2024/b.dat", "x.jpg"]),
        (["2024/*"], [], ["2024/b.dat", "2024/d.png"]),
        (["2024/**"], [], ["2024/b.dat", "2024/d.png", "2024/raw/c.jpg"]),
        (["**/c.jpg", "**/x.jpg"], [], ["2024/raw/c.jpg", "x.jpg"]),
        (["20*/**/[cd].*"], [], ["2024/d.png", "2024/raw/c.jpg"]),
        ([], ["raw"], ["2023/a.JPG", "2024/d.png", "x.jpg"]),
        ([], ["2024/**", "X.JPG"], ["2023/a.JPG"]),
        (["*.jpg"], ["*.jpg"], []),
        ([], ["/2023/", "**/raw/**"], ["2024/d.png", "x.jpg"]),
    ],
)
def test_globs_choose_files_and_prune_folders(
    folder: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    make(folder, "x.jpg", "2023/a.JPG", "2024/b.dat", "2024/raw/c.jpg", "2024/d.png")

    assert paths(list_folder(folder, include=include, exclude=exclude), folder) == expected


@pytest.mark.timeout(20)
def test_a_hostile_glob_takes_no_longer(folder: Path) -> None:
    make(folder, "/".join(["a"] * 40) + "/a.jpg")

    assert not list(list_folder(folder, include=["/".join(["**", "a"] * 20) + "/b", "*a" * 50 + "b"]))


NAMES = st.sampled_from(["a", "a.jpg", "a-.jpg", "b", "b.jpg", "Ä.jpg", "~.jpg", "%41.jpg", "a b.jpg", "c"])


@given(
    files=st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=25),
    window=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_going_on_behind_any_cursor_yields_exactly_the_rest(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], window: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("listing").resolve()
    for name in files:
        try:
            make(folder, name)
        except OSError:
            continue  # One of its folders is a file already.
    whole = list(walk_folder(folder, FolderOptions(include=["*"], window=window)))

    assert whole == list(list_folder(folder, include=["*"]))
    assert len({listed.uri for listed in whole}) == len(whole) == sum(path.is_file() for path in folder.rglob("*"))
    for number, listed in enumerate(whole):
        assert listed.cursor.isascii()
        assert (
            list(walk_folder(folder, FolderOptions(include=["*"], window=window), after=listed.cursor))
            == whole[number + 1 :]
        )
    if whole:  # The place itself may be gone by then, with the folder it was in.
        number = data.draw(st.integers(0, len(whole) - 1))
        gone = file_path(whole[number].uri)
        gone.unlink()
        if gone.parent != folder and not any(gone.parent.iterdir()):
            gone.parent.rmdir()
        assert list(list_folder(folder, include=["*"], after=whole[number].cursor)) == whole[number + 1 :]


def test_one_flat_folder_is_listed_in_bounded_memory(folder: Path) -> None:
    for number in range(5_000):
        (folder / f"{number * 7919 % 5_000:04d}.jpg").touch()

    tracemalloc.start()
    try:
        last, count = "", 0
        for listed in walk_folder(folder, FolderOptions(window=200)):
            assert last < listed.name
            last, count = listed.name, count + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 5_000
    assert peak < 150_000  # 30 bytes a file; their names and kinds take four times that.


def test_links_are_not_followed_and_those_that_lead_out_are_told(folder: Path) -> None:
    make(folder.parent, "outside/a.jpg")
    make(folder, "a.jpg", "sub/b.jpg")
    (folder / "inside.jpg").symlink_to("a.jpg")
    (folder / "out.jpg").symlink_to(folder.parent / "outside" / "a.jpg")
    (folder / "folder").symlink_to("sub")
    (folder / "outfolder.jpg").symlink_to(folder.parent / "outside")
    (folder / "circle.jpg").symlink_to("circle.jpg")

    found = {listed.name: listed.error for listed in list_folder(folder)}

    assert found.keys() == {"a.jpg", "b.jpg", "out.jpg"}
    assert isinstance(found["out.jpg"], NotRegularFile)


def test_a_pipe_named_like_an_image_is_a_failure(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")

    (listed,) = list_folder(folder)

    assert isinstance(listed.error, NotRegularFile)


def test_names_that_are_not_utf_8_are_failures_that_can_be_printed(folder: Path) -> None:
    make(folder, "a.jpg", os.fsdecode(b"b\xff/c.jpg"), os.fsdecode(b"d\xfe.jpg"))

    good, below, bad = list_folder(folder)

    assert good.error is None
    assert isinstance(below.error, InvalidFilename)
    assert isinstance(bad.error, InvalidFilename)
    assert bad.name == "d\N{REPLACEMENT CHARACTER}.jpg"
    for listed in (below, bad):
        (listed.uri + listed.name + listed.cursor).encode()
    assert [listed.uri for listed in list_folder(folder, after=below.cursor)] == [bad.uri]


def test_a_path_too_long_to_store_is_a_failure(folder: Path) -> None:
    deep = folder
    for _ in range(17):
        deep = deep / ("ü" * 60)  # Each takes six bytes in the URI.
    deep.mkdir(parents=True)
    (deep / "a.jpg").touch()

    (listed,) = list_folder(folder)

    assert isinstance(listed.error, InvalidFilename)


def test_a_folder_that_cannot_be_read_is_one_failure_and_the_listing_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, "a.jpg", "locked/b.jpg", "z.jpg")
    (folder / "locked").chmod(0)
    real_open = os.open

    def open_as_a_user(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        # Tests may run as root, whom no permission stops.
        if path == "locked":
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("lookalike.listing.folder.os.open", open_as_a_user)
    found = list(list_folder(folder))

    assert [(listed.name, listed.error and listed.error.code) for listed in found] == [
        ("a.jpg", None),
        ("locked", "permission_denied"),
        ("z.jpg", None),
    ]
    assert [listed.name for listed in list_folder(folder, after=found[1].cursor)] == ["z.jpg"]


def test_a_folder_that_is_gone_ends_the_listing_with_its_code(folder: Path) -> None:
    make(folder, "a/b.jpg", "c/d.jpg")
    listing = list_folder(folder)
    next(listing)
    (folder / "c" / "d.jpg").unlink()
    (folder / "c").rmdir()

    assert list(listing) == []
    with pytest.raises(FolderNotFound):
        next(list_folder(folder / "missing"))


def test_a_listing_left_in_the_middle_leaves_no_folder_open(folder: Path) -> None:
    make(folder, "a/b/c/d.jpg", "a/b/e.jpg")
    before = len(list(Path("/dev/fd").iterdir()))
    listing = list_folder(folder)
    next(listing)
    del listing

    assert len(list(Path("/dev/fd").iterdir())) == before


def test_cursors_follow_the_order_of_the_listing(folder: Path) -> None:
    make(folder, "a/1.jpg", "a/2.jpg", "a.jpg", "b.jpg")

    cursors = [listed.cursor for listed in list_folder(folder)]

    assert cursors == ["a/1.jpg", "a/2.jpg", "a.jpg", "b.jpg"]
    for earlier, later in pairwise(cursors):
        assert next(list_folder(folder, after=earlier)).cursor == later


def test_a_folder_in_which_nothing_is_wanted_still_shows_progress(folder: Path) -> None:
    make(folder, *(f"{number}.txt" for number in range(3000)))
    keeps: list[None] = []

    assert not list(walk_folder(folder, FolderOptions(), keep=lambda: keeps.append(None)))

    assert len(keeps) >= 10


def test_hidden_names_sizes_times_and_labels_are_given_where_asked(folder: Path) -> None:
    make(folder, ".a.jpg", ".cats/b.jpg", "dogs/c.jpg")
    os.utime(folder / "dogs" / "c.jpg", ns=(5, 7))

    found = list(walk_folder(folder, FolderOptions(hidden=True, label=True, stat=True)))

    assert [(one.name, one.metadata) for one in found] == [
        (".a.jpg", {"label": "photos"}),
        ("b.jpg", {"label": ".cats"}),
        ("c.jpg", {"label": "dogs"}),
    ]
    assert (found[2].size, found[2].mtime_ns) == (1, 7)


def test_a_file_that_vanishes_while_it_is_listed_is_a_failure(folder: Path) -> None:
    make(folder, "a.jpg", "b.jpg", "c.jpg")
    listing = walk_folder(folder, FolderOptions(stat=True))
    next(listing)
    (folder / "b.jpg").unlink()

    assert [one.error and one.error.code for one in listing] == ["file_missing", None]


@pytest.mark.parametrize("recursive", [True, False])
def test_a_count_finds_as_many_as_a_listing(folder: Path, recursive: bool) -> None:
    make(folder, *(f"{number}.jpg" for number in range(600)), *(f"{number}/in.jpg" for number in range(300)))
    make(folder, "a/b/c/d.jpg", "a/x.txt", ".hidden/e.jpg", "skip/f.jpg", "a/skip.jpg")
    (folder / "link").symlink_to(folder / "a", target_is_directory=True)
    options = FolderOptions(recursive=recursive, exclude=("skip*",))
    assert count_folder(folder, options, keep=lambda: None) == len(list(walk_folder(folder, options)))


def test_a_count_can_be_given_up(folder: Path) -> None:
    make(folder, "a.jpg")
    with pytest.raises(InterruptedError):
        count_folder(folder, FolderOptions(), keep=_give_up)


def _give_up() -> None:
    raise InterruptedError
