"""Keys with rights: what each may do, where it may read, and that it sees no job of another."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.errors import SetupError
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, PlanClaim
from lookalike.records import Failure, Stage
from lookalike.roots import file_uri
from lookalike_web.keys import Right
from lookalike_web.openapi import build

Ask = Callable[..., Any]


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def key(name: str, *secrets: str, **limits: list[str]) -> str:
    lines = [f"{field} = {json.dumps(value)}" for field, value in limits.items()]
    hashes = json.dumps([digest(secret) for secret in secrets or (name,)])
    return "\n".join(["[[keys]]", f'name = "{name}"', f"sha256 = {hashes}", *lines, ""])


def build_guarded(folder: Path, *keys: str, **changed: Any) -> Web:
    file = folder / "keys.toml"
    file.write_text("\n".join(keys))
    return build_web(folder, keys_file=file, **changed)


def asking(web: Web, secret: str) -> Ask:
    def ask(method: str, path: str, **parts: Any) -> Any:
        headers = {"Authorization": f"Bearer {secret}", **parts.pop("headers", {})}
        return web.client.open(path, method=method, headers=headers, **parts)

    return ask


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["code"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A service for a gallery's visitors, its feeder, its operator, and one key that is limited in its places."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(jpeg())
    web = build_guarded(
        tmp_path,
        key("visitor", rights=["search"]),
        key("feeder", rights=["ingest"]),
        key("operator", rights=["admin"]),
        key("confined", collections=["spring*"], roots=[str(tmp_path / "root" / "spring"), "s3://bucket/spring"]),
        key("other"),
        api_keys=("of-old",),
        roots=(tmp_path / "root", tmp_path / "elsewhere"),
        object_roots=("s3://bucket",),
        url_ingest=True,
    )
    (web.root / "spring").mkdir()
    (web.root / "a.jpg").write_bytes(jpeg())
    (web.root / "spring" / "a.jpg").write_bytes(jpeg())
    yield web
    web.close()


FOLDER = {"source": {"type": "folder", "path": "."}}
VECTOR = {"queries": [{"vector": [0.5] * 4}]}


def test_a_key_does_what_it_has_the_right_to_and_nothing_else(web: Web) -> None:
    image = web.vectors.store("default", file_uri(web.root / "a.jpg"))
    needed = {
        ("POST", "/v1/searches"): (Right.SEARCH, {"json": VECTOR}),
        ("GET", "/v1/collections"): (Right.SEARCH, {}),
        ("GET", f"/v1/images/{image}"): (Right.SEARCH, {}),
        ("POST", "/v1/ingests"): (Right.INGEST, {"json": FOLDER}),
        ("POST", "/v1/uploads"): (Right.INGEST, {"json": {"size": 3}}),
        ("POST", "/v1/collections"): (Right.INGEST, {"json": {"name": "made"}}),
        ("POST", "/v1/gc"): (Right.ADMIN, {"json": {"dry_run": True}}),
        ("DELETE", "/v1/collections/default"): (Right.ADMIN, {}),
    }
    holders = {"visitor": Right.SEARCH, "feeder": Right.INGEST, "operator": Right.ADMIN}
    for (method, path), (right, parts) in needed.items():
        for secret, held in holders.items():
            answer = asking(web, secret)(method, path, **parts)
            if held is right:
                assert answer.status_code in {200, 201, 202, 204}, (secret, path, answer.data)
            else:
                assert code(answer) == (403, "forbidden"), (secret, path)
                assert f"`{right}`" in answer.json["detail"]


def test_each_address_under_v1_says_what_right_it_needs(web: Web) -> None:
    free = {
        ("/v1/info", "get"),
        ("/v1/jobs", "get"),
        ("/v1/jobs/{job_id}", "get"),
        ("/v1/jobs/{job_id}/cancel", "post"),
        ("/v1/jobs/{job_id}/pause", "post"),
        ("/v1/jobs/{job_id}/resume", "post"),
        ("/v1/jobs/{job_id}/events", "get"),
        ("/v1/jobs/{job_id}/failures", "get"),
        ("/v1/jobs/{job_id}/figure.png", "get"),
        ("/v1/jobs/{job_id}/files", "get"),
        ("/v1/jobs/{job_id}/files/{name}", "get"),
        ("/v1/jobs/{job_id}/queries/{number}/thumbnail", "get"),
    }  # Of one's own jobs.
    document = build(web.client.application, version="1")
    open_to_all = {
        (path, method)
        for path, methods in document["paths"].items()
        if path.startswith("/v1/")
        for method, item in methods.items()
        if "x-right" not in item
    }
    assert open_to_all == free


def test_keys_without_limits_and_a_service_without_keys_may_do_everything(web: Web, tmp_path: Path) -> None:
    for secret in ("of-old", "other"):
        ask = asking(web, secret)
        assert ask("POST", "/v1/ingests", json=FOLDER).status_code == 202
        assert ask("POST", "/v1/gc", json={"dry_run": True}).status_code == 200
    (tmp_path / "keyless").mkdir()
    keyless = build_web(tmp_path / "keyless")
    assert keyless.client.post("/v1/gc", json={"dry_run": True}).status_code == 200
    keyless.close()


def test_both_secrets_of_a_key_are_one_sender_so_that_it_can_be_replaced(tmp_path: Path) -> None:
    web = build_guarded(tmp_path, key("gallery", "old", "new", rights=["ingest"]), key("else", rights=["ingest"]))
    job_id = asking(web, "old")("POST", "/v1/ingests", json=FOLDER).json["id"]
    answer = asking(web, "new")("GET", f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json["owner"]) == (200, "gallery")
    assert asking(web, "else")("GET", f"/v1/jobs/{job_id}").status_code == 404
    for wrong in ("", "gallery", digest("old"), "ol"):
        assert asking(web, wrong)("GET", "/v1/jobs").status_code == 401
    web.close()


# --- Jobs of others -------------------------------------------------------------------------------------------------


def fail_one(web: Web) -> None:
    """Run the ingest that waits as workers do; its one file fails."""
    plan = web.jobs.claim_ingest()
    assert isinstance(plan, PlanClaim)
    web.jobs.add_chunk(plan, [IngestItem(uri="file:///a")], cursor="end")
    web.jobs.end_plan(plan, finished=True)
    chunk = web.jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    line = Failure(uri="file:///a", code="file_empty", message="Empty.", stage=Stage.READ)
    web.jobs.account(chunk, ChunkOutcome(failures=(line,)))


def test_the_job_of_another_is_not_there_whatever_is_asked_of_it(tmp_path: Path) -> None:
    own = ["search", "ingest"]
    web = build_guarded(tmp_path, key("one", rights=own), key("two", rights=own), key("boss"), api_keys=("of-old",))
    one, two = asking(web, "one"), asking(web, "two")
    job_id = one("POST", "/v1/ingests", json=FOLDER).json["id"]
    fail_one(web)
    rules = [rule for rule in web.client.application.url_map.iter_rules() if "job_id" in rule.arguments]
    assert len(rules) >= 9
    for rule in rules:
        path = rule.rule.replace("<job_id>", job_id).replace("<int:number>", "0")
        for method in (rule.methods or set()) & {"GET", "POST"}:
            assert code(two(method, path)) == (404, "job_not_found"), path
    again = {"source": {"type": "failures", "job_id": job_id}}
    assert code(two("POST", "/v1/ingests", json=again)) == (404, "job_not_found")
    assert two("GET", "/v1/jobs").json["jobs"] == []
    for seeing in (one, asking(web, "boss"), asking(web, "of-old")):
        assert seeing("GET", f"/v1/jobs/{job_id}").status_code == 200
        assert [job["id"] for job in seeing("GET", "/v1/jobs").json["jobs"]] == [job_id]
    assert one("POST", "/v1/ingests", json=again).status_code == 202
    web.close()


def test_the_same_idempotency_key_of_two_senders_makes_two_jobs(tmp_path: Path) -> None:
    web = build_guarded(tmp_path, key("one", rights=["ingest"]), key("two", rights=["ingest"]))
    same = {"Idempotency-Key": "monday"}
    made = [asking(web, who)("POST", "/v1/ingests", json=FOLDER, headers=same).json for who in ("one", "two", "one")]
    assert [job["owner"] for job in made] == ["one", "two", "one"]
    assert made[0]["id"] == made[2]["id"] != made[1]["id"]
    web.close()


# --- Places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"type": "folder", "path": "spring"}, 202),
        ({"type": "folder", "path": "."}, "root_not_allowed"),
        ({"type": "folder", "path": "spring", "symlinks": True}, "root_not_allowed"),
        ({"type": "folder", "path": "/"}, "invalid_path"),
        ({"type": "folder", "path": "absent"}, "folder_not_found"),
        ({"type": "archive", "path": "spring/a.jpg"}, 202),
        ({"type": "archive", "path": "b.jpg"}, "root_not_allowed"),
        ({"type": "archive", "url": "s3://bucket/springer/a.zip"}, "root_not_allowed"),
        ({"type": "archive", "url": "https://example.org/a.zip"}, 202),
        ({"type": "objects", "prefix": "s3://bucket/spring/may"}, 202),
        ({"type": "objects", "prefix": "S3://bucket"}, "root_not_allowed"),
        ({"type": "objects", "prefix": "s3://other"}, "invalid_path"),
        ({"type": "urls", "urls": ["https://example.org/a.jpg", "s3://bucket/spring/a.jpg"]}, 202),
        ({"type": "urls", "urls": ["https://example.org/a.jpg", "s3://bucket/a.jpg"]}, "root_not_allowed"),
        ({"type": "manifest", "path": "spring/a.jpg"}, "root_not_allowed"),
    ],
)
def test_an_ingest_reads_from_the_roots_of_its_key_only(web: Web, source: dict[str, Any], expected: int | str) -> None:
    answer = asking(web, "confined")("POST", "/v1/ingests", json={"collection": "spring", "source": source})
    if isinstance(expected, int):
        assert answer.status_code == expected, answer.data
    else:
        assert answer.json["code"] == expected
        assert answer.status_code in {403} if expected == "root_not_allowed" else {400, 404}
        assert str(web.root) not in answer.text, "no real path is told"
    unlimited = asking(web, "other")("POST", "/v1/ingests", json={"source": source})
    assert (unlimited.status_code == 202) == (expected in {202, "root_not_allowed"})


def test_the_failures_of_another_are_no_way_out_of_the_roots_of_a_key_that_sees_all_jobs(web: Web) -> None:
    spring = {"collection": "spring", **FOLDER}
    job_id = asking(web, "other")("POST", "/v1/ingests", json=spring).json["id"]
    fail_one(web)
    again = {"collection": "spring", "source": {"type": "failures", "job_id": job_id}}
    confined = asking(web, "confined")
    assert confined("GET", f"/v1/jobs/{job_id}").status_code == 200
    assert code(confined("POST", "/v1/ingests", json=again)) == (403, "root_not_allowed")
    assert code(confined("POST", f"/v1/jobs/{job_id}/retry")) == (403, "root_not_allowed")
    assert asking(web, "of-old")("POST", "/v1/ingests", json=again).status_code == 202


def test_a_search_by_path_reads_from_the_roots_of_its_key_only(web: Web) -> None:
    web.vectors.store("spring", "file:///a")
    ask = asking(web, "confined")

    def search(*paths: str) -> Any:
        return ask("POST", "/v1/searches", json={"collection": "spring", "queries": [{"path": path} for path in paths]})

    assert search("spring/a.jpg").status_code == 202
    for others in (("a.jpg",), ("spring/a.jpg", "a.jpg")):
        assert code(search(*others)) == (403, "root_not_allowed")


def test_a_key_names_only_the_collections_it_is_for(web: Web) -> None:
    image = web.vectors.store("default", "file:///a")
    web.vectors.store("spring2024", "file:///a")
    ask = asking(web, "confined")
    assert [found["name"] for found in ask("GET", "/v1/collections").json["collections"]] == ["spring2024"]
    for method, path, body in (
        ("POST", "/v1/ingests", {"source": {"type": "folder", "path": "spring"}}),
        ("POST", "/v1/searches", VECTOR),
        ("POST", "/v1/collections", {"name": "autumn"}),
        ("GET", "/v1/collections/default", None),
        ("DELETE", "/v1/collections/default", None),
        ("GET", f"/v1/images/{image}", None),
        ("DELETE", f"/v1/images/{image}", None),
        ("GET", f"/v1/images/{image}/content", None),
        ("GET", f"/v1/images/{image}/thumbnail", None),
    ):
        assert code(ask(method, path, json=body)) == (403, "forbidden"), path
    assert ask("GET", f"/v1/images/{image}?collection=spring2024").status_code == 200
    assert ask("DELETE", "/v1/collections/spring2024").status_code == 204


# --- The file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keys = 1", "`keys`"),
        ("", "no [[keys]]"),
        ("[[keys]", "not TOML"),
        ('[[keys]]\nname = "a"', "`sha256`"),
        (f'[[keys]]\nsha256 = ["{digest("x")}"]', "`name`"),
        ('[[keys]]\nname = "a"\nsha256 = ["not-a-hash"]', "keys.0.sha256.0"),
        (key("a", "x") + key("a", "y"), "share"),
        (key("a", "x") + key("b", "x"), "share"),
        (key("a", "x", "y", "z"), "keys.0.sha256"),
        (key("a", rights=["fly"]), "keys.0.rights"),
        (key("a", roots=["relative"]), "absolute"),
        (key("a", roots=["s3://"]), "s3://bucket"),
        (key("a", colections=["typo"]), "keys.0.colections"),
    ],
)
def test_a_file_that_says_something_else_than_it_means_keeps_the_service_from_starting(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SetupError) as refusal:
        build_guarded(tmp_path, text)
    assert told in refusal.value.message


def test_a_file_of_keys_that_is_not_there_does_not_leave_the_service_open(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        build_web(tmp_path, keys_file=tmp_path / "absent.toml")
