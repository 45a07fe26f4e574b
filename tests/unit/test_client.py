import io
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageOps

from lookalike import Client, JobCancelled, JobFailed, LookalikeError, ServiceUnreachable, WaitTimeout
from lookalike.client import Job, JobGroup, connection, job
from lookalike.client.parts import Part, file_part
from lookalike.client.upload import Bounds, Uploader
from lookalike.errors import (
    CollectionExists,
    FileMissing,
    FileTooLarge,
    FolderNotFound,
    InvalidParameter,
    InvalidRequest,
    JobNotFound,
    ModelMismatch,
    QueueFull,
    TooManyItems,
    Unauthorized,
    UnsupportedFormat,
)
from lookalike.records import Failure, Progress

Handler = Callable[[httpx2.Request], httpx2.Response]

LIMITS = {"max_upload_bytes": 64 << 20, "max_upload_images": 200, "max_file_bytes": 128 << 20, "max_queries": 64}
RECORD = {
    "id": "01J",
    "kind": "ingest",
    "state": "queued",
    "created_at": "2026-01-01T00:00:00Z",
    "request": {"collection": "default"},
}
DONE = {**RECORD, "state": "succeeded", "finished_at": "2026-01-01T00:00:09Z"}
FOUND = {"collection": "default", "metric": "COSINE", "model": None, "queries": []}


def answer(status: int, body: Any, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=body, headers={key.replace("_", "-"): value for key, value in headers.items()})


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    return answer(status, {"code": code, "detail": f"It is {code}.", "request_id": "r1"}, **headers)


def client_of(handler: Handler, **options: Any) -> Client:
    return Client("http://service.test", transport=httpx2.MockTransport(handler), **options)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOOKALIKE_")]:
        monkeypatch.delenv(name)


