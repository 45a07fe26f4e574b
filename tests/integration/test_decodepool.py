"""The decode pool with real child processes: what a hostile file costs, and that nobody is left behind."""

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from bad_files import BAD_FILES, hungry_png
from lookalike.decode import Limits, cut, decode, decode_reduced, preprocess
from lookalike.decodepool import DecodePool
from lookalike.errors import DecodeOutOfMemory, DecoderCrashed, DecodeTimeout, ImageError, SetupError
from lookalike.roots import file_uri
from lookalike.settings import Decoding, Settings
from lookalike.uploads import UploadStore, query_uri, upload_uri

LIMITS = Limits(max_pixels=1 << 20, min_side_px=2)
MOODY = (sys.executable, str(Path(__file__).with_name("moody_decoder.py")))


def jpeg(seed: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "root"
    root.mkdir()
    return root


@pytest.fixture
def config(tmp_path: Path, root: Path) -> Settings:
    return Settings(
        roots=(root,), data_dir=tmp_path / "data", decode_timeout_s=1.0, max_file_bytes=1 << 20, min_free_bytes=0
    )


@pytest.fixture
def pool(config: Settings) -> Iterator[DecodePool]:
    with DecodePool(config, processes=2, command=MOODY) as pool:
        yield pool
    assert not children()


@pytest.fixture
def put(root: Path) -> Callable[[str, bytes], str]:
    def put(name: str, content: bytes) -> str:
        (root / name).write_bytes(content)
        return file_uri(root / name)

    return put


Put = Callable[[str, bytes], str]


def children() -> list[psutil.Process]:
    # Other children of the test process, such as servers, are not meant.
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess):
            if "decoder" in " ".join(child.cmdline()):
                found.append(child)
    return found


