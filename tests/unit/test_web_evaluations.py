"""/v1/evaluations, /v1/maps and the reindexing of a collection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.jobstore import Lane
from lookalike.records import JobKind


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path)
    (web.root / "a.jpg").write_bytes(jpeg())
    web.vectors.store("default", "file:///a.jpg")
    yield web
    web.close()


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/evaluations", {"type": "recall", "grid": [16]}, JobKind.EVALUATION),
        ("/v1/evaluations", {"type": "robustness", "pass_mark": {"mirror": 0.5}}, JobKind.EVALUATION),
        ("/v1/maps", {"limit": 10}, JobKind.MAP),
        ("/v1/collections/default/reindex", {"search": {"ef": 64}}, JobKind.REINDEX),
    ],
)
def test_what_is_asked_of_a_collection_becomes_a_job(
    web: Web, path: str, body: dict[str, object], kind: JobKind
) -> None:
    answer = web.client.post(path, json=body)
    assert (answer.status_code, answer.json["kind"]) == (202, kind)
    assert answer.json["request"]["collection"] == "default"
    assert web.doorbell.rung == [Lane.INGEST]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/evaluations", {"type": "speed"}, "invalid_request"),
        ("/v1/evaluations", {"type": "recall", "field": "album"}, "invalid_request"),
        ("/v1/evaluations", {"type": "recall", "collection": "absent"}, "collection_not_found"),
        ("/v1/maps", {"limit": 2}, "invalid_request"),
        ("/v1/collections/absent/reindex", {}, "collection_not_found"),
        ("/v1/collections/default/reindex", {"build": {"nlists": 1}}, "invalid_parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_code(web: Web, path: str, body: dict[str, object], code: str) -> None:
    answer = web.client.post(path, json=body)
    assert answer.status_code in {400, 404}
    assert answer.json["code"] == code
    assert web.doorbell.rung == []