class Clock:
    """Time that passes only where somebody sleeps, or a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (connection, job):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Script:
    """Answers the calls one by one; an exception is raised, the last answer goes on for ever."""

    def __init__(self, *steps: httpx2.Response | Exception) -> None:
        self.steps = list(steps)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx2.Response(step.status_code, content=step.content, headers=step.headers)


# --- Errors ---------------------------------------------------------------------------------------------------------


def test_a_problem_document_is_raised_as_the_class_of_its_code() -> None:
    with pytest.raises(JobNotFound, match="It is job_not_found"):
        client_of(Script(problem(404, "job_not_found"))).jobs.get("01J")


def test_a_code_from_a_newer_service_is_kept_on_the_base_class() -> None:
    with pytest.raises(LookalikeError) as caught:
        client_of(Script(problem(418, "teapot"))).jobs.get("01J")
    assert caught.value.code == "teapot"
    assert LookalikeError.code == "internal_error"


def test_an_internal_error_tells_the_request_id_to_look_for_in_the_log() -> None:
    with pytest.raises(LookalikeError) as caught:
        client_of(Script(problem(500, "internal_error"))).info()
    assert "r1" in caught.value.__notes__[0]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]"])
def test_another_server_at_the_address_is_not_taken_for_the_service(body: bytes) -> None:
    with pytest.raises(ServiceUnreachable, match="HTTP 404"):
        client_of(Script(httpx2.Response(404, content=body))).jobs.get("01J")
    with pytest.raises(ServiceUnreachable, match="HTTP 200"):
        client_of(Script(httpx2.Response(200, content=body))).jobs.get("01J")


@pytest.mark.parametrize("url", ["service.test", "ftp://service.test", "http://", "http://[::1"])
def test_what_is_not_a_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a URL"):
        Client(url)


def test_fields_that_a_newer_service_has_added_are_ignored() -> None:
    record = {**RECORD, "new": 1, "progress": {"total": 3, "newer": 2}}
    assert client_of(Script(answer(200, record))).jobs.get("01J").progress.total == 3


def test_the_api_key_is_sent_as_a_bearer_token_and_a_wrong_one_is_refused() -> None:
    script = Script(problem(401, "unauthorized"))
    with pytest.raises(Unauthorized):
        client_of(script, api_key="secret").info()
    assert script.requests[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("code", "ask", "name"),
    [
        ("job_not_found", lambda client: client.jobs.get("01JNO"), "01JNO"),
        ("job_expired", lambda client: client.jobs.get("01JNO"), "01JNO"),
        ("collection_not_found", lambda client: client.collections.get("spring"), "spring"),
        ("collection_not_found", lambda client: client.collections.delete("spring"), "spring"),
        ("collection_not_found", lambda client: client.images.get("0" * 32, collection="spring"), "spring"),
        ("image_not_found", lambda client: client.images.delete("0" * 32), "0" * 32),
        ("image_not_found", lambda client: client.search(image_ids=["0" * 32], wait=False), "0" * 32),
        ("file_missing", lambda client: client.search(server_paths=["a/b.jpg"], wait=False), "a/b.jpg"),
    ],
)
def test_an_error_names_what_is_not_there(code: str, ask: Callable[[Client], Any], name: str) -> None:
    script = Script(answer(200, {"limits": LIMITS}), problem(404, code))
    client = client_of(script)
    assert client._bounds.max_queries == 64
    with pytest.raises(LookalikeError) as caught:
        ask(client)
    assert (caught.value.code, caught.value.message) == (code, f"{name}: It is {code}.")


def test_the_picture_that_a_search_is_refused_for_is_named(tmp_path: Path) -> None:
    for name in ("page.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"x")
    refusal = {"code": "unsupported_format", "detail": "The file is no image.", "name": "other.jpg"}
    for names, culprit in ((["page.jpg"], "page.jpg"), (["page.jpg", "other.jpg"], "other.jpg")):
        client = client_of(Script(answer(200, {"limits": LIMITS}), answer(422, refusal)))
        with pytest.raises(UnsupportedFormat, match=rf"^{culprit}: The file is no image\.$"):
            client.search(*(tmp_path / name for name in names), wait=False)


# --- Repeating ------------------------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_after_the_time_it_names(clock: Clock) -> None:
    script = Script(problem(503, "queue_unavailable", Retry_After="5"), answer(200, RECORD))
    assert client_of(script).jobs.get("01J").id == "01J"
    assert clock.slept == [5.0]


@pytest.mark.usefixtures("clock")
def test_repeating_for_more_than_a_few_seconds_is_told_once() -> None:
    told: list[str] = []
    busy = [problem(503, "queue_unavailable", Retry_After="2") for _ in range(4)]
    script = Script(*busy, answer(200, RECORD))
    client = client_of(script, on_retry=lambda: told.append(f"after {len(script.requests)}"))
    client.jobs.get("01J")
    assert told == ["after 2"]


def test_repeating_ends_with_the_timeout_and_raises_what_the_service_said(clock: Clock) -> None:
    with pytest.raises(QueueFull):
        client_of(Script(problem(503, "queue_full", Retry_After="4")), timeout_s=10).ingest(folder="photos")
    assert clock.now == 8.0


@pytest.mark.usefixtures("clock")
def test_a_proxy_without_its_service_is_waited_for_and_then_reported_as_unreachable() -> None:
    script = Script(httpx2.Response(502, content=b"<html>"), httpx2.Response(504), answer(200, RECORD))
    assert client_of(script).jobs.get("01J").id == "01J"
    with pytest.raises(ServiceUnreachable, match="HTTP 502"):
        client_of(Script(httpx2.Response(502))).jobs.get("01J")


@pytest.mark.usefixtures("clock")
def test_an_answer_that_is_final_is_not_asked_for_twice() -> None:
    script = Script(problem(502, "vector_store_rejected"))
    with pytest.raises(LookalikeError) as caught:
        client_of(script).collections.list()
    assert (caught.value.code, len(script.requests)) == ("vector_store_rejected", 1)


@pytest.mark.usefixtures("clock")
def test_a_submit_whose_answer_was_lost_is_repeated_under_the_same_key() -> None:
    script = Script(httpx2.ReadError("reset"), problem(409, "idempotency_conflict"), answer(202, RECORD))
    started = client_of(script).ingest(folder="photos", wait=False)
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert isinstance(started, Job)
    assert (len(script.requests), len(keys)) == (3, 1)


def test_two_submits_have_two_keys() -> None:
    script = Script(answer(202, RECORD))
    client = client_of(script)
    for _ in range(2):
        client.ingest(folder="photos", wait=False)
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 2


@pytest.mark.usefixtures("clock")
def test_a_deletion_is_repeated_only_where_it_cannot_have_been_done() -> None:
    script = Script(httpx2.ConnectError("refused"), httpx2.Response(204))
    client_of(script).collections.delete("spring")
    assert len(script.requests) == 2
    script = Script(httpx2.ReadError("reset"), httpx2.Response(204))
    with pytest.raises(ServiceUnreachable):
        client_of(script).collections.delete("spring")
    assert len(script.requests) == 1


def test_a_conflict_that_is_none_of_keys_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(CollectionExists):
        client_of(Script(problem(409, "collection_exists"))).collections.create("spring")
    assert clock.slept == []


def test_a_service_that_was_never_there_is_given_up_soon(clock: Clock) -> None:
    with pytest.raises(ServiceUnreachable, match="lookalike up"):
        client_of(Script(httpx2.ConnectError("refused")), timeout_s=30).info()
    assert 0 < clock.now <= 1.5


# --- Waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clock")
def test_waiting_holds_requests_at_the_service_until_the_job_is_final() -> None:
    script = Script(answer(200, RECORD), answer(200, {**RECORD, "state": "running"}), answer(200, DONE))
    waiting = client_of(script).jobs.get("01J")
    assert waiting.wait().state == "succeeded"
    assert [request.url.params.get("wait") for request in script.requests[1:]] == ["30.0"] * 2


@pytest.mark.usefixtures("clock")
def test_progress_is_told_at_every_look_and_at_the_end() -> None:
    looks = [answer(200, {**RECORD, "progress": {"total": 4, "done": done}}) for done in (1, 3)]
    script = Script(answer(200, RECORD), *looks, answer(200, {**DONE, "progress": {"total": 4, "done": 4}}))
    seen: list[Progress] = []
    client_of(script).jobs.get("01J").wait(on_progress=seen.append)
    assert [progress.done for progress in seen] == [0, 1, 3, 4]


@pytest.mark.usefixtures("clock")
def test_a_service_that_holds_no_request_is_not_asked_without_pause() -> None:
    script = Script(answer(200, RECORD))
    with pytest.raises(WaitTimeout, match="still queued after 10 seconds"):
        client_of(script).jobs.get("01J").wait(timeout_s=10)
    assert len(script.requests) <= 12


def test_waiting_survives_a_restart_of_the_service(clock: Clock) -> None:
    script = Script(answer(200, RECORD), *[httpx2.ConnectError("refused")] * 20, answer(200, DONE))
    assert client_of(script, timeout_s=5).jobs.get("01J").wait().state == "succeeded"
    assert clock.now > 30


def test_waiting_for_a_service_that_stays_away_ends(clock: Clock) -> None:
    script = Script(answer(200, RECORD), httpx2.ConnectError("refused"))
    with pytest.raises(ServiceUnreachable):
        client_of(script).jobs.get("01J").wait()
    assert clock.now <= 60


def test_the_result_of_a_failed_job_raises_with_its_reason_as_the_cause() -> None:
    failed = {**DONE, "state": "failed", "error": {"code": "model_mismatch", "message": "Another model."}}
    with pytest.raises(JobFailed, match="Another model") as caught:
        client_of(Script(answer(200, failed))).jobs.get("01J").result()
    assert isinstance(caught.value.__cause__, ModelMismatch)


def test_the_result_of_a_cancelled_job_raises() -> None:
    with pytest.raises(JobCancelled):
        client_of(Script(answer(200, {**DONE, "state": "cancelled"}))).jobs.get("01J").result()


@pytest.mark.usefixtures("clock")
def test_several_jobs_are_watched_in_turn_and_their_progress_added_up() -> None:
    looks = {"a": 0, "b": 0}
    order: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.rsplit("/", 1)[1]
        looks[name] += 1
        order.append(name)
        state = "succeeded" if looks[name] > 3 else "running"
        return answer(
            200,
            {
                **RECORD,
                "id": name,
                "state": state,
                "progress": {"total": 4, "done": looks[name], "stored": looks[name]},
            },
        )

    client = client_of(handler)
    group = JobGroup([client.jobs.get("a"), client.jobs.get("b")])
    seen: list[int] = []
    group.wait(on_progress=lambda progress: seen.append(progress.done))
    assert (group.progress.done, group.progress.total) == (8, 8)
    assert seen == list(range(2, 9))
    assert order == ["a", "b"] * 4


def test_the_failures_ledger_is_read_to_its_last_page() -> None:
    line = {"uri": "file:///a", "code": "file_empty", "message": "It is empty.", "stage": "read", "attempts": 1}

    def handler(request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/failures"):
            return answer(200, DONE)
        first = "cursor" not in request.url.params
        return answer(200, {"failures": [line] * (2 if first else 1), "next_cursor": "2" if first else None})

    assert len(client_of(handler).jobs.get("01J").failures()) == 3


# --- Uploads --------------------------------------------------------------------------------------------------------


class Uploads:
    """A service that takes uploads and remembers what came in each request."""

    def __init__(self, **limits: int) -> None:
        self.limits = {**LIMITS, **limits}
        self.requests: list[list[str]] = []
        self.bodies: list[int] = []
        self.accepts_bytes: int | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/info":
            return answer(200, {"limits": self.limits})
        if request.method == "GET":
            return answer(200, DONE)
        body = request.read()
        if self.accepts_bytes is not None and len(body) > self.accepts_bytes:
            return httpx2.Response(413, content=b"<html>nginx")
        self.bodies.append(len(body))
        self.requests.append([part.split(b'"', 1)[0].decode() for part in body.split(b'filename="')[1:]])
        return answer(202, {**DONE, "id": f"job{len(self.requests)}", "progress": {"done": 1, "total": 1, "stored": 1}})

    @property
    def names(self) -> list[str]:
        return sorted(name for request in self.requests for name in request)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(b"x" * 30_000)
    return folder


def test_a_folder_is_uploaded_in_requests_of_bounded_images(photos: Path) -> None:
    service = Uploads(max_upload_images=3)
    summary = client_of(service).ingest(photos)
    assert sorted(map(len, service.requests)) == [1, 3, 3]
    assert service.names == [f"photos/{number}.jpg" for number in range(7)]
    assert len(summary.jobs) == 3


def test_no_request_is_larger_than_the_service_takes(photos: Path) -> None:
    service = Uploads(max_upload_bytes=100_000)
    client_of(service).ingest(photos, metadata={"note": "x" * 5000})
    assert len(service.names) == 7
    assert all(60_000 < size <= 100_000 for size in service.bodies if size > 40_000)
    assert len(service.bodies) == 4


def test_a_file_that_fits_into_no_request_is_a_failure_and_the_rest_is_sent(photos: Path) -> None:
    (photos / "large.jpg").write_bytes(b"x" * 90_000)
    service = Uploads(max_upload_bytes=80_000)
    summary = client_of(service).ingest(photos)
    assert [(failure.code, failure.uri) for failure in summary.failures] == [
        ("file_too_large", (photos / "large.jpg").as_uri())
    ]
    assert (summary.progress.failed, len(service.names)) == (1, 7)


def test_files_that_cannot_be_sent_are_failures_with_their_reasons(photos: Path) -> None:
    (photos / "empty.png").touch()
    os.mkfifo(photos / "pipe.png")
    summary = client_of(Uploads()).ingest(photos)
    assert {failure.uri.rsplit("/", 1)[1]: failure.code for failure in summary.failures} == {
        "empty.png": "file_empty",
        "pipe.png": "not_regular_file",
    }


def test_listing_takes_images_by_suffix_and_the_globs_of_the_service(photos: Path) -> None:
    for name in (".hidden.jpg", "notes.txt", "0.gif", "sub/deep.PNG"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"x")
    everything, chosen = Uploads(), Uploads()
    client_of(everything).ingest(photos)
    assert set(everything.names) - {f"photos/{n}.jpg" for n in range(7)} == {"photos/0.gif", "photos/sub/deep.PNG"}
    client_of(chosen).ingest(photos, include=["0.*", "*.txt"], exclude=["*.gif"])
    assert chosen.names == ["photos/0.jpg", "photos/notes.txt"]


def test_requests_are_halved_where_a_proxy_takes_less_than_the_service_says(photos: Path) -> None:
    service = Uploads()
    service.accepts_bytes = 70_000
    summary = client_of(service).ingest(photos)
    assert len(service.names) == 7
    assert summary.failures == ()
    service.accepts_bytes = 1000
    assert {failure.code for failure in client_of(service).ingest(photos).failures} == {"file_too_large"}


def run_uploader(parts: list[Part | Failure]) -> tuple[Uploads, JobGroup]:
    service, group = Uploads(), JobGroup()
    client = client_of(service)
    Uploader(client._connection, Bounds(**LIMITS), {}).run(parts, group, on_job=lambda _: None, tick=lambda: None)
    return service, group


def test_files_that_vanish_or_shrink_after_listing_cost_only_themselves(photos: Path) -> None:
    parts: list[Part | Failure] = [file_part(photos / f"{number}.jpg", f"{number}.jpg") for number in range(5)]
    (photos / "1.jpg").unlink()
    (photos / "3.jpg").write_bytes(b"x" * 10)
    service, group = run_uploader(parts)
    assert service.names == ["0.jpg", "2.jpg", "4.jpg"]
    assert sorted(failure.code for failure in group.unsent) == ["file_missing", "image_truncated"]


def test_an_image_that_the_service_refuses_is_found_and_the_others_are_sent(photos: Path) -> None:
    service = Uploads()

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and b'"photos/4.jpg"' in request.read():
            return problem(422, "file_empty")
        return service(request)

    summary = client_of(handler).ingest(photos)
    assert [(failure.code, failure.uri.rsplit("/", 1)[1]) for failure in summary.failures] == [("file_empty", "4.jpg")]
    assert service.names == [f"photos/{number}.jpg" for number in (0, 1, 2, 3, 5, 6)]


def test_what_the_service_refuses_for_all_files_ends_the_ingest_and_tells_the_jobs_that_go_on(photos: Path) -> None:
    service = Uploads(max_upload_images=1)
    jobs: list[Job] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and len(service.requests) >= 2:
            return problem(507, "insufficient_storage")
        return service(request)

    with pytest.raises(LookalikeError) as caught:
        client_of(handler).ingest(photos, on_job=jobs.append)
    assert caught.value.code == "insufficient_storage"
    assert 2 <= len(jobs) < 7


class Drain(httpx2.BaseTransport):
    """Reads bodies as they come and keeps nothing."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/info":
            return answer(200, {"limits": LIMITS})
        assert isinstance(request.stream, httpx2.SyncByteStream)
        assert sum(map(len, request.stream)) == int(request.headers["Content-Length"])
        return answer(202, DONE)


