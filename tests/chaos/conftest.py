"""The stacks of the chaos suite: one as `lookalike up` runs it, one in parts. All its tests are marked `chaos`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from parts import SETTINGS, Parts
from stack import Stack

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Stack]:
    """A stack that is up, with two ingest workers."""
    # A writer that dies with Redis leaves its lock for as long as a write to Milvus may take, and five seconds.
    small = {"LOOKALIKE_MODEL": SETTINGS["model"], "LOOKALIKE_MILVUS_TIMEOUT_S": "6"}
    stack = Stack(tmp_path_factory.mktemp("chaos"), models, options=("--ingest-workers", "2"), env=small)
    try:
        stack.up()
        yield stack
    finally:
        stack.end()


@pytest.fixture(scope="session")
def started_parts(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Parts]:
    """The service in parts, without workers."""
    with Parts(tmp_path_factory.mktemp("parts").resolve(), models) as parts:
        yield parts


@pytest.fixture
def parts(started_parts: Parts) -> Parts:
    """The service in parts, all of them whole, with two ingest workers."""
    started_parts.mend()
    started_parts.mend_workers()
    return started_parts


@pytest.fixture
def unmanned_parts(started_parts: Parts) -> Parts:
    """The service in parts, all of them whole, without an ingest worker."""
    started_parts.mend()
    started_parts.end_workers()
    return started_parts
