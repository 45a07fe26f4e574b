"""/v1/duplicates: who may ask for what, and what is refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import Web, build_web
from lookalike.records import CollectionRequest, Metric

KEYS = """
[[keys]]
name = "reader"
sha256 = ["{reader}"]
rights = ["search"]

[[keys]]
name = "writer"
sha256 = ["{writer}"]
rights = ["search", "ingest"]
collections = ["mine"]
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    file = tmp_path / "keys.toml"
    file.write_text(KEYS.format(**{name: hashlib.sha256(name.encode()).hexdigest() for name in ("reader", "writer")}))
    web = build_web(tmp_path, keys_file=file)
    web.vectors.create(CollectionRequest(name="mine"))
    web.vectors.create(CollectionRequest(name="flat", metric=Metric.L2))
    yield web
    web.close()


def ask(web: Web, who: str, **body: Any) -> tuple[int, str]:
    answer = web.client.post("/v1/duplicates", json=body, headers={"Authorization": f"Bearer {who}"})
    return answer.status_code, answer.json.get("code", answer.json.get("kind"))


def test_looking_needs_the_right_to_search_and_deleting_that_to_ingest(web: Web) -> None:
    assert ask(web, "reader", collection="mine", level="picture") == (202, "duplicates")
    assert ask(web, "reader", collection="mine", delete=True) == (403, "forbidden")
    assert ask(web, "reader", collection="mine", delete=True, dry_run=True) == (403, "forbidden")
    assert ask(web, "writer", collection="mine", delete=True) == (202, "duplicates")
    assert ask(web, "writer", collection="flat") == (403, "forbidden")


@pytest.mark.parametrize(
    "body",
    [
        {"level": "similar"},
        {"level": "picture", "max_bits": 13},
        {"level": "picture", "min_score": 0.5},
        {"level": "near", "min_score": 0.5, "max_distance": 0.5},
        {"level": "near", "collection": "flat"},
    ],
)
def test_what_cannot_be_meant_is_refused(web: Web, body: dict[str, Any]) -> None:
    status, code = ask(web, "reader", **{"collection": "mine", **body})
    assert status in {400, 422}
    assert code.startswith("invalid")


def test_a_threshold_makes_near_meaningful_for_any_metric(web: Web) -> None:
    assert ask(web, "reader", collection="flat", level="near", max_distance=0.2) == (202, "duplicates")
    assert ask(web, "reader", collection="missing") == (404, "collection_not_found")
