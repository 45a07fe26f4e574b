"""Naming and opening files under the roots: nothing leads out, nothing blocks, nothing is echoed."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike import roots as roots_module
from lookalike.errors import (
    FileEmpty,
    FileMissing,
    FileTooLarge,
    FolderNotFound,
    ImageError,
    InvalidFilename,
    InvalidPath,
    LookalikeError,
    NotRegularFile,
    PermissionDenied,
)
from lookalike.roots import Roots, file_path, file_uri, image_id

SECRET = b"outside"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a file, a folder and links, beside a folder that must never be read."""
    base = tmp_path.resolve()
    (base / "root" / "sub").mkdir(parents=True)
    (base / "outside" / "sub").mkdir(parents=True)
    (base / "root" / "a.jpg").write_bytes(b"inside")
    (base / "root" / "sub" / "b.jpg").write_bytes(b"deep inside")
    (base / "outside" / "a.jpg").write_bytes(SECRET)
    (base / "outside" / "sub" / "b.jpg").write_bytes(SECRET)
    (base / "root" / "out.jpg").symlink_to(base / "outside" / "a.jpg")
    (base / "root" / "out").symlink_to(base / "outside")
    (base / "root" / "again.jpg").symlink_to("sub/b.jpg")
    (base / "root" / "again").symlink_to("sub")
    return base


@pytest.fixture
def roots(tree: Path) -> Roots:
    return Roots([tree / "root"])


def read(roots: Roots, uri: str) -> bytes:
    with roots.open(uri) as file:
        return file.read(max_bytes=1000)


def test_a_file_is_named_relative_to_a_root_or_absolutely_and_has_one_uri(roots: Roots, tree: Path) -> None:
    expected = (tree / "root" / "sub" / "b.jpg").as_uri()

    assert roots.resolve_file("sub/b.jpg") == expected
    assert roots.resolve_file(str(tree / "root" / "sub" / "b.jpg")) == expected
    assert roots.resolve_file("./sub/./b.jpg") == expected
    assert roots.resolve_file("again/b.jpg") == roots.resolve_file("again.jpg") == expected
    assert read(roots, expected) == b"deep inside"


def test_a_folder_is_named_relative_to_a_root_or_absolutely(roots: Roots, tree: Path) -> None:
    assert roots.resolve_folder("sub") == roots.resolve_folder("again") == tree / "root" / "sub"
    assert roots.resolve_folder(".") == roots.resolve_folder(str(tree / "root")) == tree / "root"


def test_a_root_may_itself_be_a_link(tree: Path) -> None:
    (tree / "named").symlink_to(tree / "root")
    roots = Roots([tree / "named"])

    assert roots.resolve_file(str(tree / "named" / "a.jpg")) == (tree / "root" / "a.jpg").as_uri()
    assert roots.resolve_file(str(tree / "root" / "a.jpg")) == (tree / "root" / "a.jpg").as_uri()


def test_a_relative_path_is_looked_up_in_each_root_in_turn(tree: Path) -> None:
    (tree / "second").mkdir()
    (tree / "second" / "only.jpg").write_bytes(b"2")
    (tree / "second" / "a.jpg").write_bytes(b"2")
    roots = Roots([tree / "root", tree / "second"])

    assert roots.resolve_file("only.jpg") == (tree / "second" / "only.jpg").as_uri()
    assert roots.resolve_file("a.jpg") == (tree / "root" / "a.jpg").as_uri()


@pytest.mark.parametrize(
    "path",
    ["..", "../outside", "sub/../../outside", "/", "/etc/passwd", "out", "out/sub", "a\0b", "\udcff", "sub/\ud800"],
)
def test_a_folder_outside_the_roots_is_invalid(roots: Roots, path: str) -> None:
    with pytest.raises(InvalidPath):
        roots.resolve_folder(path)


