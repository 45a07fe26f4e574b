"""What is kept of a network is there in whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lookalike.records import ModelInfo
from lookalike_worker.model_cache import ModelCache

INFO = ModelInfo(name="resnet50", weights="seeded.pth", trained=True, fingerprint="ab" * 32, dim=2048)


def test_a_record_is_found_by_its_identity_only(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    cache.keep_info("resnet50 seeded.pth 1", INFO)

    assert ModelCache(tmp_path).info("resnet50 seeded.pth 1") == INFO
    assert cache.info("resnet50 seeded.pth 2") is None


def test_a_record_of_another_version_is_not_used(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    cache.keep_info("identity", INFO)
    (record,) = tmp_path.rglob("*.json")
    record.write_text('{"name": "resnet50"}')

    assert cache.info("identity") is None


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)

    def fail(file: Path) -> None:
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.keep_converted(INFO.fingerprint, fail)

    assert cache.converted(INFO.fingerprint) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_two_that_save_at_once_leave_one_whole_network(tmp_path: Path) -> None:
    both = Barrier(2)

    def keep(writer: str) -> Path:
        def save(file: Path) -> None:
            file.write_text(writer)
            both.wait(10)  # Both have written before either renames.
            file.with_suffix(".bin").write_text(writer)

        return ModelCache(tmp_path).keep_converted(INFO.fingerprint, save)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(keep, ("one", "two"))

    assert first == second == ModelCache(tmp_path).converted(INFO.fingerprint)
    assert first.read_text() == first.with_suffix(".bin").read_text()
    assert {path.name for path in first.parent.parent.iterdir()} == {INFO.fingerprint}
