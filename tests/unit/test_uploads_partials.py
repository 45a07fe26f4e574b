"""Uploads in pieces end with the right content or a conflict, whoever dies, hangs or comes late."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import (
    InsufficientStorage,
    InvalidRequest,
    PayloadTooLarge,
    UploadConflict,
    UploadMismatch,
    UploadNotFound,
)
from lookalike.records import UploadRecord, UploadRequest
from lookalike.uploads import UploadStore, digests, upload_uri
from lookalike.uploads.partials import Partials

CONTENT = random.Random(1).randbytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
MAX_BYTES = 1 << 30


def make(folder: Path, **limits: int) -> tuple[UploadStore, Partials]:
    """What one front-end process has."""
    store = UploadStore(folder, **{"min_free_bytes": 0, "max_file_bytes": 1000} | limits)
    return store, Partials(store, max_bytes=MAX_BYTES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def store(folder: Path) -> UploadStore:
    return make(folder)[0]


@pytest.fixture
def partials(folder: Path) -> Partials:
    return make(folder)[1]


def begin(partials: Partials, content: bytes = CONTENT, **fields: object) -> UploadRecord:
    return partials.begin(UploadRequest.model_validate({"size": len(content), "name": "a.zip"} | fields))


def content_of(store: UploadStore, record: UploadRecord) -> bytes:
    assert record.sha256 is not None
    with store.open(upload_uri(record.sha256)) as file:
        return file.read(max_bytes=MAX_BYTES)


def unfinished(store: UploadStore) -> list[str]:
    return [path.suffix for path in store.unfinished_folder.glob("*")]


def test_pieces_of_any_size_through_several_processes_make_the_file(store: UploadStore, folder: Path) -> None:
    processes = [make(folder)[1] for _ in range(3)]
    record = begin(processes[0])
    assert (record.offset, record.sha256, record.name) == (0, None, "a.zip")
    for number, end in enumerate((1, 700_000, 700_001, 2_900_000, len(CONTENT))):
        piece = io.BytesIO(CONTENT[record.offset : end])
        record = processes[number % 3].append(record.id, record.offset, piece)
        assert record.offset == end
        assert processes[1].get(record.id) == record

    assert record.sha256 == SHA
    assert content_of(store, record) == CONTENT
    assert unfinished(store) == [".json"]


def test_a_file_that_is_here_already_is_not_sent_again(store: UploadStore, partials: Partials) -> None:
    record = begin(partials)
    partials.append(record.id, 0, io.BytesIO(CONTENT))

    again = begin(partials, sha256=SHA, name="other name")

    assert (again.offset, again.sha256, again.name) == (len(CONTENT), SHA, "other name")
    assert partials.get(again.id).sha256 == SHA
    partials.discard(again.id)
    assert store.has(SHA)
    # Who announces another size does not mean this file.
    assert begin(partials, CONTENT[1:], sha256=SHA).offset == 0


def test_whoever_announces_the_same_hash_goes_on_with_what_is_there(folder: Path, partials: Partials) -> None:
    one, other = (make(folder, quota_bytes=4_000_000)[1] for _ in range(2))
    record = begin(one, sha256=SHA)
    one.append(record.id, 0, io.BytesIO(CONTENT[:2_000_000]))

    again = begin(other, sha256=SHA)  # No more than what is missing has to fit.

    assert (again.id, again.offset) == (record.id, 2_000_000)
    assert other.append(again.id, 2_000_000, io.BytesIO(CONTENT[2_000_000:])).sha256 == SHA
    # Without a hash, and with another size, it is another file.
    others = [begin(partials), begin(partials), begin(partials, CONTENT[1:], sha256=SHA)]
    assert len({record.id, *(other.id for other in others)}) == 4


def test_a_second_try_after_a_mismatch_is_not_spoiled_by_what_processes_hashed_of_the_first(folder: Path) -> None:
    one, other = (make(folder)[1] for _ in range(2))
    half = len(CONTENT) // 2
    record = begin(one, sha256=SHA)
    other.append(record.id, 0, io.BytesIO(bytes(half)))
    with pytest.raises(UploadMismatch):
        one.append(record.id, half, io.BytesIO(bytes(half)))

    again = begin(one, sha256=SHA)
    one.append(again.id, 0, io.BytesIO(CONTENT[:half]))

    assert other.append(again.id, half, io.BytesIO(CONTENT[half:])).sha256 == SHA


def test_a_file_that_was_removed_since_it_was_complete_is_taken_and_checked_anew(
    store: UploadStore, partials: Partials
) -> None:
    record = begin(partials, sha256=SHA)
    partials.append(record.id, 0, io.BytesIO(CONTENT))
    store.remove(SHA, older_than=time.time() + 60)

    again = begin(partials, sha256=SHA)

    assert (again.id, again.offset, again.sha256) == (record.id, 0, None)
    with pytest.raises(UploadMismatch):
        partials.append(again.id, 0, io.BytesIO(bytes(len(CONTENT))))
    assert not store.has(SHA)


def test_a_piece_at_another_place_than_the_end_is_a_conflict_that_says_where_the_end_is(partials: Partials) -> None:
    record = begin(partials)
    partials.append(record.id, 0, io.BytesIO(CONTENT[:1000]))

    for offset in (0, 999, 1001, len(CONTENT)):
        with pytest.raises(UploadConflict) as conflict:
            partials.append(record.id, offset, io.BytesIO(b"late"))
        assert conflict.value.offset == 1000
    assert partials.append(record.id, 1000, io.BytesIO(CONTENT[1000:])).sha256 == SHA
    with pytest.raises(UploadConflict) as conflict:
        partials.append(record.id, 1000, io.BytesIO(b"late"))
    assert conflict.value.offset == len(CONTENT)


def test_who_did_not_hear_that_the_upload_is_complete_may_ask_in_any_way(partials: Partials) -> None:
    record = begin(partials)
    complete = partials.append(record.id, 0, io.BytesIO(CONTENT))

    assert partials.get(record.id) == complete
    assert partials.append(record.id, len(CONTENT), io.BytesIO()) == complete


def test_more_bytes_than_announced_are_refused_and_do_not_complete_the_file(partials: Partials) -> None:
    record = begin(partials, CONTENT[:1000])
    with pytest.raises(InvalidRequest):
        partials.append(record.id, 0, io.BytesIO(CONTENT[:1001]))

    assert partials.get(record.id).offset < 1000


def test_a_file_with_another_hash_than_announced_is_dropped(store: UploadStore, partials: Partials) -> None:
    record = begin(partials, sha256="0" * 64)
    with pytest.raises(UploadMismatch):
        partials.append(record.id, 0, io.BytesIO(CONTENT))

    with pytest.raises(UploadNotFound):
        partials.get(record.id)
    assert not store.has(SHA)
    assert unfinished(store) == []


def test_an_empty_file_is_complete_when_it_is_announced(store: UploadStore, partials: Partials) -> None:
    record = begin(partials, b"")

    assert record.sha256 == hashlib.sha256().hexdigest()
    assert store.size(record.sha256) == 0


def test_a_file_beyond_the_limit_is_refused_before_a_byte_is_sent(store: UploadStore, partials: Partials) -> None:
    with pytest.raises(PayloadTooLarge):
        partials.begin(UploadRequest(size=MAX_BYTES + 1))

    assert unfinished(store) == []


@pytest.mark.parametrize("upload_id", ["0" * 32, "0" * 64, "../" + "0" * 29, "", "0" * 32 + "\n", "A" * 32])
def test_an_id_that_nobody_was_given_is_not_found(partials: Partials, upload_id: str) -> None:
    begin(partials)
    calls: tuple[Callable[[], object], ...] = (
        lambda: partials.get(upload_id),
        lambda: partials.append(upload_id, 0, io.BytesIO(b"x")),
    )
    for call in calls:
        with pytest.raises(UploadNotFound):
            call()
    if len(upload_id) != 64:
        with pytest.raises(UploadNotFound):
            partials.discard(upload_id)


def test_a_discarded_upload_is_gone_and_its_late_sender_is_told(store: UploadStore, partials: Partials) -> None:
    record = begin(partials)

    class Discarding(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000_000 and unfinished(store):
                partials.discard(record.id)
            return super().read(size)

    store.recount()
    with pytest.raises(UploadNotFound):
        partials.append(record.id, 0, Discarding(CONTENT))
    assert unfinished(store) == []
    assert store.used_bytes() < 1000


def test_what_arrived_before_a_broken_connection_counts(partials: Partials) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 1_000_000:
                raise ConnectionResetError
            return super().read(size)

    record = begin(partials, sha256=SHA)
    with pytest.raises(ConnectionResetError):
        partials.append(record.id, 0, Breaking(CONTENT))

    offset = partials.get(record.id).offset
    assert offset >= 1_000_000
    assert partials.append(record.id, offset, io.BytesIO(CONTENT[offset:])).sha256 == SHA


@pytest.mark.parametrize("end", [2_000_000, len(CONTENT)])
def test_a_connection_that_hangs_neither_keeps_its_sender_from_going_on_nor_spoils_what_comes_after(
    folder: Path, store: UploadStore, partials: Partials, end: int
) -> None:
    record = begin(partials)
    hangs, go_on = threading.Event(), threading.Event()
    late: list[UploadConflict] = []

    class Hanging(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 1 << 20:
                hangs.set()
                go_on.wait(60)
            return super().read(size)

    def append() -> None:
        try:
            partials.append(record.id, 0, Hanging(CONTENT[: 1 << 20] + bytes(2_000_000)))
        except UploadConflict as error:
            late.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    assert hangs.wait(60)
    other = make(folder)[1]
    offset = other.get(record.id).offset

    assert other.append(record.id, offset, io.BytesIO(CONTENT[offset:end])).offset == end

    go_on.set()
    thread.join(60)
    (conflict,) = late
    assert conflict.offset == end
    record = other.append(record.id, end, io.BytesIO(CONTENT[end:]))
    assert content_of(store, record) == CONTENT


# A front-end process of its own that appends to an upload from a stream; `pace` seconds pass between its reads.
APPEND = """
import sys, time
from pathlib import Path
from lookalike.errors import UploadConflict
from lookalike.uploads import UploadStore
from lookalike.uploads.partials import Partials

