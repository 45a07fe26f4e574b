"""Probes, facts, and the documentation that has to tell the truth about all of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from fakes import Web, build_web
from lookalike import errors
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.records import ModelInfo, WorkerInfo
from lookalike_web.views.docs import type_text

HTTP_API = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="f" * 64, dim=2048)
#: Codes that only the command line and the client know.
CLIENT_CODES = {
    "service_unreachable",
    "wait_timeout",
    "job_failed",
    "job_cancelled",
    "dataset_unreachable",
    "checksum_mismatch",
}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, redis_url="redis://:hunter2@127.0.0.1/0")
    yield web
    web.close()


def announce(jobs: MemoryJobStore, lane: str) -> None:
    facts = {"host": "h", "pid": 1, "device": "cpu", "engine": "torch", "precision": "fp32", "engine_reason": "no GPU"}
    jobs.announce(WorkerInfo(name=f"worker-{lane}-1", lane=lane, model=MODEL, started_at=datetime.now(UTC), **facts))


def test_health_asks_nothing_else(web: Web) -> None:
    web.vectors.down = True
    assert web.client.get("/healthz").status_code == 200


def test_readiness_names_what_is_missing(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(web.jobs, "search")
    answer = web.client.get("/readyz")
    assert (answer.status_code, answer.json["code"]) == (503, "not_ready")
    assert {name for name, check in answer.json["checks"].items() if not check["ok"]} == {"worker_ingest"}
    assert "worker_ingest" in answer.json["detail"]
    assert int(answer.headers["Retry-After"]) > 0

    announce(web.jobs, "ingest")
    answer = web.client.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "ready")
    assert all(check["ok"] for check in answer.json["checks"].values())

    web.vectors.down = True
    assert not web.client.get("/readyz").json["checks"]["milvus"]["ok"]

    def down() -> None:
        raise errors.QueueUnavailable

    monkeypatch.setattr(web.jobs, "ping", down)
    checks = web.client.get("/readyz").json["checks"]
    assert not any(check["ok"] for check in checks.values()), "workers are not known while Redis is away"


def test_info_tells_what_runs_and_keeps_secrets(web: Web) -> None:
    assert web.client.get("/v1/info").json["trained"] is None
    announce(web.jobs, "search")
    announce(web.jobs, "ingest")
    answer = web.client.get("/v1/info")
    info = answer.json
    assert [model["fingerprint"] for model in info["models"]] == [MODEL.fingerprint]
    assert info["trained"] is False
    assert {worker["lane"] for worker in info["workers"]} == {"ingest", "search"}
    assert (info["roots"], info["limits"]["max_queries"]) == (1, 64)
    assert "hunter2" not in answer.text
    assert str(web.root) not in answer.text


def test_the_openapi_document_is_valid_and_has_every_route(web: Web) -> None:
    document = web.client.get("/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in web.client.application.url_map.iter_rules()
        if rule.endpoint not in {"docs.static", "page.static", "page.home"}
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert described == routes
    for item in document["paths"].values():
        for operation in item.values():
            assert "application/problem+json" in str(operation["responses"])
    ingest = document["paths"]["/v1/ingests"]["post"]["requestBody"]["content"]
    assert set(ingest) == {"application/json", "multipart/form-data"}
    form = ingest["multipart/form-data"]["schema"]
    assert form["oneOf"] == [{"required": ["image"]}, {"required": ["archive"]}]
    assert document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"] == {
        "text/event-stream": {}
    }
    schemas = document["components"]["schemas"]
    assert {"200", "206", "304", "416"} <= set(document["paths"]["/v1/images/{image_id}/content"]["get"]["responses"])
    source = Draft202012Validator({**document, "$ref": "#/components/schemas/JSONIngest"})
    assert source.is_valid({"source": {"type": "urls", "urls": ["https://example.org/a.jpg"]}})
    assert not source.is_valid({"source": {"type": "urls", "path": "."}})
    query = Draft202012Validator({**document, "$ref": "#/components/schemas/JSONQuery"})
    assert query.is_valid({"path": "a.jpg"})
    assert query.is_valid({"path": None, "vector": [1.0]})
    for bad in ({}, {"path": None}, {"path": "a.jpg", "vector": [1.0]}, {"path": "a.jpg", "image_id": "0" * 32}):
        assert not query.is_valid(bad), bad
    assert schemas["Progress"]["properties"]["total"]["description"] == "Null until the listing ends."


def test_what_answers_is_what_the_document_says(web: Web) -> None:
    """Holds the shapes together: each answer of a few endpoints against its schema."""
    document = web.client.get("/openapi.json").json
    announce(web.jobs, "search")
    job = web.client.post("/v1/ingests", json={"source": {"type": "folder", "path": "."}})
    answers = {
        "JobRecord": job.json,
        "JobPage": web.client.get("/v1/jobs").json,
        "Info": web.client.get("/v1/info").json,
        "ProblemDetails": web.client.get("/v1/jobs/absent").json,
        "CollectionList": web.client.get("/v1/collections").json,
    }
    for name, answer in answers.items():
        Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"}).validate(answer)


def test_the_docs_page_is_whole_without_network_or_scripts(web: Web) -> None:
    answer = web.client.get("/docs")
    page = answer.text
    assert "<script" not in page
    assert "style=" not in page
    assert set(re.findall(r'(?:src|href)="([^"#]+)', page)) == {"/docs/static/docs.css", "/openapi.json"}
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    style = web.client.get("/docs/static/docs.css", buffered=True)
    assert (style.status_code, style.mimetype) == (200, "text/css")
    assert "url(" not in style.text
    sidebar = page[page.index("<nav") : page.index("</nav>")]
    for path in web.client.get("/openapi.json").json["paths"]:
        assert f"</span>{path}</a>" in sidebar
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    # The `type` of every problem leads there.
    assert f"error-{web.client.get('/v1/jobs/absent').json['code']}" in anchors


def test_the_docs_examples_call_the_service_that_shows_them(web: Web) -> None:
    page = web.client.get("/docs", base_url="http://localhost:9123").text
    calls = re.findall(r"<code>curl .*|^curl .*", page, re.MULTILINE)
    assert len(calls) > 20
    assert all("http://localhost:9123/" in call for call in calls)


def test_the_page_and_all_its_parts_come_from_here_under_a_strict_policy(web: Web) -> None:
    answer = web.client.get("/", buffered=True)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert " style=" not in answer.text
    page = Path(web.client.application.blueprints["page"].static_folder)
    at_once = _parts(web, set(re.findall(r'(?:src|href)="(/page/[^"]+)"', answer.text)), r'from "\./([^"]+)"')
    seen = _parts(web, at_once, r'(?:from |import\()"\./([^"]+)"')
    assert {name.removeprefix("/page/") for name in seen} == {file.name for file in page.iterdir()} - {"index.html"}
    scripts = sum((page / name.removeprefix("/page/")).stat().st_size for name in at_once if name.endswith(".js"))
    assert scripts < 60_000


def _parts(web: Web, waiting: set[str], reference: str) -> set[str]:
    """Follow references between the page's parts; gives all that are reached."""
    seen: set[str] = set()
    while waiting - seen:
        path = (waiting - seen).pop()
        seen.add(path)
        part = web.client.get(path, buffered=True)
        assert part.status_code == 200, path
        assert "://" not in part.text.replace("http://www.w3.org/2000/svg", ""), "nothing comes from elsewhere"
        waiting = waiting | {f"/page/{name}" for name in re.findall(reference, part.text)}
    return seen


def test_types_read_as_words() -> None:
    assert type_text({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string | null"
    assert type_text({"type": "array", "items": {"$ref": "#/components/schemas/Hit"}}) == "list of Hit"


def test_the_manual_has_every_route_and_every_code(web: Web) -> None:
    for path, item in web.client.get("/openapi.json").json["paths"].items():
        for method in item:
            assert f"### {method.upper()} {path}\n" in HTTP_API, (method, path)
    tables = HTTP_API.split("## Error codes\n")[1]
    documented = set(re.findall(r"^\| (?:\d+ \| )?`([a-z_]+)` \|", tables, re.MULTILINE))
    known = {
        code
        for code, cls in errors.error_classes().items()
        if code not in CLIENT_CODES and (cls is errors.MissingExtra or not issubclass(cls, errors.SetupError))
    }
    assert documented == known


def test_the_web_package_does_not_load_torch() -> None:
    code = (
        "import sys, lookalike_web.app; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision', 'openvino')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