# --- What comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (Decoding.FAST, lambda content: np.asarray(cut(decode_reduced(content, LIMITS)))),
        (Decoding.EXACT, lambda content: preprocess(decode(content, LIMITS))),
    ],
)
def test_an_image_comes_back_as_the_network_takes_it_with_the_facts_of_its_file(
    config: Settings, put: Put, root: Path, way: Decoding, expected: Callable[[bytes], NDArray[np.uint8]]
) -> None:
    content = jpeg(size=(1000, 800))
    uri = put("a.jpg", content)

    with DecodePool(config.model_copy(update={"decode": way}), processes=1) as pool:
        decoded = pool.decode(uri).result()

    assert (decoded.uri, decoded.width, decoded.height) == (uri, 1000, 800)
    assert (decoded.sha256, decoded.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert decoded.mtime_ns == (root / "a.jpg").stat().st_mtime_ns
    assert (decoded.pixels == expected(content)).all()
    assert decoded.decode_ms > decoded.resize_ms > 0


def test_each_result_is_its_own_however_many_threads_ask(pool: DecodePool, put: Put) -> None:
    contents = [jpeg(seed) for seed in range(12)]
    uris = [put(f"{seed}.jpg", content) for seed, content in enumerate(contents)]
    expected = [np.asarray(cut(decode_reduced(content, LIMITS))) for content in contents]

    with ThreadPoolExecutor(32) as threads:
        asked = list(threads.map(lambda number: (number, pool.decode(uris[number % 12]).result()), range(240)))

    assert all((decoded.pixels == expected[number % 12]).all() for number, decoded in asked)
    assert len(children()) == 2


def test_a_probe_tells_what_the_header_says(pool: DecodePool, put: Put) -> None:
    content = jpeg()
    probe = pool.probe(put("a.png", content)).result()

    assert (probe.format, probe.width, probe.height, probe.size) == ("JPEG", 320, 240, len(content))
    assert probe.sha256 == hashlib.sha256(content).hexdigest()


def test_a_thumbnail_is_as_large_as_the_settings_say_unless_told(pool: DecodePool, put: Put, config: Settings) -> None:
    uri = put("a.jpg", jpeg(size=(1600, 800)))

    for asked, expected in ((None, config.thumbnail_px), (64, 64)):
        with Image.open(io.BytesIO(pool.thumbnail(uri, longer_side_px=asked).result())) as image:
            assert (image.format, image.size) == ("WEBP", (expected, expected // 2))


def test_uploads_are_decoded_by_their_uris(pool: DecodePool, config: Settings) -> None:
    store = UploadStore(config.uploads_dir, min_free_bytes=0, max_file_bytes=1 << 20)
    sha256 = store.put(io.BytesIO(jpeg()))
    store.put(io.BytesIO(jpeg()), area="queries")

    assert pool.decode(upload_uri(sha256)).result().sha256 == sha256
    assert pool.decode(query_uri(sha256)).result().sha256 == sha256


# --- What a bad file costs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_has_its_code_and_the_pool_goes_on(pool: DecodePool, put: Put, name: str) -> None:
    make, code = BAD_FILES[name]

    with pytest.raises(ImageError) as raised:
        pool.decode(put(name, make())).result()

    assert raised.value.code == code
    assert str(raised.value)
    assert pool.decode(put("good.jpg", jpeg())).result().width == 320


def test_what_cannot_be_read_has_its_code(pool: DecodePool, put: Put, root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    cases = {
        file_uri(root / "missing.jpg"): "file_missing",
        file_uri(root / "pipe.jpg"): "not_regular_file",
        file_uri(root.parent / "outside.jpg"): "permission_denied",
        put("large.jpg", bytes((1 << 20) + 1)): "file_too_large",
        put("empty.jpg", b""): "file_empty",
        upload_uri("0" * 64): "file_missing",
    }

    for uri, code in cases.items():
        for future in (pool.decode(uri), pool.probe(uri), pool.thumbnail(uri)):
            with pytest.raises(ImageError) as raised:
                future.result()
            assert raised.value.code == code


@pytest.mark.parametrize(
    ("name", "error"), [("abort.jpg", DecoderCrashed), ("hang.jpg", DecodeTimeout), ("bug.jpg", DecoderCrashed)]
)
def test_a_file_that_breaks_the_decoder_costs_itself_only(
    pool: DecodePool, put: Put, name: str, error: type[ImageError]
) -> None:
    uris = [put(f"{number}.jpg", jpeg(number)) for number in range(30)]
    uris.insert(7, put(name, jpeg()))

    futures = [pool.decode(uri) for uri in uris]

    for number, future in enumerate(futures):
        if number == 7:
            assert isinstance(future.exception(), error)
        else:
            assert future.result().uri == uris[number]
    assert len(children()) <= 2


def test_the_time_limit_is_of_one_image_and_not_of_the_queue(pool: DecodePool, put: Put) -> None:
    hanging = [put(f"hang{number}.jpg", jpeg()) for number in range(3)]
    good = put("good.jpg", jpeg())

    futures = [pool.decode(uri) for uri in [*hanging, good]]

    assert [type(future.exception()) for future in futures] == [DecodeTimeout] * 3 + [type(None)]


def large_webp(side: int) -> bytes:
    """Make a lossless WebP of one colour, whose pixels take no bits: encoding one of this size takes seconds."""
    size = (side - 1) | (side - 1) << 14
    content = b"\x2f" + struct.pack("<I", size) + bytes.fromhex("07100a0104404113fd8f1111fd0f")
    return b"RIFF" + struct.pack("<I", 32) + b"WEBPVP8L" + struct.pack("<I", len(content)) + content + b"\0"


@pytest.mark.parametrize(("name", "make"), [("large.png", hungry_png), ("large.webp", large_webp)])
def test_an_image_that_needs_too_much_memory_is_told_from_a_broken_one(
    config: Settings, put: Put, name: str, make: Callable[[int], bytes]
) -> None:
    large, good = put(name, make(12_000)), put("good.jpg", jpeg())
    scarce = config.model_copy(update={"decode_memory_bytes": 400 << 20, "decode_timeout_s": 30.0})

    with DecodePool(config, processes=1) as pool:
        assert pool.probe(large).result().width == 12_000
    with DecodePool(scarce, processes=1) as pool:
        first = pool.decode(good).result()
        (before,) = children()
        assert isinstance(pool.decode(large).exception(), DecodeOutOfMemory)
        assert (pool.decode(good).result().pixels == first.pixels).all()
        assert children() == [before]


# --- Processes ------------------------------------------------------------------------------------------------------


def test_no_process_is_started_before_it_is_needed_nor_more_than_that(config: Settings, put: Put) -> None:
    with DecodePool(config, processes=4) as pool:
        assert not children()
        for _ in range(5):
            pool.decode(put("a.jpg", jpeg())).result()
        assert len(children()) == 1
    assert not children()


def test_a_decoder_that_died_while_idle_costs_nothing(pool: DecodePool, put: Put) -> None:
    uri = put("a.jpg", jpeg())
    pool.decode(uri).result()
    (child,) = children()
    child.kill()
    child.wait(60)

    assert pool.decode(uri).result().width == 320


def test_ctrl_c_in_the_terminal_does_not_reach_the_decoders(pool: DecodePool, put: Put) -> None:
    uri = put("a.jpg", jpeg())
    pool.decode(uri).result()
    (child,) = children()
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.send_signal(signal_number)

    assert pool.decode(uri).result().width == 320
    assert children() == [child]


def test_a_decoder_that_cannot_be_started_is_nobodys_images_fault(config: Settings, put: Put) -> None:
    uri = put("a.jpg", jpeg())
    for command in ((sys.executable, "-c", "raise SystemExit(3)"), ("/no/such/program",)):
        with DecodePool(config, processes=1, command=command) as pool:
            assert isinstance(pool.decode(uri).exception(), SetupError)


PARENT = """
import sys
from pathlib import Path
import psutil
from lookalike.decodepool import DecodePool
from lookalike.settings import Settings

root, moody, good, last = sys.argv[1:]
settings = Settings(roots=(Path(root),), data_dir=Path(root), decode_timeout_s=2.0)
pool = DecodePool(settings, processes=2, command=(sys.executable, moody))
for future in [pool.decode(good) for _ in range(20)]:
    future.result()
pool.decode(last)
print(*(child.pid for child in psutil.Process().children()), flush=True)
sys.stdin.read()
"""


def wait_until_gone(pids: list[int], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a decoder outlived its parent"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# An idle child sees its parent's end close. One that hangs in an image does not look: its own alarm ends it, 5 s late.
@pytest.mark.parametrize(("last", "timeout_s"), [("a.jpg", 60.0), ("hang.jpg", 60.0)])
def test_decoders_end_with_a_parent_that_is_killed(put: Put, root: Path, last: str, timeout_s: float) -> None:
    good, last_uri = put("a.jpg", jpeg()), put(last, jpeg())
    command = [sys.executable, "-c", PARENT, str(root), MOODY[1], good, last_uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
        parent.wait()
        wait_until_gone(pids, timeout_s)


def test_the_child_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'torchvision', 'pymilvus', 'celery', 'redis', 'pydantic', 'flask', 'numpy', 'scipy'}"
    code = f"import sys, lookalike.decoder_child; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
