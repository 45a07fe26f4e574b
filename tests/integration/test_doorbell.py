"""The doorbell on a real Redis: what a message holds, and how many there are."""

import json
import time

import pytest
import redis
from celery import Celery

from lookalike.broker import TASK_NAMES, Doorbell, celery_config
from lookalike.errors import QueueUnavailable
from lookalike.jobstore import Lane
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import FolderSource, IngestRequest, JobKind
from lookalike.settings import Settings
from lookalike_worker.sweeper import sweep_once


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url)


def test_a_message_carries_nothing_and_goes_to_its_lane_only(settings: Settings, redis_url: str) -> None:
    Doorbell.connect(settings).ring(Lane.SEARCH)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        (message,) = client.lrange("search", 0, -1)
        assert client.llen("ingest") == 0
    assert len(message) < 2000
    parsed = json.loads(message)
    assert parsed["headers"]["task"] == "lookalike.search"
    assert (parsed["headers"]["argsrepr"], parsed["headers"]["kwargsrepr"]) == ("()", "{}")


@pytest.mark.parametrize("lane", Lane)
def test_a_message_is_what_celery_would_send_with_ids_of_its_own(
    settings: Settings, redis_url: str, lane: Lane
) -> None:
    app = Celery("lookalike", set_as_current=False)
    app.conf.update(celery_config(settings, socket_timeout_s=5))
    app.send_task(TASK_NAMES[lane])
    doorbell = Doorbell.connect(settings)
    doorbell.ring(lane, times=2)
    doorbell.ring(lane)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        sent, *rung = (json.loads(message) for message in client.lrange(lane, 0, -1)[::-1])
    ids = set()
    for message in (sent, *rung):
        headers, properties = message["headers"], message["properties"]
        task_id, _ = headers.pop("id"), properties.pop("reply_to")
        assert task_id == headers.pop("root_id") == properties.pop("correlation_id")
        ids |= {task_id, properties.pop("delivery_tag")}
    assert len(ids) == 2 * 4
    assert rung == [sent] * 3


def test_the_sweeper_rings_once_for_each_piece_of_waiting_work_however_often_it_sweeps(settings: Settings) -> None:
    jobs, doorbell = RedisJobStore.connect(settings), Doorbell.connect(settings)
    for _ in range(3):
        jobs.create(JobKind.INGEST, IngestRequest(source=FolderSource(path="photos")))
    for _ in range(4):
        sweep_once(jobs, doorbell)
        assert (doorbell.pending(Lane.INGEST), doorbell.pending(Lane.SEARCH)) == (3, 0)
    jobs.close()


def test_a_doorbell_nobody_can_hear_does_not_hold_up_its_ringer() -> None:
    doorbell = Doorbell.connect(Settings(redis_url="redis://127.0.0.1:1/0"))
    began = time.monotonic()
    doorbell.ring(Lane.INGEST)
    assert time.monotonic() - began < 30
    with pytest.raises(QueueUnavailable):
        doorbell.pending(Lane.INGEST)