def test_an_upload_holds_neither_its_files_nor_its_body_in_memory(tmp_path: Path) -> None:
    for number in range(3):
        with (tmp_path / f"{number}.jpg").open("wb") as file:
            file.truncate(16 << 20)
    with Client("http://service.test", transport=Drain()) as client:
        client.info()
        tracemalloc.start()
        try:
            client.ingest(tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


# --- What is read in place ------------------------------------------------------------------------------------------


def local_client(handler: Handler) -> Client:
    return Client("http://127.0.0.1:1", transport=httpx2.MockTransport(handler))


def in_place(folders: set[str], uploads: Uploads) -> tuple[Handler, list[str]]:
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.headers.get("Content-Type") != "application/json":
            return uploads(request)
        path = json.loads(request.read())["source"]["path"]
        asked.append(path)
        return answer(202, DONE) if path in folders else problem(404, "folder_not_found")

    return handler, asked


def test_a_local_service_reads_a_folder_itself_where_it_can(photos: Path) -> None:
    uploads = Uploads()
    handler, asked = in_place({str(photos)}, uploads)
    local_client(handler).ingest(photos)
    assert (asked, uploads.requests) == ([str(photos)], [])


def test_a_folder_outside_the_roots_and_a_single_file_are_uploaded(photos: Path) -> None:
    uploads = Uploads()
    handler, asked = in_place(set(), uploads)
    local_client(handler).ingest(photos)
    local_client(handler).ingest(photos / "0.jpg")
    assert asked == [str(photos)]
    assert uploads.names == ["0.jpg", *(f"photos/{number}.jpg" for number in range(7))]


def test_a_remote_service_is_never_asked_for_a_folder_of_this_machine(photos: Path) -> None:
    uploads = Uploads()
    handler, asked = in_place({str(photos)}, uploads)
    client_of(handler).ingest(photos)
    assert (asked, len(uploads.names)) == ([], 7)


def test_a_path_that_is_not_here_is_taken_for_one_of_the_service() -> None:
    handler, asked = in_place({"spring/photos"}, Uploads())
    client_of(handler).ingest("spring/photos")
    assert asked == ["spring/photos"]
    with pytest.raises(FolderNotFound, match="no file or folder"):
        client_of(handler).ingest("autumn/photos")


def test_an_ingest_of_nothing_is_refused_here() -> None:
    with pytest.raises(InvalidRequest, match="nothing to ingest"):
        client_of(Script(answer(202, DONE))).ingest()


def test_upload_can_be_demanded_or_forbidden(photos: Path) -> None:
    uploads = Uploads()
    handler, asked = in_place({str(photos)}, uploads)
    local_client(handler).ingest(photos, upload=True)
    assert (asked, len(uploads.names)) == ([], 7)
    with pytest.raises(FolderNotFound):
        local_client(handler).ingest(photos / "sub", upload=False)
    with pytest.raises(FileMissing):
        local_client(handler).ingest(photos / "sub", upload=True)


# --- Searches -------------------------------------------------------------------------------------------------------


class Searches:
    """A service that answers each query with its own place, and remembers the requests."""

    def __init__(self, **limits: int) -> None:
        self.limits = {**LIMITS, **limits}
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/info":
            return answer(200, {"limits": self.limits})
        body = request.read()
        self.bodies.append(body)
        if request.headers["Content-Type"] == "application/json":
            queries = json.loads(body)["queries"]
        else:
            names = [part.split(b'"', 1)[0].decode() for part in body.split(b'filename="')[1:]]
            queries = [{"upload": {"name": name}} for name in names]
        result = {**FOUND, "took_ms": 1.0, "queries": [{"query": query, "hits": []} for query in queries]}
        return answer(200, {**DONE, "kind": "search", "result": result})


def test_a_search_is_one_request_that_holds_for_its_result(photos: Path) -> None:
    service = Searches()
    result = client_of(service).search(photos / "0.jpg", limit=5, filter="year > 2020", collection="spring")
    assert [query.query for query in result.queries] == [{"upload": {"name": "0.jpg"}}]
    body = service.bodies[0]
    for name, value in {"limit": "5", "filter": "year > 2020", "collection": "spring", "wait": "30.0"}.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    assert len(service.bodies) == 1


def test_a_large_search_is_cut_into_requests_and_answered_in_order(photos: Path) -> None:
    service = Searches(max_queries=2)
    result = client_of(service).search(
        *(photos / f"{number}.jpg" for number in range(3)),
        image_ids=["a" * 32],
        server_paths=["b.jpg"],
        vectors=[(1, 2)],
    )
    assert len(service.bodies) == 4
    assert [next(iter(query.query.values())) for query in result.queries] == [
        *({"name": f"{number}.jpg"} for number in range(3)),
        "a" * 32,
        "b.jpg",
        [1.0, 2.0],
    ]
    assert result.took_ms == 4.0


def test_a_search_without_waiting_is_one_job_or_an_error() -> None:
    client = client_of(Searches(max_queries=2))
    assert client.search(image_ids=["a" * 32], wait=False).record.kind == "search"
    with pytest.raises(TooManyItems):
        client.search(image_ids=["a" * 32] * 3, wait=False)


def test_a_search_for_nothing_or_for_what_is_not_there_is_refused_here(tmp_path: Path) -> None:
    client = client_of(Searches(max_upload_bytes=65_536))
    with pytest.raises(InvalidRequest, match="nothing to search for"):
        client.search()
    with pytest.raises(FileMissing, match=r"no\.jpg"):
        client.search(tmp_path / "no.jpg")
    (tmp_path / "large.jpg").write_bytes(b"x" * 70_000)
    with pytest.raises(FileTooLarge, match=r"large\.jpg"):
        client.search(tmp_path / "large.jpg")
    with pytest.raises(TypeError, match="int"):
        client.search(5)  # type: ignore[call-overload]


def sent_image(body: bytes) -> Image.Image:
    start = body.index(b"\x89PNG")
    return Image.open(io.BytesIO(body[start:]))


def test_a_pil_image_arrives_with_the_same_pixels_and_orientation() -> None:
    picture = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(buffer, "JPEG", exif=exif)
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    service = Searches()
    client_of(service).search(opened)
    arrived = sent_image(service.bodies[0])
    assert ImageOps.exif_transpose(arrived).tobytes() == ImageOps.exif_transpose(opened).tobytes()
    assert ImageOps.exif_transpose(arrived).size == (40, 60)


@pytest.mark.parametrize("mode", ["CMYK", "F", "YCbCr"])
def test_a_pil_image_of_a_mode_that_png_lacks_is_sent_as_rgb(mode: str) -> None:
    service = Searches()
    client_of(service).search(Image.new(mode, (5, 4)))
    assert sent_image(service.bodies[0]).mode == "RGB"


def test_bytes_are_sent_as_they_are() -> None:
    service = Searches()
    client_of(service).search(b"the bytes of an image")
    assert b"\r\n\r\nthe bytes of an image\r\n" in service.bodies[0]


# --- The rest -------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_page_by_page_and_only_as_far_as_asked() -> None:
    pages = iter([("a", "b"), ("c",)])
    asked: list[dict[str, str]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        page = next(pages)
        return answer(
            200, {"jobs": [{**RECORD, "id": name} for name in page], "next_cursor": page[-1] if len(page) > 1 else None}
        )

    listed: Iterator[Job] = client_of(handler).jobs.list(state="queued")
    assert [next(listed).id, next(listed).id] == ["a", "b"]
    assert asked == [{"state": "queued"}]
    assert [job.id for job in listed] == ["c"]
    assert asked[1] == {"state": "queued", "cursor": "b"}


def test_the_collection_is_left_to_the_service_where_nobody_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(answer(202, DONE))
    client_of(script).ingest(folder="photos")
    assert b"collection" not in script.requests[0].content
    monkeypatch.setenv("LOOKALIKE_COLLECTION", "spring")
    client_of(script).ingest(folder="photos")
    assert b'"collection":"spring"' in script.requests[-1].content.replace(b" ", b"")