folder, upload_id, offset, content, pace = sys.argv[1:]

class Paced:
    def __init__(self, file):
        self.file = file
        self.waits = True
    def read(self, size):
        if self.waits:  # It has looked where the upload stands.
            self.waits = False
            print("ready", flush=True)
            sys.stdin.readline()
        time.sleep(float(pace))
        return self.file.read(min(size, 65536))

partials = Partials(UploadStore(Path(folder), min_free_bytes=0, max_file_bytes=1), max_bytes=1 << 40)
with open(content, "rb") as file:
    file.seek(int(offset))
    try:
        print(partials.append(upload_id, int(offset), Paced(file)).sha256)
    except UploadConflict as conflict:
        print("conflict", conflict.offset)
"""


def appending(folder: Path, record: UploadRecord, content: Path, *, pace: float) -> subprocess.Popen[str]:
    """Start one; it waits before its first byte."""
    arguments = [str(folder), record.id, str(record.offset), str(content), str(pace)]
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_that_append_at_once_one_wins_whole_and_the_other_is_told(
    folder: Path, tmp_path: Path, store: UploadStore, partials: Partials
) -> None:
    contents = [tmp_path / "one", tmp_path / "other"]
    for number, content in enumerate(contents):
        content.write_bytes(bytes([number]) * len(CONTENT))
    record = begin(partials)

    both = [appending(folder, record, content, pace=0.001) for content in contents]
    for process in both:
        let_go(process)
    said = [process.communicate(timeout=60)[0].split()[0] for process in both]

    assert said.count("conflict") == 1
    won = contents[1 - said.index("conflict")].read_bytes()
    assert hashlib.sha256(won).hexdigest() in said
    assert content_of(store, partials.get(record.id)) == won


def test_a_process_killed_in_the_middle_costs_nothing_that_arrived(
    folder: Path, tmp_path: Path, store: UploadStore, partials: Partials
) -> None:
    content = tmp_path / "content"
    content.write_bytes(CONTENT)
    record = begin(partials, sha256=SHA)
    while record.offset < 2_000_000:
        process = appending(folder, record, content, pace=0.01)
        let_go(process)
        seen = record.offset
        deadline = time.monotonic() + 30
        while (seen := partials.get(record.id).offset) < record.offset + 500_000:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        record = partials.get(record.id)
        assert record.offset >= seen

    record = partials.append(record.id, record.offset, io.BytesIO(CONTENT[record.offset :]))

    assert content_of(store, record) == CONTENT
    assert store.recount() - len(CONTENT) < 1000  # What is left besides is a note.


@pytest.mark.parametrize("cut", ["_write_note", "adopt"])
def test_a_process_that_dies_while_it_completes_an_upload_is_stood_in_for_by_the_next(
    folder: Path, store: UploadStore, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    dying = make(folder)[1]
    record = begin(dying, sha256=SHA)

    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Partials if cut == "_write_note" else UploadStore, cut, die)
        with pytest.raises(Died):
            dying.append(record.id, 0, io.BytesIO(CONTENT))
    assert not store.has(SHA)
    (data,) = store.unfinished_folder.glob("*.data")
    os.utime(data, (1, 1))

    record = make(folder)[1].get(record.id)

    assert content_of(store, record) == CONTENT
    assert store.recount() - len(CONTENT) < 1000
    assert store.remove(SHA, older_than=time.time() - 60) is None  # It is as young as its last word.


def test_the_last_request_hashes_no_more_than_its_process_has_not_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_QUICK_BYTES", 1000)
    read = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = pread(fd, size, offset)
        read.append(len(data))
        return data

    processes = [make(folder)[1] for _ in range(2)]
    record = begin(processes[0])
    for number in range(3):
        record = processes[number % 2].append(record.id, record.offset, io.BytesIO(bytes(1000)))
    monkeypatch.setattr(digests.os, "pread", counted)

    record = processes[0].append(record.id, record.offset, io.BytesIO(CONTENT[record.offset :]))

    assert sum(read) == 0
    assert record.sha256 == hashlib.sha256(bytes(3000) + CONTENT[3000:]).hexdigest()


def test_the_quota_counts_what_has_arrived_of_unfinished_uploads(folder: Path) -> None:
    store, partials = make(folder, quota_bytes=5_000_000)
    first, second = begin(partials), begin(partials, CONTENT[1:])
    partials.append(first.id, 0, io.BytesIO(CONTENT[:2_500_000]))
    assert store.used_bytes() == pytest.approx(2_500_000, abs=1000)

    with pytest.raises(InsufficientStorage, match="QUOTA"):
        begin(partials, CONTENT[2:])
    partials.discard(second.id)
    partials.append(first.id, 2_500_000, io.BytesIO(CONTENT[2_500_000:]))

    assert store.used_bytes() == pytest.approx(len(CONTENT), abs=1000)


def test_an_upload_that_would_pass_the_free_disk_floor_is_refused_at_once(folder: Path) -> None:
    _, partials = make(folder, min_free_bytes=1 << 60)

    with pytest.raises(InsufficientStorage):
        begin(partials)


def test_only_uploads_that_nobody_went_on_with_expire(store: UploadStore, partials: Partials) -> None:
    complete, old, young = begin(partials), begin(partials, name="old"), begin(partials, name="young")
    partials.append(complete.id, 0, io.BytesIO(CONTENT))
    for record in (old, young):
        partials.append(record.id, 0, io.BytesIO(CONTENT[:1000]))
    (store.unfinished_folder / "dead.part").write_bytes(b"half")
    for path in store.unfinished_folder.iterdir():
        if path.name != young.id + ".data":
            os.utime(path, (1, 1))

    for dry_run in (True, False):
        assert partials.expire(older_than=time.time() - 60, dry_run=dry_run) == (2, 1004)

    assert partials.expire(older_than=time.time() - 60) == (0, 0)
    for record in (complete, old):
        with pytest.raises(UploadNotFound):
            partials.get(record.id)
    assert partials.append(young.id, 1000, io.BytesIO(CONTENT[1000:])).sha256 == SHA
    assert store.has(SHA)


SMALL = random.Random(2).randbytes(400)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200), st.integers(0, 1)), max_size=25),
    announced=st.booleans(),
)
def test_any_pieces_end_with_the_right_content_or_a_conflict(
    pieces: list[tuple[int, int, int]], announced: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, _ = make(Path(folder))
        processes = [make(Path(folder))[1] for _ in range(2)]
        record = begin(processes[0], SMALL, sha256=hashlib.sha256(SMALL).hexdigest() if announced else None)
        arrived = 0
        # Repeated, overlapping, early and late pieces of the file, and then one that fits.
        for offset, length, number in [*pieces, (None, len(SMALL), 0)]:
            start = arrived if offset is None or length % 2 else offset
            piece = io.BytesIO(SMALL[start : start + length])
            if start == arrived:
                record = processes[number].append(record.id, start, piece)
                arrived += piece.tell()
            else:
                with pytest.raises(UploadConflict) as conflict:
                    processes[number].append(record.id, start, piece)
                assert conflict.value.offset == arrived
            assert processes[1 - number].get(record.id).offset == arrived
        assert content_of(store, record) == SMALL
