"""What an ingest does besides storing, through the whole stack: skip, compare, plan, report, pause, retry, share."""

import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ingest_parts import draw, picture
from loopback import Asked, Reply, Site, serve
from object_store import BUCKET
from pages import REPOSITORY, blocks
from service import until
from stack import LOOKALIKE, Stack

#: Pictures of a job whose middle is to be seen: more than a fast machine embeds between two events.
TOLD = PAUSED = 160
URGENT = 160

_COUNTS = ("added", "changed", "moved", "removed", "unchanged", "failed", "duplicates")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


def draw_many(folder: Path, first: int, count: int) -> None:
    draw(folder, **{f"p{seed}": seed for seed in range(first, first + count)})


def counts(job: dict[str, Any]) -> dict[str, int]:
    """What a job counted, without what it counted none of."""
    assert job["state"] == "succeeded", job
    assert job["progress"]["done"] == job["progress"]["total"], job
    return {name: count for name in _COUNTS if (count := job["progress"][name])}


def rows(stack: Stack, collection: str) -> dict[str, dict[str, Any]]:
    """Everything that is stored, by name, as a search shows it."""
    answer = stack.http.post(
        "/v1/searches",
        files=[("image", ("q.png", picture(0)))],
        data={"collection": collection, "limit": "100", "wait": "30"},
    )
    record = stack.finished(answer.json()["id"])
    assert record["state"] == "succeeded", record
    hits = record["result"]["queries"][0]["hits"]
    return {hit["uri"]: {**hit, "rank": 0, "distance": 0, "score": 0} for hit in hits}


# --- What is stored already ---


@pytest.mark.on_servers
def test_loading_again_skips_what_is_unchanged_and_checksum_finds_what_size_and_time_hide(stack: Stack) -> None:
    folder = stack.root / "again"
    draw(folder, a=1, b=2, c=3)

    def again(**fields: Any) -> dict[str, int]:
        return counts(stack.finished(stack.ingest("again", collection="again", **fields)))

    assert again(metadata={"album": "spring"}) == {"added": 3}
    assert again() == {"unchanged": 3}
    assert again(metadata={"album": "spring"}) == {"unchanged": 3}
    was = (folder / "b.png").stat()
    (folder / "b.png").write_bytes(picture(4))
    os.utime(folder / "b.png", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (folder / "b.png").stat().st_size == was.st_size
    assert again() == {"unchanged": 3}
    assert again(checksum=True) == {"changed": 1, "unchanged": 2}
    (folder / "c.png").write_bytes(picture(5))
    assert again(metadata={"album": "summer"}) == {"changed": 3}
    assert {row["metadata"]["album"] for row in rows(stack, "again").values()} == {"summer"}
    assert stack.count("again") == 3


@dataclass
class Place:
    """A source that `sync` compares with: what lies in it can be put, moved and removed by name."""

    source: dict[str, Any]
    uri: str
    put: Callable[[str, bytes], object]
    move: Callable[[str, str], object]
    remove: Callable[[str], object]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, stack: Stack, s3: Any) -> Place:
    """A folder, and a prefix in an object store."""
    if request.param == "bucket":

        def move(old: str, new: str) -> None:
            s3.copy_object(Bucket=BUCKET, Key=f"sync/{new}", CopySource={"Bucket": BUCKET, "Key": f"sync/{old}"})
            s3.delete_object(Bucket=BUCKET, Key=f"sync/{old}")

        return Place(
            {"type": "objects", "prefix": f"s3://{BUCKET}/sync/"},
            f"s3://{BUCKET}/sync/",
            lambda name, content: s3.put_object(Bucket=BUCKET, Key=f"sync/{name}", Body=content),
            move,
            lambda name: s3.delete_object(Bucket=BUCKET, Key=f"sync/{name}"),
        )
    folder = stack.root / "sync"
    (folder / "sub").mkdir(parents=True)
    return Place(
        {"type": "folder", "path": "sync"},
        folder.as_uri() + "/",
        lambda name, content: (folder / name).write_bytes(content),
        lambda old, new: (folder / old).rename(folder / new),
        lambda name: (folder / name).unlink(),
    )


