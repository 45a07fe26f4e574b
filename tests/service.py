"""A running service as a client sees it: what tests of whole stacks, however they are started, share."""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")

SUBMIT_S = 5.0  #: By when a submit is answered, whatever has become of Redis.
BUSY_S = 10.0  #: What a machine that does much else at the same time may add.


class Service:
    """A service at an address; `logs` is what a test shows when it gives up."""

    def __init__(self, url: str, logs: Callable[[], str] = lambda: "") -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=120)
        self.logs = logs

    def await_ready(self, timeout_s: float = 180) -> None:
        until(self.is_ready, timeout_s, self.logs)

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    def ingest(self, folder: str, **fields: Any) -> str:
        return self.submit({"type": "folder", "path": folder}, **fields)

    def submit(self, source: dict[str, Any], **fields: Any) -> str:
        answer = self.http.post("/v1/ingests", json={"source": source, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, job_id: str, timeout_s: float = 240) -> dict[str, Any]:
        """Return a job's record once it is final, whatever becomes of single requests meanwhile."""

        def final() -> dict[str, Any] | None:
            try:
                answer = self.http.get(f"/v1/jobs/{job_id}", params={"wait": 5})
            except httpx2.HTTPError:
                return None
            record = answer.json()
            return record if answer.status_code == 200 and record["finished_at"] else None

        return until(final, timeout_s, lambda: f"{self.job(job_id)}\n{self.logs()}")

    def search(self, collection: str, *queries: dict[str, Any], limit: int = 3, **fields: Any) -> dict[str, Any]:
        body = {"collection": collection, "queries": list(queries), "limit": limit, "wait": 30, **fields}
        answer = self.http.post("/v1/searches", json=body)
        assert answer.status_code in {200, 202}, answer.text
        record = self.finished(answer.json()["id"])
        assert record["state"] == "succeeded", record
        return record["result"]

    def count(self, collection: str) -> int:
        answer = self.http.get(f"/v1/collections/{collection}")
        assert answer.status_code == 200, answer.text
        return answer.json()["count"]

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.http.get(f"/v1/jobs/{job_id}/failures").text.splitlines()]


def until(probe: Callable[[], T | None], timeout_s: float, explain: Callable[[], str] = lambda: "") -> T:
    """Wait for a probe to give something; fails with an explanation when its time is over."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s\n{explain()}"
        time.sleep(0.1)
    return value