@pytest.mark.parametrize("path", ["missing", "a.jpg", "sub/missing", "a.jpg/x"])
def test_a_folder_that_is_not_there_is_not_found(roots: Roots, path: str) -> None:
    with pytest.raises(FolderNotFound):
        roots.resolve_folder(path)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("../outside/a.jpg", InvalidPath),
        ("/etc/passwd", InvalidPath),
        ("a.jpg\0", InvalidPath),
        ("out.jpg", NotRegularFile),
        ("out/a.jpg", NotRegularFile),
        ("sub", NotRegularFile),
        ("missing.jpg", FileMissing),
        ("a.jpg/missing.jpg", FileMissing),
        ("x" * 300 + ".jpg", InvalidFilename),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_code(
    roots: Roots, path: str, error: type[LookalikeError]
) -> None:
    with pytest.raises(error):
        roots.resolve_file(path)


def test_no_error_tells_the_real_path(roots: Roots, tree: Path) -> None:
    attempts = [
        lambda: roots.resolve_file("out.jpg"),
        lambda: roots.resolve_file("missing.jpg"),
        lambda: roots.resolve_folder("out"),
        lambda: roots.resolve_folder("missing"),
        lambda: roots.open((tree / "root" / "out.jpg").as_uri()),
        lambda: roots.open((tree / "outside" / "a.jpg").as_uri()),
    ]
    for attempt in attempts:
        with pytest.raises(LookalikeError) as raised:
            attempt()
        assert str(tree) not in str(raised.value)
        assert "outside/" not in str(raised.value)


@pytest.mark.timeout(10)
def test_a_pipe_a_socket_and_a_device_are_refused_without_waiting(roots: Roots, tree: Path) -> None:
    os.mkfifo(tree / "root" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree / "root")  # A socket's path may not be long.
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        for name in ("pipe.jpg", "socket.jpg", "sub"):
            with pytest.raises(NotRegularFile):
                roots.open((tree / "root" / name).as_uri())
    with pytest.raises(NotRegularFile):
        Roots([Path("/dev")]).open("file:///dev/zero")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("replace", [os.mkfifo, lambda path: path.symlink_to("../outside/a.jpg")])
def test_what_takes_the_files_place_after_the_look_is_refused_too(
    roots: Roots, tree: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path], None]
) -> None:
    looked_at = (tree / "root" / "a.jpg").stat()
    (tree / "root" / "a.jpg").unlink()
    replace(tree / "root" / "a.jpg")
    monkeypatch.setattr(roots_module.os, "stat", lambda *_args, **_kw: looked_at)

    with pytest.raises(NotRegularFile):
        roots.open((tree / "root" / "a.jpg").as_uri())


@pytest.mark.parametrize("name", ["out.jpg", "out/a.jpg", "again.jpg", "again/b.jpg"])
def test_opening_follows_no_link_whoever_made_the_uri(roots: Roots, tree: Path, name: str) -> None:
    with pytest.raises(NotRegularFile):
        roots.open((tree / "root" / name).as_uri())


def test_a_folder_that_became_a_link_since_it_was_named_leads_nowhere(roots: Roots, tree: Path) -> None:
    uri = roots.resolve_file("sub/b.jpg")
    (tree / "root" / "sub").rename(tree / "root" / "was")
    (tree / "root" / "sub").symlink_to(tree / "outside" / "sub")

    with pytest.raises(NotRegularFile):
        roots.open(uri)


def test_opening_what_is_gone_forbidden_or_outside_says_so(roots: Roots, tree: Path) -> None:
    uri = roots.resolve_file("sub/b.jpg")
    (tree / "root" / "sub" / "b.jpg").unlink()
    with pytest.raises(FileMissing):
        roots.open(uri)
    (tree / "root" / "sub").rmdir()
    with pytest.raises(FileMissing):
        roots.open(uri)
    with pytest.raises(PermissionDenied):
        roots.open((tree / "outside" / "a.jpg").as_uri())


def test_a_file_without_permission_is_permission_denied() -> None:
    # The tests may run as root, whom no permission stops; the translation is what can be wrong.
    assert isinstance(roots_module.file_error(PermissionError(13, "no", "/secret")), PermissionDenied)
    assert "/secret" not in str(roots_module.file_error(OSError(5, "I/O", "/secret")))


