"""What a parked request keeps, and what it leaves."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, Response, g

from fakes import Web, build_web
from lookalike.errors import QueueUnavailable
from lookalike.records import FolderSource, IngestRequest, JobKind, JobRecord
from lookalike_web.waiting import Parked, WaitGate


class Body:
    """What a view made of a request."""


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return build_web(tmp_path)


def answered(_: JobRecord) -> Response:
    return Response("done")


def parked_in(web: Web, work: Callable[[JobRecord], Parked]) -> Parked:
    record, _ = web.jobs.create(JobKind.INGEST, IngestRequest(source=FolderSource(path=".")))
    with Flask(__name__).test_request_context():
        g.request_id, g.started = "r1", 0.0
        return work(record)


def test_a_parked_request_keeps_nothing_of_what_it_was_made_of(web: Web) -> None:
    seen: list[weakref.ref[Body]] = []

    def view(record: JobRecord) -> None:
        body = Body()
        seen.append(weakref.ref(body))
        raise Parked(record.id, answered, until_s=0)

    def handle(record: JobRecord) -> Parked:
        try:
            view(record)
        except Parked as parked:
            return parked.alone()
        raise AssertionError

    parked = parked_in(web, handle)
    gc.collect()
    assert parked.job_id
    assert seen[0]() is None
    web.close()


def test_a_request_whose_job_cannot_be_looked_at_leaves_no_subscription(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []

    def away(_: str) -> JobRecord:
        raise QueueUnavailable

    monkeypatch.setattr(web.jobs, "heed", lambda _job, _wake: lambda: left.append(True))
    gate = WaitGate(web.jobs, slots=1, max_wait_s=60)

    def handle(record: JobRecord) -> Parked:
        monkeypatch.setattr(web.jobs, "get", away)
        parked = Parked(record.id, answered, until_s=float("inf"))
        with pytest.raises(QueueUnavailable):
            gate.resume(parked)
        return parked

    parked_in(web, handle)
    assert left == [True]
    web.close()
