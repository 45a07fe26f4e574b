import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookalike.errors import FileMissing, InsufficientStorage
from lookalike.fetched import fetched_uri
from lookalike.remote.cache import Cache
from lookalike.remote.politeness import OwnTimetable, take_turn
from lookalike.roots import Roots
from lookalike.sources import Sources
from lookalike.uploads import UploadStore


def write(cache: Cache, uri: str, data: bytes, *, age_s: float = 0) -> Path:
    with cache.writing(uri) as (file, _):
        file.write(data)
    name = fetched_uri(uri).removeprefix("fetched:")
    path = cache.folder / name[:2] / name[2:4] / name
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_copy_is_opened_by_the_decoders_sources_and_its_absence_is_a_missing_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "fetched", max_bytes=100, min_free_bytes=0)
    write(cache, "https://a/b.jpg", b"bytes")
    sources = Sources(Roots([]), UploadStore(tmp_path, min_free_bytes=0, max_file_bytes=100))
    with sources.open(fetched_uri("https://a/b.jpg")) as file:
        assert file.read(max_bytes=100) == b"bytes"
    for uri in (fetched_uri("https://a/c.jpg"), "fetched:../../etc/passwd", "fetched:" + "a" * 32 + "\n"):
        with pytest.raises(FileMissing):
            sources.open(uri)


def test_sources_load_no_network_library() -> None:
    code = "import sys, lookalike.decoder_child; print(sorted({'httpcore2', 'fsspec', 'redis'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"[]\n"


def test_a_copy_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=100, min_free_bytes=0)
    with pytest.raises(RuntimeError), cache.writing("https://a/b") as (file, _):  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert not cache.has("https://a/b")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_longest_unused_copies_go_first_until_the_bound_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=25, min_free_bytes=0)
    old, middle, used, young = (
        write(cache, f"https://a/{age}", b"ten bytes.", age_s=age) for age in (4000, 3000, 5000, 0)
    )
    assert cache.has("https://a/5000")  # which makes it young
    assert cache.prune(dry_run=True).freed_bytes == 20
    assert old.exists()
    pruned = cache.prune()
    assert (pruned.files, pruned.freed_bytes) == (2, 20)
    assert [path.exists() for path in (old, middle, used, young)] == [False, False, True, True]
    assert cache.prune(to_bytes=0).files == 0  # somebody is about to read what is young


def test_a_large_file_in_use_stays_and_an_abandoned_part_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=5, min_free_bytes=0)
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name, age_s in (("in-use", 1800), ("done", 7200), ("going.part", 7200), ("abandoned.part", 100_000)):
        (folder / name).write_bytes(b"ten bytes.")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    cache.prune()
    assert sorted(path.name for path in folder.iterdir()) == ["going.part", "in-use"]


def test_a_full_disk_costs_old_copies_first_and_then_refuses(tmp_path: Path) -> None:
    old = write(Cache(tmp_path, max_bytes=100, min_free_bytes=0), "https://a/b", b"x", age_s=4000)
    cache = Cache(tmp_path, max_bytes=100, min_free_bytes=1 << 60)
    with pytest.raises(InsufficientStorage), cache.writing("https://a/c"):
        pass
    assert not old.exists()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def test_requests_to_one_host_begin_an_interval_apart_and_other_hosts_do_not_wait() -> None:
    clock = Clock()
    timetable = OwnTimetable(0.5, clock=clock)
    begun = []
    for _ in range(3):
        take_turn(timetable, "a.test", clock.wait)
        begun.append(clock.now_s)
    assert begun == [100.0, 100.5, 101.0]
    take_turn(timetable, "b.test", clock.wait)
    assert clock.now_s == 101.0


def test_a_host_that_asks_for_a_pause_gets_it_from_those_that_already_wait_as_well() -> None:
    clock = Clock()
    timetable = OwnTimetable(0.5, clock=clock)
    take_turn(timetable, "a.test", clock.wait)

    def wait(seconds: float) -> None:
        if clock.now_s == 100.0:
            timetable.hold("a.test", 10.0)
        clock.wait(seconds)

    take_turn(timetable, "a.test", wait)
    assert clock.now_s >= 110.0