@pytest.mark.on_servers
def test_sync_does_exactly_what_its_dry_run_said(stack: Stack, place: Place) -> None:
    collection = f"sync_{place.source['type']}"
    draw(stack.root / collection, other=20)
    stack.finished(stack.ingest(collection, collection=collection))
    for name, seed in {"changed.png": 21, "moved.png": 22, "gone.png": 23, "kept.png": 24}.items():
        place.put(name, picture(seed))
    first = stack.submit(place.source, collection=collection, metadata={"by": "hand"})
    assert counts(stack.finished(first)) == {"added": 4}
    place.put("changed.png", picture(25) + b" ")
    place.move("moved.png", "sub/renamed.png")
    place.remove("gone.png")
    place.put("new.png", picture(26))
    plan = {"added": 1, "changed": 1, "moved": 1, "removed": 1, "unchanged": 1}

    before = rows(stack, collection)
    dry = stack.finished(stack.submit(place.source, collection=collection, sync=True, dry_run=True))
    assert counts(dry) == plan
    assert rows(stack, collection) == before
    assert stack.count(collection) == len(before) == 5

    assert counts(stack.finished(stack.submit(place.source, collection=collection, sync=True))) == plan
    after = rows(stack, collection)
    ours = {uri.removeprefix(place.uri): row["metadata"] for uri, row in after.items() if uri.startswith(place.uri)}
    kept = {"by": "hand"}
    assert ours == {"changed.png": kept, "sub/renamed.png": kept, "kept.png": kept, "new.png": {}}
    assert stack.count(collection) == len(after) == 5, "what lies elsewhere stays"
    best = stack.http.post(
        "/v1/searches", files=[("image", ("q.png", picture(22)))], data={"collection": collection, "wait": "30"}
    )
    hits = stack.finished(best.json()["id"])["result"]["queries"][0]["hits"]
    assert hits[0]["uri"] == place.uri + "sub/renamed.png"
    again = stack.submit(place.source, collection=collection, sync=True, dry_run=True)
    assert counts(stack.finished(again)) == {"unchanged": 4}


@pytest.mark.on_servers
def test_a_place_that_is_suddenly_empty_is_not_believed(stack: Stack) -> None:
    folder = stack.root / "mounted"
    draw(folder, a=31, b=32)
    stack.finished(stack.ingest("mounted", collection="mounted"))
    shutil.rmtree(folder)
    folder.mkdir()
    job = stack.finished(stack.ingest("mounted", collection="mounted", sync=True))
    assert (job["state"], job["error"]["code"]) == ("failed", "source_empty")
    assert stack.count("mounted") == 2


def test_a_dry_run_of_addresses_asks_whether_they_changed(stack: Stack, site: Site) -> None:
    def page(asked: Asked) -> Reply:
        same = asked.headers.get("if-none-match") == '"1"'
        return Reply(304) if same else Reply(body=picture(33), headers={"ETag": '"1"'})

    urls = [site.page("/same.png", page), site.page("/other.png", Reply(body=picture(34)))]
    stack.finished(stack.submit({"type": "urls", "urls": urls}, collection="dry_web"))
    site.page("/other.png", Reply(body=picture(35)))
    source = {"type": "urls", "urls": [*urls, site.url("/never-seen.png")]}
    dry = stack.finished(stack.submit(source, collection="dry_web", dry_run=True))
    assert counts(dry) == {"added": 1, "changed": 1, "unchanged": 1}


@pytest.mark.on_servers
def test_equal_files_are_embedded_once_and_linked(stack: Stack) -> None:
    folder = stack.root / "equal"
    for number in range(12):
        draw(folder, **{f"copy{number}": 36})
    draw(folder, single=37)
    assert counts(stack.finished(stack.ingest("equal", collection="equal"))) == {"added": 13, "duplicates": 11}
    found = rows(stack, "equal").values()
    originals = {row["id"] for row in found if row["duplicate_of"] is None}
    assert len(originals) == 2
    assert {row["duplicate_of"] for row in found if row["duplicate_of"]} < originals


# --- What failed ---


def test_a_retry_touches_only_what_failed_and_keeps_its_row_of_the_manifest(stack: Stack) -> None:
    folder = stack.root / "mending"
    draw(folder, good=41, missing=42)
    (folder / "missing.png").unlink()
    (folder / "broken.png").write_bytes(picture(43)[:900])
    lines = [{"uri": f"{name}.png", "title": name} for name in ("good", "missing", "broken")]
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"type": "manifest", "path": "mending/list.jsonl"}
    first = stack.finished(stack.submit(source, collection="mending", metadata={"run": 1}))
    assert counts(first) == {"added": 1, "failed": 2}
    assert first["failure_counts"] == {"file_missing": 1, "image_truncated": 1}

    draw(folder, missing=42, broken=43)
    (folder / "good.png").write_bytes(picture(44))
    done = stack.cli("jobs", "retry", first["id"], "--json")
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(done.stdout)
    assert counts(again) == {"added": 2}
    found = rows(stack, "mending").values()
    assert {row["name"]: row["metadata"] for row in found} == {
        f"{line['title']}.png": {"title": line["title"], "run": 1} for line in lines
    }
    nothing = stack.http.post(f"/v1/jobs/{again['id']}/retry")
    assert (nothing.status_code, nothing.json()["code"]) == (400, "invalid_request")


