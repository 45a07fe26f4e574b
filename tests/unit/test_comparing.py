"""By what a listed file is taken for the one that was stored."""

import pytest

from lookalike.listing import Listed
from lookalike.vectorstore import RowState
from lookalike_worker.ingest.comparing import is_same_file

STORED = RowState(size=9, mtime_ns=1, etag="", job="01J", sha256="0" * 64, metadata={})


@pytest.mark.parametrize(
    ("listed", "stored", "same"),
    [
        ({"mtime_ns": 1}, "", True),
        ({"mtime_ns": 2}, "", False),
        ({"mtime_ns": 1, "size": 8}, "", False),
        ({"mtime_ns": 2, "etag": "a"}, "a", True),
        # Replaced within the second that a store's times are told in.
        ({"mtime_ns": 1, "etag": "b"}, "a", False),
        ({"mtime_ns": 1, "etag": "b"}, "", True),
        ({"mtime_ns": 1, "etag": "a", "size": 8}, "a", False),
    ],
)
def test_a_tag_tells_better_than_a_time(listed: dict[str, object], stored: str, same: bool) -> None:
    found = Listed(**{"uri": "s3://b/a.png", "name": "a.png", "cursor": "a", "size": 9, **listed})  # type: ignore[arg-type]
    state = RowState(**{**vars(STORED), "etag": stored})
    assert is_same_file(found, state) is same
