"""Archives are read as streams: every image in them is listed, and nothing in them does harm."""

import gzip
import io
import json
import random
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listing_parts import LIMITS, Place, assert_resumes_anywhere, codes, make_place
from lookalike.errors import FileMissing, InvalidPath
from lookalike.records import ArchiveSource, IngestRequest, UploadedFile

Members = Sequence[tuple[str, bytes]]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def tar_of(members: Members, mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def zip_of(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names that come twice.
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return target.getvalue()


class Pipe(io.RawIOBase):
    """A target that cannot seek: what is written to it has its sizes behind its data."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


def streamed_zip_of(members: Members) -> bytes:
    target = Pipe()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in members:
            archive.writestr(name, content)
    return bytes(target.written)


FORMATS: dict[str, Callable[[Members], bytes]] = {
    "tar": tar_of,
    "pax": lambda members: tar_of([(f"{'ä' * 60}/../{name}", content) for name, content in members]),
    "tar.gz": lambda members: tar_of(members, "w:gz"),
    "zip": zip_of,
    "stored zip": lambda members: zip_of(members, zipfile.ZIP_STORED),
    "streamed zip": streamed_zip_of,
}
EVERY = pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
SIMPLE = pytest.mark.parametrize("pack", [tar_of, FORMATS["tar.gz"], zip_of], ids=["tar", "tar.gz", "zip"])


def put(place: Place, data: bytes, name: str = "archive.bin") -> ArchiveSource:
    (place.root / name).write_bytes(data)
    return ArchiveSource(path=name)


# --- What is in them ------------------------------------------------------------------------------------------------


@EVERY
def test_images_of_every_format_become_uploads_under_their_names(
    place: Place, pack: Callable[[Members], bytes]
) -> None:
    noise = random.Random(3).randbytes(300_000)
    members = [
        ("a/1.jpg", b"one"),
        ("a/notes.md", b"no image"),
        ("a/2.PNG", noise),
        ("b/plain", PNG + b"by its bytes"),
        ("b/text", b"BM is how this text begins"),
        ("b/.hidden.jpg", b"x"),
        ("__MACOSX/a/._1.jpg", b"x"),
        ("./c.heic", b"three"),
        ("d.jpg", b""),
    ]

    found = place.list(put(place, pack(members)))

    assert [listed.name.rpartition("../")[2] for listed in found] == [
        "a/1.jpg",
        "a/2.PNG",
        "b/plain",
        "./c.heic",
        "d.jpg",
    ]
    assert all(listed.error is None for listed in found)
    assert [place.content(listed) for listed in found[:4]] == [b"one", noise, PNG + b"by its bytes", b"three"]
    assert [listed.size for listed in found] == [3, 300_000, 20, 5, 0]
    assert place.kept() == 5


def test_an_archive_is_read_wherever_it_lies(place: Place, tmp_path: Path) -> None:
    data = zip_of([("a.jpg", b"x")])
    kept = place.uploads.put(io.BytesIO(data))
    (tmp_path / "fetched").write_bytes(data)
    place.network.files["https://host/a.zip"] = tmp_path / "fetched"

    for source in (
        put(place, data),
        ArchiveSource(upload=UploadedFile(sha256=kept, name="a.zip")),
        ArchiveSource(url="https://HOST/a.zip"),
    ):
        assert [listed.name for listed in place.list(source)] == ["a.jpg"]


def test_an_archive_that_is_not_there_or_not_allowed_fails_at_once(place: Place) -> None:
    for source in (ArchiveSource(path="none.zip"), ArchiveSource(upload=UploadedFile(sha256="0" * 64))):
        with pytest.raises(FileMissing):
            place.list(source)
    with pytest.raises(InvalidPath):
        place.list(ArchiveSource(path="../a.zip"))


@SIMPLE
def test_what_lies_beside_an_image_becomes_its_metadata(place: Place, pack: Callable[[Members], bytes]) -> None:
    odd = {"caption": "a cat", "quality": 0.5, "tags": ["x"], "width": 9, "none": None, "deep": {"a": 1}, "key": "000"}
    members = [
        ("s/0.json", json.dumps(odd).encode()),
        ("s/0.jpg", b"0"),
        ("s/1.jpg", b"1"),
        ("s/1.cls", b"7\n"),
        ("s/1.txt", "späß".encode()),
        ("t/1.json", b'{"other": "folder"}'),
        ("s/2.left.jpg", b"2"),
        ("s/2.right.jpg", b"3"),
        ("s/2.json", b'{"both": true}'),
        ("s/2.right.json", b'{"both": false}'),
        ("readme.txt", b"no sample"),
        ("s/3.jpg", b"4"),
        ("s/4.json", b'{"of": 4}'),
    ]

    found = place.list(put(place, pack(members)), label_from_folder=True)

    assert {listed.name: listed.metadata for listed in found} == {
        "s/0.jpg": {"caption": "a cat", "quality": 0.5, "tags": ["x"], "key": "000", "label": "s"},
        "s/1.jpg": {"cls": 7, "txt": "späß", "label": "s"},
        "s/2.left.jpg": {"both": True, "label": "s"},
        "s/2.right.jpg": {"both": False, "label": "s"},
        "s/3.jpg": {"label": "s"},
    }


def test_metadata_that_cannot_be_read_is_told_and_the_image_stays(place: Place) -> None:
    members = [
        ("0.json", b"{broken"),
        ("0.jpg", b"0"),
        ("1.jpg", b"1"),
        ("1.json", b'{"a": "' + b"x" * 70_000 + b'"}'),
        ("2.json", b"[" * 100_000),
        ("dataset.json", b"[]"),
    ]

    found = place.list(put(place, tar_of(members)))

    assert codes(found) == {
        "0.json": "invalid_parameter",
        "0.jpg": None,
        "1.jpg": None,
        "1.json": "invalid_parameter",
    }


# --- What is told -----------------------------------------------------------------------------------------------------


def test_what_is_not_opened_in_a_tar_is_told(place: Place, tmp_path: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind, link in (
            ("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.jpg", tarfile.LNKTYPE, "../../secret.jpg"),
            ("pipe.jpg", tarfile.FIFOTYPE, ""),
            ("device.jpg", tarfile.BLKTYPE, ""),
            ("folder.jpg", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
        for name, content in (("inner.tar.gz", b"x"), ("../../../etc/up.jpg", b"y"), ("/abs.jpg", b"z")):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.parent.iterdir())

    found = place.list(put(place, target.getvalue()), label_from_folder=True)

    assert codes(found) == {
        "link.jpg": "not_regular_file",
        "hard.jpg": "not_regular_file",
        "pipe.jpg": "not_regular_file",
        "device.jpg": "not_regular_file",
        "inner.tar.gz": "unsupported_format",
        "../../../etc/up.jpg": None,
        "/abs.jpg": None,
    }
    up = next(listed for listed in found if listed.name.endswith("up.jpg"))
    assert (up.metadata, place.content(up)) == ({"label": "etc"}, b"y")
    assert sorted(tmp_path.parent.iterdir()) == before
    assert len({listed.uri for listed in found}) == 7


def test_what_is_not_opened_in_a_zip_is_told(place: Place) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret.jpg", b"x")
        archive.writestr("inner.zip", b"x")
        archive.writestr("new.jpg", b"x", compress_type=zipfile.ZIP_LZMA)
        archive.writestr("good.jpg", b"y")
    data = bytearray(target.getvalue())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        header = data.rfind(
            magic, 0, data.find(b"secret.jpg", data.find(magic) if magic[2] == 3 else data.find(b"PK\x01\x02"))
        )
        data[header + flags] |= 1

    found = place.list(put(place, bytes(data)))

    assert codes(found) == {
        "link.jpg": "not_regular_file",
        "secret.jpg": "permission_denied",
        "inner.zip": "unsupported_format",
        "new.jpg": "unsupported_format",
        "good.jpg": None,
    }


@EVERY
def test_a_member_that_is_too_large_fails_alone(tmp_path: Path, pack: Callable[[Members], bytes]) -> None:
    place = make_place(tmp_path, limits=replace(LIMITS, file_bytes=1000))
    members = [("a.jpg", b"x" * 1000), ("b.jpg", b"x" * 1001), ("plain", PNG + bytes(2000)), ("c.jpg", b"x")]

    found = place.list(put(place, pack(members)))

    assert [listed.error.code if listed.error else None for listed in found] == [
        None,
        "file_too_large",
        "file_too_large",
        None,
    ]
    assert place.kept() == 2


# --- Damage -----------------------------------------------------------------------------------------------------------


@EVERY
def test_a_cut_off_archive_gives_what_is_before_the_cut_and_says_so(
    place: Place, pack: Callable[[Members], bytes]
) -> None:
    dice = random.Random(1)
    members = [(f"{number}.jpg", dice.randbytes(3000)) for number in range(40)]
    data = pack(members)

    for share in (0.0, 0.001, 0.3, 0.5, 0.77, 0.9):
        found = place.list(put(place, data[: int(len(data) * share)]))
        *good, line = found
        assert line.error is not None
        assert line.error.code == "archive_invalid"
        assert [place.content(listed) for listed in good] == [content for _, content in members[: len(good)]]
        assert len(good) >= int(40 * share) - 6  # gzip hands out what it has in blocks.


def test_a_tar_whose_middle_is_overwritten_does_not_end_silently(place: Place) -> None:
    data = bytearray(tar_of([(f"{number}.jpg", b"x" * 600) for number in range(10)]))
    data[5 * 1536 : 5 * 1536 + 512] = b"\xaa" * 512

    found = place.list(put(place, bytes(data)))

    assert [listed.error and listed.error.code for listed in found] == [*[None] * 5, "archive_invalid"]


def test_one_damaged_member_of_a_zip_is_one_line(place: Place) -> None:
    data = bytearray(zip_of([("a.jpg", b"a" * 50), ("b.jpg", b"b" * 50), ("c.jpg", b"c")], zipfile.ZIP_STORED))
    data[data.index(b"bbb") + 9] ^= 1

    found = place.list(put(place, bytes(data)))

    assert codes(found) == {"a.jpg": None, "b.jpg": "archive_invalid", "c.jpg": None}
    assert place.kept() == 2


def test_a_zip_whose_two_headers_disagree_is_not_believed(place: Place) -> None:
    data = bytearray(zip_of([("a.jpg", b"a"), ("b.jpg", b"b")]))
    data[data.index(b"b.jpg")] = ord("x")

    assert codes(place.list(put(place, bytes(data)))) == {"a.jpg": None, "b.jpg": "archive_invalid"}


def test_what_is_no_archive_is_one_line(place: Place) -> None:
    for data in (
        b"",
        b"<html>",
        b"Rar!\x1a\x07\x00" * 200,
        gzip.compress(b"no tar" * 200),
        b"PK\x03\x04",
        random.Random(2).randbytes(5000),
    ):
        (line,) = place.list(put(place, data, "it.zip"))
        assert (line.name, line.error and line.error.code) == ("it.zip", "archive_invalid")
        assert not place.list(ArchiveSource(path="it.zip"), after=line.cursor)


@given(data=st.data(), kind=st.sampled_from([tar_of, FORMATS["tar.gz"], zip_of, streamed_zip_of]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_makes_anything_but_lines(
    place: Place, data: st.DataObject, kind: Callable[[Members], bytes]
) -> None:
    archive = bytearray(kind([(f"{number}.jpg", bytes(range(200))) for number in range(4)]))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))

    found = place.list(put(place, bytes(archive)))

    for listed in found:
        assert listed.error is not None or listed.uri.startswith("upload:")


# --- Bombs ------------------------------------------------------------------------------------------------------------


def test_a_bomb_is_stopped_by_what_it_unpacks_to(tmp_path: Path) -> None:
    place = make_place(tmp_path, limits=replace(LIMITS, file_bytes=1 << 30))
    zeros = gzip.compress(tar_of([("good.jpg", b"x")])[:1024]) + b"".join(
        gzip.compress(part, 9) for part in (_tar_header("big.bin", 1 << 33), *[bytes(16 << 20)] * 6)
    )

    found = place.list(put(place, zeros))

    assert codes(found) == {"good.jpg": None, "archive.bin": "archive_too_large"}


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_zip_of_overlapping_members_is_stopped_before_it_unpacks(tmp_path: Path) -> None:
    place = make_place(tmp_path, limits=replace(LIMITS, file_bytes=1 << 30))
    kernel = bytes(30 << 20)
    data = bytearray(zip_of([("0.jpg", kernel)]))
    directory = data.index(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry = bytes(data[directory:end])
    many = bytes(data[:directory]) + entry * 100
    data = bytearray(many + bytes(data[end:]))
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HHL", data, end + 8, 100, 100, len(entry) * 100)

    found = place.list(put(place, bytes(data)))

    assert found[-1].error is not None
    assert found[-1].error.code == "archive_too_large"
    assert len(found) == 3  # Two of 30 MiB are not suspicious yet.


@SIMPLE
def test_members_and_bytes_have_limits(tmp_path: Path, pack: Callable[[Members], bytes]) -> None:
    few = make_place(tmp_path, limits=replace(LIMITS, members=3))
    data = pack([(f"{number}.jpg", b"x" * 5000) for number in range(5)])
    found = few.list(put(few, data))
    assert [listed.error and listed.error.code for listed in found] == [None, None, None, "archive_too_large"]

    (tmp_path / "small").mkdir()
    small = make_place(tmp_path / "small", limits=replace(LIMITS, unpacked_bytes=12_500))
    found = small.list(put(small, data))
    assert [listed.error and listed.error.code for listed in found] == [None, None, "archive_too_large"]


def test_headers_that_grow_without_end_take_no_memory(place: Place) -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    pax = tarfile.TarInfo("x")
    pax.type, pax.size = tarfile.XHDTYPE, 0
    for data in (
        long_name.tobuf(tarfile.GNU_FORMAT) + b"n" * (1 << 22),
        pax.tobuf(tarfile.GNU_FORMAT) * 5000,
        gzip.compress(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 26)),
    ):
        source = put(place, tar_of([("a.jpg", b"x")])[:1024] + data if data[:2] != b"\x1f\x8b" else data)
        tracemalloc.start()
        try:
            found = place.list(source)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert found[-1].error is not None
        assert found[-1].error.code == "archive_invalid"
        assert peak < 8 << 20


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_many_members_are_listed_in_flat_memory(place: Place, kind: str) -> None:
    count = 2_000
    path = place.root / "many"
    if kind == "tar":
        header = tarfile.TarInfo
        with path.open("wb") as file:
            for number in range(count):
                info = header(f"{number:06d}.txt" if number % 250 else f"{number:06d}.jpg")
                info.size = 10
                file.write(info.tobuf(tarfile.GNU_FORMAT) + b"0123456789".ljust(512, b"\0"))
            file.write(bytes(1024))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(count):
                name = f"{number:06d}.txt" if number % 250 else f"{number:06d}.jpg"
                archive.writestr(zipfile.ZipInfo(name), b"0123456789")

    tracemalloc.start()
    try:
        found = place.list(ArchiveSource(path="many"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(found) == 8
    assert peak < 2 << 20  # A block of 1 MiB is in it.
    assert place.keeps >= count / 2


# --- Resuming ---------------------------------------------------------------------------------------------------------


@given(
    samples=st.lists(st.tuples(st.sampled_from("ab"), st.permutations(["jpg", "left.png", "json", "txt"])), max_size=6),
    kind=st.sampled_from([tar_of, FORMATS["tar.gz"], zip_of, lambda members: tar_of(members)[:-3000]]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_going_on_behind_any_cursor_yields_exactly_the_rest(
    place: Place, samples: list[tuple[str, list[str]]], kind: Callable[[Members], bytes]
) -> None:
    members = [
        (f"{folder}/{number // 2}.{suffix}", b'{"n": %d}' % number)
        for number, (folder, suffixes) in enumerate(samples)
        for suffix in [*suffixes, "zip"][number % 3 :]
    ]

    assert_resumes_anywhere(place, put(place, kind(members)), label_from_folder=True)


def test_a_sample_without_end_is_cut_and_resumed_all_the_same(place: Place) -> None:
    members = [(f"same.{number:03d}.jpg", b"%d" % number) for number in range(140)]
    source = put(place, zip_of(members))

    whole = place.list(source)

    assert [(listed.name, place.content(listed)) for listed in whole] == members
    for number in (0, 62, 63, 64, 100, 127, 128, 139):
        assert place.list(source, after=whole[number].cursor) == whole[number + 1 :]


def test_a_sparse_file_in_a_tar_is_as_large_as_it_becomes(place: Place) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("holes.jpg")
        info.size = 3
        sparse = {"major": "0", "minor": "1", "name": info.name, "size": str(1 << 40), "numblocks": "1", "map": "0,3"}
        info.pax_headers = {f"GNU.sparse.{name}": value for name, value in sparse.items()}
        tar.addfile(info, io.BytesIO(b"\xff\xd8\xff"))
    (place.root / "sparse.tar").write_bytes(target.getvalue())

    (line,) = place.list(ArchiveSource(path="sparse.tar"))

    assert line.error is not None
    assert line.error.code == "archive_too_large"


def test_a_zip_member_that_lies_further_away_than_any_file_reaches_is_damaged_and_the_others_are_not(
    place: Place,
) -> None:
    good = zip_of([("a.jpg", b"a" * 30), ("b.jpg", b"b" * 30)], zipfile.ZIP_STORED)
    at = good.index(b"PK\x01\x02")
    first = bytearray(good[at : good.index(b"PK\x01\x02", at + 4)])
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    struct.pack_into("<H", first, 30, len(extra))  # The length of its extra fields,
    struct.pack_into("<L", first, 42, 0xFFFFFFFF)  # one of which has the offset.
    directory = bytes(first) + extra + good[at + len(first) : good.index(b"PK\x05\x06")]
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), at, 0)
    (place.root / "far.zip").write_bytes(good[:at] + directory + end)

    listed = place.list(ArchiveSource(path="far.zip"))

    assert codes(listed) == {"a.jpg": "archive_invalid", "b.jpg": None}


def test_the_images_of_a_zip_are_counted_ahead_of_its_listing_by_its_directory(place: Place) -> None:
    members = [
        ("a.jpg", PNG),
        ("b/c.PNG", PNG),
        ("b/c.json", b"{}"),
        (".hidden.jpg", PNG),
        ("b/.d/e.jpg", PNG),
        ("f/", b""),
    ]
    for name, data, expected in (("m.zip", zip_of(members), 2), ("m.tar", tar_of(members[:2]), None)):
        (place.root / name).write_bytes(data)
        assert place.lister.count(IngestRequest(source=ArchiveSource(path=name)), keep=place.keep) == expected
