"""Load: clients that search over HTTP, one after the other or many at a time, and what they see of it."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

_WAIT_S: Final = 30
_TIMEOUT_S: Final = 120.0

Ask = Callable[[httpx2.Client, int], httpx2.Response]  #: Sends one search; the number says which picture.


@dataclass(frozen=True)
class Searches:
    """The ways to ask for what is like one of a few pictures."""

    collection: str
    paths: Sequence[Path]  #: Of pictures that may be read by this bench.
    root: Path  #: Of the service.
    ids: Sequence[str]
    limit: int = 3

    def by_upload(self, http: httpx2.Client, number: int) -> httpx2.Response:
        path = self.paths[number % len(self.paths)]
        fields = {"collection": self.collection, "limit": str(self.limit), "wait": str(_WAIT_S)}
        return http.post("/v1/searches", data=fields, files={"image": (path.name, path.read_bytes(), "image/jpeg")})

    def by_path(self, http: httpx2.Client, number: int) -> httpx2.Response:
        path = self.paths[number % len(self.paths)]
        return self._named(http, {"path": path.relative_to(self.root).as_posix()})

    def by_id(self, http: httpx2.Client, number: int) -> httpx2.Response:
        return self._named(http, {"image_id": self.ids[number % len(self.ids)]})

    def _named(self, http: httpx2.Client, query: dict[str, Any]) -> httpx2.Response:
        body = {"collection": self.collection, "queries": [query], "limit": self.limit, "wait": _WAIT_S}
        return http.post("/v1/searches", json=body)


def client(url: str) -> httpx2.Client:
    """A client with one connection of its own, as a user's would be."""
    return httpx2.Client(base_url=url, timeout=_TIMEOUT_S)


class SearchFailed(Exception):
    """A search was answered with an error."""


def answered(http: httpx2.Client, response: httpx2.Response) -> None:
    """Wait for a search that was not done within its wait; raises `SearchFailed` where it did not succeed."""
    record = response.raise_for_status().json()
    while not record["finished_at"]:
        time.sleep(float(response.headers["Retry-After"]))  # It was not held back: the service asks for patience.
        response = http.get(f"/v1/jobs/{record['id']}", params={"wait": _WAIT_S})
        record = response.raise_for_status().json()
    error = record["error"] or next((one["error"] for one in record["result"]["queries"]), None)
    if error:
        raise SearchFailed(error)


def latencies_ms(http: httpx2.Client, ask: Ask, numbers: Sequence[int], *, most_s: float = math.inf) -> list[float]:
    """Ask one after the other; the milliseconds of each, from the request to the answer in hand.

    Begins no search after so many seconds, so that a slow one does not take the bench's whole time.
    """
    taken: list[float] = []
    for number in numbers:
        began_s = time.perf_counter()
        answered(http, ask(http, number))
        taken.append(1000 * (time.perf_counter() - began_s))
        if sum(taken) > 1000 * most_s:
            break
    return taken


@dataclass(frozen=True)
class Rate:
    """What many clients saw."""

    answers_per_s: float
    failed: int  #: Searches that were answered with an error, which a store that is too slow for the load gives.


def searches_per_s(url: str, ask: Ask, *, clients: int, seconds: float) -> Rate:
    """Ask from so many clients at a time, each again as soon as it has its answer.

    Counted from when every client has had its first answer: connections are made and batches have formed by then. Those
    that had theirs go on meanwhile, else all would ask at the same moment, and what is counted were the first answers
    after a standstill. Raises where no search succeeds.
    """
    cold = threading.Semaphore(0)  #: Has a permit for each client that had an answer, or failed.
    over = threading.Event()
    numbers, good, bad = itertools.count(), itertools.count(), itertools.count()

    def search(http: httpx2.Client) -> None:
        try:
            answered(http, ask(http, next(numbers)))
        except SearchFailed:
            next(bad)
        else:
            next(good)

    def keep_searching() -> None:
        with client(url) as http:
            try:
                search(http)
            finally:
                cold.release()
            while not over.is_set():
                search(http)

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(keep_searching) for _ in range(clients)]
        for _ in running:
            cold.acquire(timeout=_TIMEOUT_S)
        began_s, before = time.perf_counter(), next(good)
        over.wait(seconds)
        rate = (next(good) - before - 1) / (time.perf_counter() - began_s)  # Looking at a counter moves it on.
        over.set()
    for one in running:
        one.result()
    if next(good) <= 2:
        raise SearchFailed(f"none of the searches of {clients} clients succeeded")
    return Rate(rate, next(bad))
