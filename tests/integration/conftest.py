"""Fixtures for tests of a worker's lanes: real job store, vector store and decoders, and a small network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lookalike.records import ModelInfo
from lookalike.settings import Settings
from lookalike_worker.context import Context
from object_store import s3, s3_server

__all__ = ["s3", "s3_server"]  # Fixtures, too.


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """The one folder that the worker may read."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def worker_settings(redis_url: str, milvus_uri: str, image_root: Path, tmp_path: Path) -> Settings:
    """Settings with short limits."""
    return Settings(
        redis_url=redis_url,
        milvus_uri=milvus_uri,
        data_dir=tmp_path / "data",
        roots=(image_root,),
        collection="lanes",
        lease_s=2,
        search_lease_s=2,
        decode_timeout_s=1.0,
        decode_processes=1,
        chunk_images=8,
    )


MakeWorker = Callable[..., Context]


@pytest.fixture
def make_worker(worker_settings: Settings) -> Iterator[MakeWorker]:
    """Make workers' parts, with settings changed by keyword."""
    from ingest_parts import MODEL, MOODY, make_context

    made: list[Context] = []

    def make(*, decoder: tuple[str, ...] = MOODY, model: ModelInfo = MODEL, **changes: object) -> Context:
        context = make_context(worker_settings.model_copy(update=changes), decoder, model)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
        context.jobs.close()  # type: ignore[attr-defined]


@pytest.fixture
def keen_keepers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have claims looked after at every chance: once a second is longer than these chunks take."""
    from lookalike_worker import keeping

    monkeypatch.setattr(keeping, "KEEP_EVERY_S", 0.0)