def test_no_descriptor_stays_open_whatever_happens(roots: Roots, tree: Path) -> None:
    def descriptors() -> set[int]:
        found = set()
        for fd in range(256):
            try:
                os.fstat(fd)
            except OSError:
                continue
            found.add(fd)
        return found

    before = descriptors()
    for name in ("a.jpg", "sub/b.jpg", "missing", "sub/missing", "out/a.jpg", "out.jpg", "sub", "a.jpg/x"):
        try:
            roots.open((tree / "root" / name).as_uri()).__exit__(None, None, None)
        except ImageError:
            continue
    assert descriptors() == before


def test_reading_keeps_to_its_limit_and_refuses_an_empty_file(roots: Roots, tree: Path) -> None:
    uri = roots.resolve_file("a.jpg")
    with roots.open(uri) as file:
        assert (file.size, file.mtime_ns) == (6, (tree / "root" / "a.jpg").stat().st_mtime_ns)
        assert file.read(max_bytes=6) == b"inside"
    with roots.open(uri) as file, pytest.raises(FileTooLarge):
        file.read(max_bytes=5)
    with roots.open(uri) as file:
        (tree / "root" / "a.jpg").write_bytes(b"it grew meanwhile")
        with pytest.raises(FileTooLarge):
            file.read(max_bytes=16)
    with roots.open(uri) as file:
        (tree / "root" / "a.jpg").write_bytes(b"it grew meanwhile, and once more")
        assert file.read(max_bytes=32) == b"it grew meanwhile, and once more"
    (tree / "root" / "a.jpg").write_bytes(b"")
    with roots.open(uri) as file, pytest.raises(FileEmpty):
        file.read(max_bytes=6)


PIECES = st.sampled_from(
    ["..", ".", "", "/", "sub", "out", "out.jpg", "a.jpg", "b.jpg", "again", "again.jpg", "outside", "root", "%2e%2e"]
)


@given(pieces=st.lists(PIECES, max_size=8), leading=st.sampled_from(["", "/", "ROOT/"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_path_made_of_tricks_reaches_a_file_outside(
    roots: Roots, tree: Path, pieces: list[str], leading: str
) -> None:
    path = leading.replace("ROOT", str(tree / "root")) + "/".join(pieces)
    try:
        folder = roots.resolve_folder(path)
    except LookalikeError:
        pass
    else:
        assert folder.is_relative_to(tree / "root")
    for make_uri in (lambda: roots.resolve_file(path), lambda: "file://" + path, lambda: Path("/", path).as_uri()):
        try:
            content = read(roots, make_uri())
        except LookalikeError:
            continue
        assert content != SECRET


# --- URIs and ids ---------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
            lambda part: part not in {".", ".."}
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_path_and_its_uri_are_each_others_inverse(parts: list[str]) -> None:
    path = Path("/", *parts)

    uri = file_uri(path)

    assert uri == path.as_uri()
    assert uri.isascii()
    assert file_path(uri) == path


@pytest.mark.parametrize("path", [Path(os.fsdecode(b"/a/\xff.jpg")), Path("/" + "d/" * 2040 + "a-long-name.jpg")])
def test_a_path_that_cannot_be_stored_is_an_invalid_filename(path: Path) -> None:
    with pytest.raises(InvalidFilename):
        file_uri(path)


@pytest.mark.parametrize(
    "uri",
    [
        "file://host/a.jpg",
        "/a.jpg",
        "http://x/a.jpg",
        "file:///a/../b.jpg",
        "file:///a//b.jpg",
        "file:///a%00b.jpg",
        "file:///%ff.jpg",
        "file:///%61.jpg",
        "",
    ],
)
def test_a_uri_that_is_not_canonical_is_refused(uri: str) -> None:
    with pytest.raises(InvalidFilename):
        file_path(uri)


def test_an_image_id_is_128_bits_of_its_uri_and_never_changes() -> None:
    # Pinned: another digest would store every image of an existing collection a second time.
    assert image_id("file:///photos/a.jpg") == "aaf5fd76fdf528b43d6f37015336806d"
    assert image_id("file:///photos/a.jpg") != image_id("file:///photos/b.jpg")


def test_the_fixture_is_what_the_tests_take_it_for(tree: Path) -> None:
    assert (tree / "root" / "out.jpg").read_bytes() == SECRET
    assert stat.S_ISLNK((tree / "root" / "out").lstat().st_mode)
