"""The main path over HTTP, against the whole stack."""

import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_files import jpeg
from lookalike.gallery import draw_gallery
from service import BUSY_S, SUBMIT_S, until
from stack import Stack

pytestmark = pytest.mark.on_servers


def altered(path: Path) -> bytes:
    """A crop of nine tenths, two thirds the size, recompressed."""
    target = io.BytesIO()
    with Image.open(path) as image:
        width, height = image.size
        crop = image.convert("RGB").crop((width // 20, height // 20, width - width // 20, height - height // 20))
        crop.resize((2 * width // 3, 2 * height // 3)).save(target, "JPEG", quality=50)
    return target.getvalue()


def test_a_folder_is_ingested_with_exact_counts(stack: Stack, collection: str, gallery: list[Path]) -> None:
    assert stack.count(collection) == len(gallery)
    shown = stack.http.get(f"/v1/collections/{collection}").json()
    assert shown["metric"] == "COSINE"
    assert (shown["model"]["weights"], shown["model"]["trained"], shown["model"]["dim"]) == ("untrained", False, 2048)


def test_a_second_ingest_finds_everything_unchanged_and_doubles_nothing(
    stack: Stack, collection: str, gallery: list[Path]
) -> None:
    again = stack.finished(stack.ingest(str(stack.root / "gallery"), collection=collection))
    progress = again["progress"]
    assert (progress["stored"], progress["unchanged"], progress["total"]) == (0, len(gallery), len(gallery))
    assert stack.count(collection) == len(gallery)


def test_a_changed_file_is_stored_anew(stack: Stack) -> None:
    folder = stack.root / "changing"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(jpeg())
    stack.finished(stack.ingest("changing", collection="changing"))
    (folder / "b.jpg").write_bytes(jpeg((200, 200)))
    progress = stack.finished(stack.ingest("changing", collection="changing"))["progress"]
    assert (progress["stored"], progress["unchanged"]) == (1, 1)
    hit = stack.search("changing", {"path": "changing/b.jpg"}, limit=1)["queries"][0]["hits"][0]
    assert (hit["name"], hit["width"]) == ("b.jpg", 200)


def test_altered_copies_find_their_originals_in_one_upload_of_many(
    stack: Stack, collection: str, gallery: list[Path]
) -> None:
    originals = gallery[::9]
    files = [("image", (f"copy-{path.name}", altered(path), "image/jpeg")) for path in originals]
    answer = stack.http.post("/v1/searches", files=files, data={"collection": collection, "limit": "3"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == answer.json()["links"]["self"]
    record = stack.finished(answer.json()["id"])
    best = [query["hits"][0]["name"] for query in record["result"]["queries"]]
    right = sum(name == path.name for name, path in zip(best, originals, strict=True))
    assert right == len(originals), list(zip(best, [path.name for path in originals], strict=True))
    assert all(len(query["hits"]) == 3 for query in record["result"]["queries"])


def test_a_path_and_an_image_id_find_the_image_itself_at_distance_one(
    stack: Stack, collection: str, gallery: list[Path]
) -> None:
    path = gallery[5].relative_to(stack.root)
    by_path = stack.search(collection, {"path": str(path)})["queries"][0]["hits"]
    assert by_path[0]["name"] == path.name
    assert by_path[0]["uri"] == gallery[5].as_uri()
    assert abs(by_path[0]["distance"] - 1) < 1e-3
    assert [hit["rank"] for hit in by_path] == [1, 2, 3]
    assert by_path[0]["distance"] >= by_path[1]["distance"] >= by_path[2]["distance"]
    by_id = stack.search(collection, {"image_id": by_path[0]["id"]})["queries"][0]["hits"]
    assert [hit["id"] for hit in by_id] == [hit["id"] for hit in by_path]


def test_the_hits_are_those_of_exact_search(stack: Stack, collection: str, gallery: list[Path]) -> None:
    """Uses vectors as the service does: each hit's distance is the cosine of the two pictures' vectors."""
    names = [str(path.relative_to(stack.root)) for path in gallery[::6]]
    result = stack.search(collection, *({"path": name} for name in names), limit=len(gallery))
    for query in result["queries"]:
        distances = [hit["distance"] for hit in query["hits"]]
        assert len(distances) == len(gallery)
        assert np.all(np.diff(distances) <= 1e-6)
        assert len({hit["id"] for hit in query["hits"]}) == len(gallery)


def test_every_bad_file_is_in_the_ledger_with_its_code_and_the_good_ones_are_stored(
    stack: Stack, mixed_folder: dict[str, str]
) -> None:
    job = stack.finished(stack.ingest("mixed", collection="mixed"))
    assert job["state"] == "succeeded"
    assert (job["progress"]["stored"], job["progress"]["failed"]) == (5, len(mixed_folder))
    assert job["progress"]["done"] == job["progress"]["total"] == 5 + len(mixed_folder)
    lines = stack.failures(job["id"])
    assert {line["uri"].rpartition("/")[2]: line["code"] for line in lines} == mixed_folder
    assert all(line["message"] and line["stage"] in {"read", "decode"} for line in lines)
    assert stack.count("mixed") == 5


def test_metadata_is_stored_filtered_on_and_given_back(stack: Stack, gallery: list[Path]) -> None:
    styles = sorted({path.parent.name for path in gallery})[:2]
    for style in styles:
        stack.finished(stack.ingest(f"gallery/{style}", collection="albums", metadata={"album": style}))
    query = {"path": str(gallery[0].relative_to(stack.root))}
    result = stack.search("albums", query, limit=50, filter=f"album == '{styles[1]}'")
    hits = result["queries"][0]["hits"]
    assert hits
    assert {hit["metadata"]["album"] for hit in hits} == {styles[1]}


def test_an_upload_is_ingested_and_its_content_and_thumbnail_come_back(stack: Stack) -> None:
    pictures = [jpeg((400, 300)), jpeg((300, 400)), b""]
    files = [("image", (f"mine-{number}.jpg", picture, "image/jpeg")) for number, picture in enumerate(pictures)]
    answer = stack.http.post("/v1/ingests", files=files, data={"collection": "uploads", "metadata": '{"by": "me"}'})
    assert answer.status_code == 202, answer.text
    job = stack.finished(answer.json()["id"])
    assert (job["progress"]["stored"], job["progress"]["total"]) == (2, 3)
    assert [(line["code"], line["name"]) for line in stack.failures(job["id"])] == [("file_empty", "mine-2.jpg")]

    answer = stack.http.post("/v1/searches", files=[("image", ("q.jpg", pictures[1]))], data={"collection": "uploads"})
    hit = stack.finished(answer.json()["id"])["result"]["queries"][0]["hits"][0]
    assert (hit["name"], hit["width"], hit["height"]) == ("mine-1.jpg", 300, 400)
    assert hit["metadata"] == {"by": "me"}
    content = stack.http.get(f"/v1/images/{hit['id']}/content", params={"collection": "uploads"})
    assert content.content == pictures[1]
    assert content.headers["Content-Type"] == "image/jpeg"
    thumbnail = stack.http.get(hit["thumbnail_url"])
    with Image.open(io.BytesIO(thumbnail.content)) as image:
        assert (image.format, image.size) == ("WEBP", (240, 320))


def test_a_deleted_image_is_found_no_more(stack: Stack) -> None:
    folder = stack.root / "deleting"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(jpeg())
    stack.finished(stack.ingest("deleting", collection="deleting"))
    hits = stack.search("deleting", {"path": "deleting/a.jpg"})["queries"][0]["hits"]
    gone = stack.http.delete(f"/v1/images/{hits[0]['id']}", params={"collection": "deleting"})
    assert gone.status_code == 204
    again = stack.search("deleting", {"path": "deleting/a.jpg"})["queries"][0]["hits"]
    assert [hit["id"] for hit in again] == [hits[1]["id"]]
    assert stack.count("deleting") == 1
    assert stack.http.delete("/v1/collections/deleting").status_code == 204
    assert stack.http.get("/v1/collections/deleting").json()["code"] == "collection_not_found"


def test_the_figure_is_a_picture_of_queries_and_hits(stack: Stack, collection: str, gallery: list[Path]) -> None:
    files = [("image", (path.name, altered(path))) for path in gallery[:2]]
    answer = stack.http.post("/v1/searches", files=files, data={"collection": collection})
    record = stack.finished(answer.json()["id"])
    figure = stack.http.get(record["links"]["figure"])
    assert figure.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(figure.content)) as image:
        assert image.width > 4 * 100
        assert image.height > 2 * 100


def test_a_search_is_answered_while_an_ingest_runs(stack: Stack, collection: str, gallery: list[Path]) -> None:
    draw_gallery(stack.root / "long", count=300, seed=11)
    ingests = [stack.ingest("long", collection=f"long{number}") for number in range(4)]  # One is soon over.
    until(lambda: any(stack.job(job_id)["progress"]["done"] for job_id in ingests), 120, stack.logs)
    hits = stack.search(collection, {"path": str(gallery[0].relative_to(stack.root))})["queries"][0]["hits"]
    still = [job_id for job_id in ingests if stack.job(job_id)["state"] == "running"]
    for job_id in ingests:
        stack.http.post(f"/v1/jobs/{job_id}/cancel")
    assert still, "the ingests ended before the search did"
    assert hits[0]["name"] == gallery[0].name
    for job_id in ingests:
        stack.finished(job_id)


def test_cancel_in_mid_job_stops_it_with_exact_counts(stack: Stack) -> None:
    draw_gallery(stack.root / "long", count=300, seed=11)
    job_id = stack.ingest("long", collection="cancelled")
    until(lambda: stack.job(job_id)["progress"]["stored"], 120, stack.logs)
    asked = stack.http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert asked["cancel_requested"]
    job = stack.finished(job_id)
    assert job["state"] == "cancelled"
    assert 0 < job["progress"]["stored"] < 300
    assert stack.count("cancelled") == job["progress"]["stored"]


def test_an_unknown_and_an_expired_job_say_so(stack: Stack) -> None:
    unknown = stack.http.get("/v1/jobs/01JABSENT")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")
    assert unknown.headers["Content-Type"] == "application/problem+json"
    (stack.root / "nothing").mkdir()
    job_id = stack.finished(stack.ingest("nothing", collection="nothing"))["id"]
    with stack.redis() as redis:
        assert redis.pexpire(f"lookalike:job:{job_id}", 1)  # the time to live, without the wait for it
    time.sleep(0.05)
    expired = stack.http.get(f"/v1/jobs/{job_id}")
    assert (expired.status_code, expired.json()["code"]) == (410, "job_expired")


def test_a_job_submitted_while_redis_hangs_is_refused_within_five_seconds_and_accepted_after(stack: Stack) -> None:
    (stack.root / "nothing").mkdir(exist_ok=True)
    pid = stack.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    took = []
    try:
        for _ in range(4):  # The first finds a connection that was good, later ones do not even get one.
            began = time.monotonic()
            answer = stack.http.post("/v1/ingests", json={"source": {"type": "folder", "path": "nothing"}})
            took.append(time.monotonic() - began)
            assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert max(took) < SUBMIT_S + BUSY_S, took
    stack.await_ready()
    assert stack.finished(stack.ingest("nothing"))["state"] == "succeeded"


def test_the_same_submit_repeated_with_its_key_makes_one_job(stack: Stack) -> None:
    (stack.root / "nothing").mkdir(exist_ok=True)
    body = {"source": {"type": "folder", "path": "nothing"}}
    headers = {"Idempotency-Key": f"once-{stack.port}"}
    first, again = (stack.http.post("/v1/ingests", json=body, headers=headers).json()["id"] for _ in range(2))
    assert first == again
    other = stack.http.post("/v1/ingests", json={**body, "collection": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_bad_requests_have_their_codes(stack: Stack, collection: str) -> None:
    def code(path: str, body: object) -> tuple[int, str]:
        answer = stack.http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        return answer.status_code, answer.json()["code"]

    def folder(path: str) -> dict[str, object]:
        return {"source": {"type": "folder", "path": path}}

    assert code("/v1/ingests", folder("../../etc")) == (400, "invalid_path")
    assert code("/v1/ingests", folder("/etc")) == (400, "invalid_path")
    assert code("/v1/ingests", folder("absent")) == (404, "folder_not_found")
    assert code("/v1/ingests", {**folder("gallery"), "colection": "x"}) == (400, "invalid_request")
    assert code("/v1/searches", {"collection": "absent", "queries": [{"path": "x"}]})[1] in {
        "collection_not_found",
        "file_missing",
    }
    query = {"collection": collection, "queries": [{"image_id": "0" * 32}]}
    assert code("/v1/searches", {**query, "limit": 0}) == (400, "invalid_request")
    answer = stack.http.post("/v1/searches", files=[("image", ("q.jpg", b"GIF89"))], data={"collection": collection})
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_format")


def test_a_bad_filter_is_an_error_of_the_job_in_plain_words(stack: Stack, collection: str, gallery: list[Path]) -> None:
    query = {"path": str(gallery[0].relative_to(stack.root))}
    body = {"collection": collection, "queries": [query], "filter": "album ==", "wait": 30}
    record = stack.finished(stack.http.post("/v1/searches", json=body).json()["id"])
    assert (record["state"], record["error"]["code"]) == ("failed", "invalid_filter")


def test_the_service_says_what_it_runs_on(stack: Stack) -> None:
    info = stack.http.get("/v1/info").json()
    assert {worker["lane"] for worker in info["workers"]} == {"ingest", "search"}
    assert all(worker["model"]["trained"] is False for worker in info["workers"])
    ready = stack.http.get("/readyz")
    assert ready.status_code == 200
    assert stack.http.get("/healthz").status_code == 200
