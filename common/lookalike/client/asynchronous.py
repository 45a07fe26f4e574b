"""The client for an event loop: submits, waits and reads without a thread for each job that is waited for.

It goes by the same rules and sends the same calls as `Client`. What is rare, or reads local files, is done by a
`Client` in a thread: see `AsyncClient.ingest` and `AsyncClient.ask`.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx2

from lookalike.client import calls
from lookalike.client.client import Client
from lookalike.client.connection import Call, R, Wire
from lookalike.client.ingest import Upload
from lookalike.client.job import LONG_POLL_S, RESTART_PATIENCE_S, WATCH_S, OnProgress, result_of, succeeded
from lookalike.client.order import IngestOptions
from lookalike.client.parts import Picture
from lookalike.client.results import IngestSummary, summarise
from lookalike.client.search import SearchOptions, merged
from lookalike.errors import WaitTimeout
from lookalike.records import (
    ArtifactList,
    ArtifactRecord,
    Failure,
    FailurePage,
    JobRecord,
    Record,
    SearchResult,
)
from lookalike.settings import ClientSettings

T = TypeVar("T")


class AsyncConnection(Wire):
    """Sends calls to one service, from one event loop."""

    def __init__(
        self, url: str, *, api_key: str | None, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(url, api_key=api_key, timeout_s=timeout_s)
        self._http = httpx2.AsyncClient(**self._options, transport=transport)

    async def close(self) -> None:
        """Close the sockets."""
        await self._http.aclose()

    async def fetch(self, record: type[R], call: Call) -> R:
        """Send a call and read its answer as a record."""
        return self._read(record, await self.send(call))

    async def send(self, call: Call) -> httpx2.Response:
        """Send a call until it is answered for good or patience is over; raises what a problem document says."""
        pauses = self._pauses(call)
        while True:
            outcome = await self._try(call)
            if isinstance(outcome, httpx2.Response) and outcome.is_success:
                return outcome
            await asyncio.sleep(pauses.after(outcome))

    async def _try(self, call: Call) -> httpx2.Response | httpx2.TransportError:
        try:
            answer = await self._http.request(call.method, call.path, **self._arguments(call))
        except httpx2.TransportError as error:
            return error
        self._answered = True
        return answer


class AsyncJob:
    """One job of the service, as `Job`; `record` is the last look at it."""

    def __init__(self, connection: AsyncConnection, record: JobRecord) -> None:
        self._connection = connection
        self.record = record

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id} {self.record.kind} {self.record.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id

    async def refresh(self, *, hold_s: float = 0.0, patience_s: float | None = None) -> JobRecord:
        """Look at the job anew; the service may hold its answer for `hold_s`, until the job is final."""
        return await self._look(calls.look(self.id, hold_s=hold_s, patience_s=patience_s))

    async def wait(self, timeout_s: float | None = None, on_progress: OnProgress | None = None) -> JobRecord:
        """Return the record once it is final; as `Job.wait`. Raises `WaitTimeout` after `timeout_s`."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if on_progress:
            on_progress(self.record.progress)
        while not self.record.state.final:
            hold_s = WATCH_S if on_progress else LONG_POLL_S
            if deadline_s is not None:
                hold_s = min(hold_s, deadline_s - time.monotonic())
                if hold_s <= 0:
                    raise WaitTimeout(f"Job {self.id} was still {self.record.state} after {timeout_s:g} seconds.")
            asked_s = time.monotonic()
            await self.refresh(hold_s=hold_s, patience_s=RESTART_PATIENCE_S)
            early_s = min(hold_s, WATCH_S) - (time.monotonic() - asked_s)
            if early_s > 0 and not self.record.state.final:
                # Every place for held requests is taken, so the answer came at once: go on at our own pace.
                await asyncio.sleep(early_s)
            if on_progress:
                on_progress(self.record.progress)
        return self.record

    async def cancel(self) -> JobRecord:
        """Ask the job to stop; `wait` for its end."""
        return await self._look(calls.tell(self.id, "cancel"))

    async def pause(self) -> JobRecord:
        """Have the job stand still; `resume` lets it go on."""
        return await self._look(calls.tell(self.id, "pause"))

    async def resume(self) -> JobRecord:
        """Let a paused job go on."""
        return await self._look(calls.tell(self.id, "resume"))

    async def retry(self) -> "AsyncJob":
        """Start a job of the files of an ingest that failed, and of nothing else; returns it."""
        return AsyncJob(self._connection, await self._connection.fetch(JobRecord, calls.retry(self.id)))

    async def result(self, timeout_s: float | None = None) -> SearchResult | IngestSummary | Record:
        """Wait for the job and return what it came to; raises as `Job.result` does."""
        record = await self.wait(timeout_s)
        ledger = [line async for line in self.failures()] if record.progress.failed else []
        return result_of(record, ledger)

    async def failures(self) -> AsyncIterator[Failure]:
        """Go through the failures ledger page by page."""
        cursor: str | None = None
        while True:
            page = await self._connection.fetch(FailurePage, calls.failures(self.id, cursor))
            for line in page.failures:
                yield line
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def files(self) -> tuple[ArtifactRecord, ...]:
        """Return the files that the job has left behind so far."""
        return (await self._connection.fetch(ArtifactList, calls.files(self.id))).files

    async def download(self, name: str) -> bytes:
        """Return one of the job's files; raises `ArtifactNotFound`."""
        return (await self._connection.send(calls.file(self.id, name))).content

    async def figure(self) -> bytes:
        """Return a search's queries and hits as a picture (PNG)."""
        return (await self._connection.send(calls.figure(self.id))).content

    async def _look(self, call: Call) -> JobRecord:
        self.record = await self._connection.fetch(JobRecord, call)
        return self.record


