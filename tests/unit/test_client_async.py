"""The client for an event loop, over a service that a test plays."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import test_client
from test_client import DONE, LIMITS, RECORD, answer

from lookalike import AsyncClient, JobFailed, ServiceUnreachable, WaitTimeout
from lookalike.client import asynchronous
from lookalike.errors import JobNotFound
from lookalike.records import Progress

no_settings_from_outside = test_client.no_settings_from_outside


def client_of(handler: Callable[[httpx2.Request], httpx2.Response], **options: Any) -> AsyncClient:
    return AsyncClient("http://service.test", transport=httpx2.MockTransport(handler), **options)


def found(*ids: str) -> dict[str, Any]:
    queries = [{"query": {"image_id": one}, "error": None, "hits": []} for one in ids]
    result = {"collection": "default", "metric": "COSINE", "model": None, "queries": queries}
    return {**DONE, "kind": "search", "result": result}


def test_a_search_that_takes_several_requests_is_one_result_in_order() -> None:
    def service(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/info":
            return answer(200, {"limits": {**LIMITS, "max_queries": 2}})
        return answer(202, found(*(query["image_id"] for query in json.loads(request.content)["queries"])))

    async def run() -> list[str]:
        async with client_of(service) as client:
            result = await client.search(image_ids=["a" * 32, "b" * 32, "c" * 32])
            return [query.query["image_id"][0] for query in result.queries]

    assert asyncio.run(run()) == ["a", "b", "c"]


def test_a_hundred_jobs_are_waited_for_side_by_side_in_one_thread() -> None:
    looked: set[str] = set()

    def service(request: httpx2.Request) -> httpx2.Response:
        job_id = request.url.path.rpartition("/")[2]
        if job_id in looked:
            return answer(200, {**DONE, "id": job_id})
        if request.url.params.get("wait"):
            looked.add(job_id)
        return answer(200, {**RECORD, "id": job_id})

    async def run() -> set[str]:
        async with client_of(service) as client:
            jobs = await asyncio.gather(*(client.job(f"{number:03}") for number in range(100)))
            return {record.state for record in await asyncio.gather(*(job.wait() for job in jobs))}

    assert asyncio.run(run()) == {"succeeded"}
    assert len(looked) == 100


def test_an_ingest_is_waited_for_with_its_failures() -> None:
    ledger = {"uri": "file:///a", "code": "image_corrupt", "message": "Broken.", "stage": "decode", "attempts": 1}
    final = {**DONE, "progress": {"total": 1, "done": 1, "failed": 1}, "failure_counts": {"image_corrupt": 1}}

    def service(request: httpx2.Request) -> httpx2.Response:
        match request.url.path:
            case "/v1/ingests":
                return answer(202, RECORD)
            case "/v1/jobs/01J/failures":
                return answer(200, {"failures": [ledger], "next_cursor": None})
        return answer(200, final)

    async def run() -> list[str]:
        async with client_of(service) as client:
            summary = await client.ingest(folder="photos")
            return [failure.code for failure in summary.failures]

    assert asyncio.run(run()) == ["image_corrupt"]


def test_errors_are_those_of_the_other_client() -> None:
    failed = {**DONE, "state": "failed", "error": {"code": "source_empty", "message": "Nothing there."}}

    def service(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("gone"):
            return answer(404, {"code": "job_not_found", "detail": "It is gone."})
        return answer(200, failed)

    async def run() -> None:
        async with client_of(service) as client:
            with pytest.raises(JobNotFound):
                await client.job("gone")
            job = await client.job("01J")
            with pytest.raises(JobFailed, match="Nothing there"):
                await job.result()

    asyncio.run(run())


def test_a_busy_service_is_asked_again_and_one_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asynchronous.asyncio, "sleep", sleep)
    answers = [answer(503, {"code": "queue_full", "detail": "Full."}, Retry_After="1"), answer(200, DONE)]

    def away(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    async def run() -> None:
        async with client_of(lambda _: answers.pop(0)) as client:
            assert (await client.job("01J")).record.state.final
        async with client_of(away, timeout_s=0.1) as client:
            with pytest.raises(ServiceUnreachable):
                await client.job("01J")

    asyncio.run(run())
    assert slept[0] == 1.0


def test_a_wait_tells_progress_and_ends_at_its_time() -> None:
    seen: list[Progress] = []

    async def run() -> None:
        async with client_of(lambda _: answer(200, RECORD)) as client:
            job = await client.job("01J")
            with pytest.raises(WaitTimeout):
                await job.wait(timeout_s=0.05, on_progress=seen.append)
            assert await client.ask(lambda other: other.url) == "http://service.test"

    asyncio.run(run())
    assert len(seen) >= 1
