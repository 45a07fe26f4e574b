"""Fuzzing: ten thousand broken images through the real decoders, each answered with pixels or with a code."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import pytest

from lookalike.decodepool import Decoded, DecodePool
from lookalike.errors import ImageError
from lookalike.roots import file_uri
from lookalike.settings import Settings
from mutants import Mutant, mutant
from odd_files import ODD_FILES

COUNT: Final = 10_000
SEED: Final = int(os.environ.get("SEED", "20261123"))
PROCESSES: Final = 2
TIME_LIMIT_S: Final = 5.0
TOGETHER: Final = 500  #: Asked for at a time, with every accepted form unbroken among them.

#: The codes that the content of a file can have.
CODES: Final = {
    "file_empty",
    "unsupported_format",
    "image_corrupt",
    "image_truncated",
    "image_too_large",
    "image_too_small",
    "decoder_crashed",
    "decode_timeout",
    "decode_oom",
}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[DecodePool]:
    settings = Settings(
        roots=(tmp_path,),
        data_dir=tmp_path / "data",
        decode_timeout_s=TIME_LIMIT_S,
        max_pixels=1 << 22,  # A header may claim this much: of interest is what is made of it, not how long it takes.
        decode_memory_bytes=512 << 20,
    )
    with DecodePool(settings, processes=PROCESSES) as pool:
        yield pool


@pytest.fixture
def unbroken(pool: DecodePool, tmp_path: Path) -> dict[str, Decoded]:
    """Every accepted form, as it decodes when nothing else is around, by its URI."""
    decoded = {}
    for name, make in ODD_FILES.items():
        path = tmp_path / name
        path.write_bytes(make())
        decoded[file_uri(path)] = pool.decode(file_uri(path)).result()
    return decoded


def test_a_broken_image_gives_pixels_or_a_code_and_harms_no_other(
    pool: DecodePool, unbroken: dict[str, Decoded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    slowest = 0.0
    for begin in range(0, COUNT, TOGETHER):
        mutants = [mutant(SEED, number) for number in range(begin, begin + TOGETHER)]
        began = time.monotonic()
        futures = [pool.decode(_written(tmp_path, one)) for one in mutants]
        controls = [pool.decode(uri) for uri in unbroken]
        counts.update(_answer(one, future) for one, future in zip(mutants, futures, strict=True))
        slowest = max(slowest, time.monotonic() - began)
        for control in controls:
            expected = unbroken[control.result().uri]
            assert np.array_equal(control.result().pixels, expected.pixels), f"seed {SEED}, near {begin}"
        for one in mutants:
            (tmp_path / f"{one.number}.img").unlink()
        assert len(_decoders()) <= PROCESSES
    with capsys.disabled():
        sys.stdout.write(f"\nfuzzing, SEED={SEED}: {dict(counts.most_common())}; slowest {TOGETHER}: {slowest:.1f} s\n")
    assert counts.total() == COUNT
    assert set(counts) <= CODES | {"decoded"}, f"seed {SEED}"
    # Mutations that break nothing, or break everything at the door, would show nothing.
    assert COUNT // 20 < counts["decoded"] < COUNT // 2
    assert min(counts["image_corrupt"], counts["image_truncated"]) > COUNT // 50


def _written(folder: Path, one: Mutant) -> str:
    path = folder / f"{one.number}.img"
    path.write_bytes(one.content)
    return file_uri(path)


def _answer(one: Mutant, future: Future[Decoded]) -> str:
    # Those before it in the queue are answered by now, so this one has its own time and that of its neighbour.
    error = future.exception(timeout=60)
    if error is None:
        assert future.result().pixels.shape == (224, 224, 3)
        return "decoded"
    assert isinstance(error, ImageError), f"seed {SEED}, mutant {one.number} ({one.name}): {error!r}"
    return error.code


def _decoders() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        # One that a test before this left behind has no command line any more.
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if "lookalike.decoder_child" in child.cmdline():
                found.append(child)
    return found
