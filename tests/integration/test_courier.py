"""Webhooks, from a real job store to real receivers."""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lookalike.jobstore import JobStore
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import JobKind, JobRecord, Query, SearchRequest, Webhook
from lookalike.settings import Settings
from lookalike_worker.courier import MAX_BODY_BYTES, Courier, body_of, signature
from loopback import Asked, Reply, Site, serve
from ports import free_port
from redis_server import start_redis, valkey_binary

SECRET = "a secret that both sides know"
WITHIN_S = 60.0

Start = Callable[..., Courier]


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def settings_of(redis_url: str, **values: object) -> Settings:
    defaults = {"redis_url": redis_url, "webhook_secret": SECRET, "webhook_private": True, "webhook_attempts": 3}
    return Settings.model_validate(defaults | values)


@pytest.fixture
def jobs(redis_url: str) -> Iterator[JobStore]:
    store = RedisJobStore.connect(settings_of(redis_url))
    yield store
    store.close()


@pytest.fixture
def start(jobs: JobStore, redis_url: str) -> Iterator[Start]:
    started: list[Courier] = []

    def run(jobs: JobStore = jobs, *, timeout_s: float = 5.0, **values: object) -> Courier:
        settings = settings_of(redis_url, **values)
        courier = Courier(jobs, settings, every_s=0.05, timeout_s=timeout_s, first_pause_s=0.1)
        courier.start()
        started.append(courier)
        return courier

    yield run
    for courier in started:
        courier.stop()


def end_job(jobs: JobStore, url: str) -> JobRecord:
    """A job that is over, and whose sender wants to hear of it."""
    request = SearchRequest(queries=(Query(image_id="0" * 32),), webhook=Webhook(url=url))
    job, _ = jobs.create(JobKind.SEARCH, request)
    return jobs.cancel(job.id)


def delivered(jobs: JobStore, job: JobRecord) -> Any:
    """The state of a job's webhook, once it is one that stays."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        webhook = jobs.get(job.id).webhook
        if webhook and webhook.state != "waiting":
            return webhook
        time.sleep(0.02)
    raise AssertionError(f"the webhook still waits: {jobs.get(job.id).webhook}")


def test_a_finished_job_is_told_once_with_a_signature_over_what_was_sent(
    site: Site, jobs: JobStore, start: Start
) -> None:
    job = end_job(jobs, site.page("/hook", Reply(204)))
    start()
    start()  # a second worker delivers nothing twice
    assert delivered(jobs, job).model_dump() == {"state": "delivered", "attempts": 1, "error": None}
    time.sleep(0.2)
    (asked,) = site.asked
    assert asked.method == "POST"
    assert asked.headers["content-type"] == "application/json"
    told = JobRecord.model_validate_json(asked.body)
    assert (told.id, told.state, told.links) == (job.id, job.state, {"self": f"/v1/jobs/{job.id}"})

    message_id, timestamp = asked.headers["webhook-id"], asked.headers["webhook-timestamp"]
    assert message_id == job.id
    assert abs(int(timestamp) - time.time()) < 60
    signed = f"{message_id}.{timestamp}.".encode() + asked.body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert asked.headers["webhook-signature"] == f"v1,{expected}"


def test_a_receiver_in_trouble_is_tried_again_with_the_same_message(site: Site, jobs: JobStore, start: Start) -> None:
    answers = [500, 302, 200]
    url = site.page("/hook", lambda _: Reply(answers.pop(0), headers={"Location": site.url("/elsewhere")}))
    job = end_job(jobs, url)
    start()
    assert delivered(jobs, job).model_dump() == {"state": "delivered", "attempts": 3, "error": None}
    assert len({asked.headers["webhook-id"] for asked in site.asked}) == 1
    assert {asked.path for asked in site.asked} == {"/hook"}  # the redirect was not followed


def test_a_delivery_is_given_up_after_its_attempts_and_says_why(site: Site, jobs: JobStore, start: Start) -> None:
    job = end_job(jobs, site.page("/hook", Reply(503, headers={"Retry-After": "60"})))
    start()
    webhook = delivered(jobs, job)
    assert (webhook.state, webhook.attempts) == ("failed", 3)
    assert "503" in webhook.error
    assert len(site.asked) == 3


@pytest.mark.parametrize(
    ("values", "asked", "says"),
    [({}, 1, "410"), ({"webhook_private": False, "fetch_private": True}, 0, "network")],
)
def test_who_wants_no_more_and_who_may_not_be_told_is_not_tried_again(
    site: Site, jobs: JobStore, start: Start, values: dict[str, object], asked: int, says: str
) -> None:
    job = end_job(jobs, site.page("/hook", Reply(410)))
    start(fetch_ports=(site.port,), **values)
    webhook = delivered(jobs, job)
    assert (webhook.state, webhook.attempts) == ("failed", 1)
    assert says in webhook.error
    assert len(site.asked) == asked


def test_a_receiver_that_does_not_answer_holds_nobody_up(site: Site, jobs: JobStore, start: Start) -> None:
    others_are_done = threading.Event()

    def slow(_: Asked) -> Reply:
        others_are_done.wait(2 * WITHIN_S)
        return Reply()

    hanging = end_job(jobs, site.page("/slow", slow))
    others = [end_job(jobs, site.page("/hook", Reply())) for _ in range(6)]
    start(timeout_s=2 * WITHIN_S)
    try:
        for job in others:
            assert delivered(jobs, job).state == "delivered"
    finally:
        others_are_done.set()
    assert delivered(jobs, hanging).model_dump() == {"state": "delivered", "attempts": 1, "error": None}


def test_a_worker_without_the_secret_leaves_deliveries_to_one_that_has_it(
    site: Site, jobs: JobStore, start: Start
) -> None:
    job = end_job(jobs, site.page("/hook", Reply()))
    start(webhook_secret=None).join(60)
    start()
    assert delivered(jobs, job).attempts == 1


def test_deliveries_go_on_when_redis_is_back(site: Site, tmp_path: Path, start: Start) -> None:
    port = free_port()
    with start_redis(valkey_binary(), tmp_path, port=port, options=("--appendfsync", "always")) as url:
        store = RedisJobStore.connect(settings_of(url))
        job = end_job(store, site.page("/hook", Reply()))
    courier = start(store)
    time.sleep(0.3)
    assert courier.is_alive()
    with start_redis(valkey_binary(), tmp_path, port=port):
        assert delivered(store, job).state == "delivered"
        courier.stop()
    store.close()


def test_a_result_too_large_for_a_message_is_left_out(jobs: JobStore) -> None:
    job = end_job(jobs, "http://127.0.0.1/")
    small = job.model_copy(update={"result": {"queries": ["x"]}})
    large = job.model_copy(update={"result": {"queries": ["x" * MAX_BODY_BYTES]}})
    assert JobRecord.model_validate_json(body_of(small)).result == {"queries": ["x"]}
    assert JobRecord.model_validate_json(body_of(large)).result is None


def test_the_signature_is_that_of_the_standard_webhooks_specification() -> None:
    # The example of the specification's reference libraries.
    secret, message_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signed = signature(secret, message_id, 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