# --- What is told meanwhile ---


def events(stack: Stack, job_id: str, last: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The events of a job: name, id and data of each."""
    headers, number = {"Last-Event-ID": last} if last else {}, last
    with stack.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                number = fields.get("id", number)  # The last progress leaves it to `done`, so that nobody misses that.
                yield fields["event"], number, json.loads(fields["data"])
                fields = {}


def documented_signature() -> Callable[[bytes, str, str, bytes], str]:
    """The recipe of the manual, as somebody copies it."""
    page = REPOSITORY / "docs" / "http-api.md"
    (recipe,) = [block.text for block in blocks(page) if "def signature(" in block.text]
    names: dict[str, Any] = {}
    exec(recipe, names)
    signature: Callable[[bytes, str, str, bytes], str] = names["signature"]
    return signature


def test_progress_is_told_by_events_and_the_end_by_a_signed_webhook(stack: Stack, site: Site) -> None:
    draw_many(stack.root / "told", 1000, TOLD)
    hook = site.page("/hook", Reply(204))
    job_id = stack.ingest("told", collection="told", webhook={"url": hook})
    seen = list(events(stack, job_id))
    assert [name for name, _, _ in seen[-2:]] == ["progress", "done"]
    assert seen[-1][2]["links"]["self"] == f"/v1/jobs/{job_id}"
    steps = [data["progress"] for name, _, data in seen if name == "progress"]
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert steps[-1]["done"] == TOLD
    midway = [step for step in steps if 0 < step["done"] < TOLD and step["total"]]
    assert any(step["images_per_s"] and step["eta_s"] for step in midway), steps
    assert all(step["stages"]["embed_s"] > 0 for step in midway)

    middle = seen[len(seen) // 2][1]
    resumed = list(events(stack, job_id, middle))
    assert resumed[-1] == seen[-1]
    assert resumed[0][2]["version"] > int(middle)
    over = stack.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": seen[-1][1]})
    assert over.status_code == 204

    sent = until(lambda: [asked for asked in site.asked if asked.path == "/hook"], 120, stack.logs)[0]
    secret = stack.env["LOOKALIKE_WEBHOOK_SECRET"].encode()
    headers = sent.headers
    signed = documented_signature()(secret, headers["webhook-id"], headers["webhook-timestamp"], sent.body)
    assert hmac.compare_digest(signed, headers["webhook-signature"])
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    record = json.loads(sent.body)
    assert (record["id"], record["state"], record["progress"]["stored"]) == (job_id, "succeeded", TOLD)
    until(lambda: stack.job(job_id)["webhook"]["state"] == "delivered", 120, stack.logs)


def test_a_queued_job_knows_how_many_come_before_it(stack: Stack) -> None:
    draw(stack.root / "queued", a=51)
    pid = stack.pid("worker-ingest-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        jobs = [stack.ingest("queued", collection="queued") for _ in range(3)]
        places = [stack.job(job_id)["progress"]["position"] for job_id in jobs]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert places == [0, 1, 2]
    for job_id in jobs:
        assert stack.finished(job_id)["progress"]["position"] is None


# --- Pause, cancel, shares ---


def test_a_paused_ingest_stands_still_through_a_dead_worker_and_then_ends_with_exact_counts(stack: Stack) -> None:
    draw_many(stack.root / "paused", 2000, PAUSED)
    draw(stack.root / "beside", a=52)

    def let_others_pass() -> dict[str, Any]:
        """Once another job is done, the only worker has let go of this one."""
        stack.finished(stack.ingest("beside", collection="beside"))
        return stack.job(job_id)

    job_id = stack.ingest("paused", collection="paused")
    until(lambda: stack.job(job_id)["progress"]["done"], 120, stack.logs)
    asked = stack.http.post(f"/v1/jobs/{job_id}/pause")
    assert (asked.status_code, asked.json()["paused"]) == (202, True)
    stood = let_others_pass()
    assert (stood["state"], stood["paused"]) == ("running", True)
    assert 0 < stood["progress"]["done"] < PAUSED
    pid = stack.kill("worker-ingest-1")
    until(lambda: stack.pid("worker-ingest-1") != pid and stack.is_ready(), 180, stack.logs)
    assert let_others_pass() == stood

    assert stack.http.post(f"/v1/jobs/{job_id}/resume").json()["paused"] is False
    assert counts(stack.finished(job_id)) == {"added": PAUSED}
    assert stack.count("paused") == PAUSED


def test_a_small_ingest_passes_a_large_one_and_a_high_priority_a_low_one(stack: Stack) -> None:
    draw_many(stack.root / "large", 3000, 1000)  # It is cancelled in the end, long before it is through.
    draw_many(stack.root / "small", 4000, 16)
    draw_many(stack.root / "urgent", 5000, URGENT)
    large = stack.ingest("large", collection="large", priority="low")
    until(lambda: stack.job(large)["progress"]["done"], 120, stack.logs)
    small = stack.ingest("small", collection="small", priority="low")
    assert counts(stack.finished(small)) == {"added": 16}
    assert stack.job(large)["state"] == "running"

    urgent = stack.ingest("urgent", collection="urgent", priority="high")
    began = stack.job(large)["progress"]["done"]
    assert counts(stack.finished(urgent)) == {"added": URGENT}
    passed = stack.job(large)
    assert passed["state"] == "running"
    # Of five turns it has one; half of them would be as many as the urgent one's, and then some until it was looked at.
    assert passed["progress"]["done"] - began < URGENT * 3 // 4

    stack.http.post(f"/v1/jobs/{large}/cancel")
    ended = stack.finished(large, timeout_s=120)
    assert ended["state"] == "cancelled"
    assert stack.count("large") == ended["progress"]["stored"]


def test_ctrl_c_leaves_the_ingest_running_and_says_how_to_come_back(stack: Stack) -> None:
    draw_many(stack.root / "left", 6000, 48)
    command = [LOOKALIKE, "ingest", str(stack.root / "left"), "--collection", "left"]
    with subprocess.Popen(command, env=stack.environ, stderr=subprocess.PIPE, text=True) as process:
        job = until(lambda: _newest(stack, "left"), 120, stack.logs)
        assert stack.http.post(f"/v1/jobs/{job}/pause").status_code == 202  # Else it may end first.
        log = stack.data_dir / "logs" / "web.log"
        until(lambda: f'"/v1/jobs/{job}"' in log.read_text(), 120, stack.logs)  # It has begun to wait.
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said = process.stderr.read()
    assert process.returncode == 130
    assert f"The job goes on. Wait for it with: lookalike jobs wait {job}" in said
    come_back = re.search(r"lookalike (jobs wait \w+)", said)
    assert come_back
    assert stack.http.post(f"/v1/jobs/{job}/resume").status_code == 202
    done = stack.cli(*come_back[1].split())
    assert done.returncode == 0, done.stderr
    assert counts(stack.job(job)) == {"added": 48}


def _newest(stack: Stack, collection: str) -> str | None:
    jobs = stack.http.get("/v1/jobs", params={"limit": 5}).json()["jobs"]
    return next((job["id"] for job in jobs if job["request"]["collection"] == collection), None)


# --- Clean-up ---


def test_what_nobody_uses_is_named_by_a_dry_run_and_then_removed(stack: Stack) -> None:
    used, unused = picture(61), picture(62)
    answer = stack.http.post("/v1/ingests", files=[("image", ("u.png", used))], data={"collection": "kept"})
    stack.finished(answer.json()["id"])
    sha256 = {}
    for content in (used, unused):
        record = stack.http.post("/v1/uploads", json={"size": len(content)}).json()
        headers = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        ended = stack.http.patch(f"/v1/uploads/{record['id']}", content=content, headers=headers).json()
        sha256[content] = ended["sha256"]
    fresh = stack.http.post("/v1/gc", json={"dry_run": False}).json()
    assert (fresh["uploads"], fresh["parts"]) == (0, 0), "nothing younger than a day goes"
    for path in (stack.data_dir / "uploads").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)  # a day, without the wait for it

    would = stack.http.post("/v1/gc", json={"dry_run": True}).json()
    assert would["dry_run"]
    assert would["uploads"] >= 1
    assert would["freed_bytes"] >= len(unused)
    told = stack.cli("gc", "--dry-run", "--json")
    assert json.loads(told.stdout) == would, told.stderr
    assert "Nothing was removed yet" in told.stderr
    done = stack.cli("gc", "--json")
    assert json.loads(done.stdout) == {**would, "dry_run": False}, done.stderr
    left = stack.http.post("/v1/gc", json={}).json()
    assert (left["uploads"], left["freed_bytes"]) == (0, 0)

    hit = rows(stack, "kept")[f"upload:{sha256[used]}"]
    assert stack.http.get(f"/v1/images/{hit['id']}/content", params={"collection": "kept"}).content == used
    missing = {"source": {"type": "upload", "files": [{"sha256": sha256[unused], "name": "x.png"}]}}
    assert stack.http.post("/v1/ingests", json=missing).json()["code"] == "upload_not_found"
