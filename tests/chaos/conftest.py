"""A stack of its own for tests that kill parts of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is up, with two ingest workers."""
    stack = Stack(tmp_path_factory.mktemp("chaos"), options=("--ingest-workers", "2"))
    try:
        stack.up()
        yield stack
    finally:
        stack.end()
