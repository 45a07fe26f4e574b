"""Re-embedding over HTTP, on a real vector store: which model is meant, what is made of it, and who may."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.jobstore import Lane
from lookalike.records import CollectionSource, IngestRequest, JobRecord, ModelInfo, SearchRequest, WorkerInfo
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore, physical_name
from lookalike_web.app import create_app

OLD = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="0ab1" * 16, dim=8)
NEW = OLD.model_copy(update={"name": "resnet18", "fingerprint": "0cd2" * 16, "dim": 4})
NAME = "web_models"
INGESTS = "/v1/ingests"


@pytest.fixture
def web(tmp_path: Path, milvus_uri: str) -> Iterator[Web]:
    """A front end with live workers of two models, and a collection that one of them has stored an image in."""
    web = build_web(tmp_path)
    vectors = VectorStore(Settings(milvus_uri=milvus_uri, consistency="Strong"))
    services = replace(web.services, vectors=vectors)
    vectors.bind(NAME, OLD)
    vectors.upsert(NAME, [row(0)], np.ones((1, OLD.dim), dtype=np.float32))
    for model in (OLD, NEW):
        web.jobs.announce(worker(model))
    yield Web(services, create_app(services).test_client())
    vectors.drop(NAME)
    vectors.close()
    web.close()


def row(number: int) -> StoredImage:
    content = hashlib.sha256(jpeg() + bytes([number])).hexdigest()
    facts = {"sha256": content, "size": 1, "mtime_ns": 1, "width": 4, "height": 3}
    return StoredImage(id=f"{number:032x}", uri=f"file:///{number}.jpg", name="", metadata={}, **facts)  # type: ignore[arg-type]


def worker(model: ModelInfo) -> WorkerInfo:
    return WorkerInfo(
        name=model.name,
        lane="ingest",
        host="h",
        pid=1,
        device="cpu",
        engine="torch",
        precision="fp32",
        engine_reason="",
        model=model,
        started_at=datetime.now(UTC),
    )


def reembed(web: Web, **fields: object) -> JobRecord:
    answer = web.client.post("/v1/reembeds", json={"collection": NAME, "model": "resnet18", **fields})
    assert answer.status_code == 202, answer.text
    return JobRecord.model_validate(answer.json)


@pytest.mark.parametrize("named", ["resnet18", NEW.fingerprint, NEW.fingerprint[:8]])
def test_a_reembedding_is_an_ingest_of_the_collection_for_the_workers_with_the_model(web: Web, named: str) -> None:
    record = reembed(web, model=named)
    request = IngestRequest.model_validate(record.request)
    assert request.source == CollectionSource(collection=NAME, model=OLD.fingerprint)
    assert (record.model, request.model, request.sync) == (NEW.fingerprint, NEW.fingerprint, True)
    assert web.doorbell.rung == [Lane.INGEST]
    shown = web.client.get(f"/v1/collections/{NAME}").json
    assert [(one["model"]["name"], one["state"], one["count"]) for one in shown["models"]] == [
        ("resnet50", "serving", 1),
        ("resnet18", "shadow", 0),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "vit_b_16"}, 409, "model_not_live"),
        ({"model": "resnet50"}, 409, "model_in_use"),
        ({"collection": "nobody_made_this"}, 404, "collection_not_found"),
        ({"model": ""}, 400, "invalid_request"),
    ],
)
def test_what_cannot_be_reembedded_is_refused(web: Web, body: dict[str, str], status: int, code: str) -> None:
    answer = web.client.post("/v1/reembeds", json={"collection": NAME, "model": "resnet18", **body})
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert not web.doorbell.rung


def test_a_name_that_two_models_have_has_to_be_a_fingerprint(web: Web) -> None:
    other = NEW.model_copy(update={"fingerprint": "0ef3" * 16})
    web.jobs.announce(worker(other).model_copy(update={"name": "third"}))
    answer = web.client.post("/v1/reembeds", json={"collection": NAME, "model": "resnet18"})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert NEW.fingerprint[:12] in answer.json["detail"]
    assert reembed(web, model=other.fingerprint).model == other.fingerprint


def test_what_is_ingested_meanwhile_goes_to_both_models_once(web: Web) -> None:
    (web.root / "album").mkdir()
    body = {"collection": NAME, "source": {"path": "album"}}
    web.client.post(INGESTS, json=body)
    assert len(web.jobs.list_jobs().jobs) == 1, "while one model is all there is"
    reembed(web)
    for _ in range(2):
        answer = web.client.post(INGESTS, json=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 202
    newest, main, *others = web.jobs.list_jobs().jobs
    assert (main.id, main.model, newest.model) == (answer.json["id"], None, NEW.fingerprint)
    assert len(others) == 2
    assert newest.request == {**main.request, "model": NEW.fingerprint}
    web.client.post(INGESTS, json={**body, "dry_run": True})
    assert len(web.jobs.list_jobs().jobs) == 5


def test_a_new_collection_is_made_with_the_model_that_has_been_live_for_longest(web: Web) -> None:
    (web.root / "album").mkdir()
    answer = web.client.post(INGESTS, json={"collection": "nobody_made_this", "source": {"path": "album"}})
    assert answer.json["model"] == OLD.fingerprint
    web.jobs.depart(worker(OLD))
    answer = web.client.post(INGESTS, json={"collection": "nobody_made_this", "source": {"path": "album"}})
    assert answer.json["model"] is None, "there is one model only"


def test_a_search_names_one_of_the_collection_s_models(web: Web) -> None:
    reembed(web)
    search = {"collection": NAME, "queries": [{"vector": [1.0] * NEW.dim}], "model": "resnet18"}
    answer = web.client.post("/v1/searches", json=search)
    assert answer.status_code == 202, answer.text
    record = web.jobs.get(answer.json["id"])
    assert (record.model, record.waiting_for) == (NEW.fingerprint, "model")
    assert SearchRequest.model_validate(record.request).model == NEW.fingerprint
    other = web.client.post("/v1/searches", json={**search, "model": "vit_b_16"})
    assert (other.status_code, other.json["code"]) == (404, "model_not_found")


def test_a_collection_is_switched_rolled_back_and_a_model_dropped(web: Web) -> None:
    switch, models = f"/v1/collections/{NAME}/switch", f"/v1/collections/{NAME}/models"
    assert web.client.post(switch, json={"model": "resnet18"}).json["code"] == "model_not_found"
    reembed(web)
    early = web.client.post(switch, json={"model": "resnet18"})
    assert (early.status_code, early.json["code"]) == (409, "reembedding_incomplete")
    vectors = web.services.vectors
    vectors.upsert(physical_name(NAME, NEW.fingerprint), [row(0)], np.ones((1, NEW.dim), dtype=np.float32))
    switched = web.client.post(switch, json={"model": "resnet18"})
    assert (switched.status_code, switched.json["model"]["name"]) == (200, "resnet18")
    assert [one["state"] for one in switched.json["models"]] == ["retired", "serving"]
    assert web.client.delete(f"{models}/resnet18").json["code"] == "model_in_use"
    assert web.client.post(switch, json={"model": "resnet50"}).json["model"]["name"] == "resnet50"
    assert web.client.delete(f"{models}/{NEW.fingerprint[:12]}").status_code == 204
    assert web.client.get(f"/v1/collections/{NAME}").json["models"] == []
    assert web.client.delete(f"{models}/resnet18").json["code"] == "model_not_found"


def test_what_changes_who_answers_takes_a_key_with_the_right_to_it(web: Web, tmp_path: Path) -> None:
    (tmp_path / "guarded").mkdir()
    keys = "\n".join(
        f'[[keys]]\nname = "{name}"\nsha256 = ["{hashlib.sha256(name.encode()).hexdigest()}"]\n{limit}\n'
        for name, limit in (("feeder", 'rights = ["ingest"]'), ("elsewhere", 'collections = ["other*"]'))
    )
    (tmp_path / "keys.toml").write_text(keys)
    guarded = build_web(tmp_path / "guarded", keys_file=tmp_path / "keys.toml")
    guarded.jobs.announce(worker(NEW))
    client = create_app(replace(guarded.services, vectors=web.services.vectors)).test_client()
    reembeds, switch = "/v1/reembeds", f"/v1/collections/{NAME}/switch"
    body = {"collection": NAME, "model": "resnet18"}
    asked = [
        ("feeder", "POST", reembeds, body, 202),
        ("feeder", "POST", reembeds, {**body, "switch": True}, 403),
        ("feeder", "POST", switch, {"model": "resnet18"}, 403),
        ("feeder", "DELETE", f"/v1/collections/{NAME}/models/resnet18", None, 403),
        ("elsewhere", "POST", reembeds, body, 403),
        ("elsewhere", "POST", switch, {"model": "resnet18"}, 403),
        ("elsewhere", "DELETE", f"/v1/collections/{NAME}/models/resnet18", None, 403),
    ]
    for key, method, path, json, status in asked:
        answer = client.open(path, method=method, json=json, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == status, (key, path, answer.text)
    guarded.close()