class AsyncClient:
    """A connection to a lookalike service for one event loop; close it, or use it in an `async with` statement.

    The parameters are those of `Client`. `transport` replaces the network of both kinds of calls, for tests.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeout_s: float | None = None,
        *,
        transport: httpx2.MockTransport | None = None,
    ) -> None:
        settings = ClientSettings()
        # For what is done in a thread, and for all that the two have in common.
        self._client = Client(url, api_key, timeout_s, transport=transport)
        key = api_key or (settings.api_key.get_secret_value() if settings.api_key else None)
        self._connection = AsyncConnection(
            self._client.url, api_key=key, timeout_s=timeout_s or settings.timeout_s, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the service. Its jobs go on."""
        self._client.close()
        await self._connection.close()

    async def search(self, *images: Picture, **options: Unpack[SearchOptions]) -> SearchResult:
        """Find the stored images most like the given ones, as `Client.search` does, and wait for the result."""
        jobs = await self._submit(images, options, wait=True)
        records = await asyncio.gather(*(job.wait() for job in jobs))
        return merged([SearchResult.model_validate(succeeded(record).result, extra="ignore") for record in records])

    async def start_search(self, *images: Picture, **options: Unpack[SearchOptions]) -> list[AsyncJob]:
        """Submit a search and return its jobs, several where the service takes no more in one, without waiting."""
        return await self._submit(images, options, wait=False)

    async def _submit(self, images: tuple[Picture, ...], options: SearchOptions, *, wait: bool) -> list[AsyncJob]:
        # Pictures are read and encoded on the way.
        requests = await asyncio.to_thread(self._client.search_calls, images, options, wait=wait)
        records = await asyncio.gather(*(self._connection.fetch(JobRecord, call) for call in requests))
        return [AsyncJob(self._connection, record) for record in records]

    async def ingest(
        self,
        *sources: str | os.PathLike[str],
        folder: str | None = None,
        upload: Upload = "auto",
        **options: Unpack[IngestOptions],
    ) -> IngestSummary:
        """Store images, as `Client.ingest` does, and wait for the outcome. What is local is uploaded by a thread."""

        def start(client: Client) -> tuple[list[JobRecord], list[Failure]]:
            group = client.ingest(*sources, folder=folder, upload=upload, wait=False, **options)
            return [job.record for job in group.jobs], list(group.unsent)

        started, unsent = await self.ask(start)
        jobs = [AsyncJob(self._connection, record) for record in started]
        records = [succeeded(record) for record in await asyncio.gather(*(job.wait() for job in jobs))]
        ledger = unsent + [line for job in jobs if job.record.progress.failed async for line in job.failures()]
        return summarise(records, ledger, unsent=len(unsent))

    async def job(self, job_id: str) -> AsyncJob:
        """Return a job; raises `JobNotFound` and `JobExpired`."""
        return AsyncJob(self._connection, await self._connection.fetch(JobRecord, calls.look(job_id)))

    async def ask(self, question: Callable[[Client], T]) -> T:
        """Do in a thread what has no method here: `await client.ask(lambda c: c.collections.list())`."""
        return await asyncio.to_thread(question, self._client)
