"""The client: what one calls to ingest, search and look after a service from Python.

Errors are those of `lookalike.errors`, whether they were noticed here or in the service.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack, overload

import httpx2

from lookalike.client.bulk import BulkSearch, BulkSearchOptions
from lookalike.client.connection import Call, Connection
from lookalike.client.duplicates import DuplicatesOptions, duplicates_body
from lookalike.client.evaluations import Evaluations
from lookalike.client.ingest import Ingestion, Upload
from lookalike.client.job import Job, JobGroup, OnProgress, submit_job, wait_for
from lookalike.client.order import IngestOptions, Order
from lookalike.client.parts import Picture
from lookalike.client.resources import Collections, Images, Jobs
from lookalike.client.results import IngestSummary
from lookalike.client.search import SearchOptions, Wanted, calls, merged
from lookalike.client.transfer import OnBytes
from lookalike.client.upload import Bounds
from lookalike.errors import TooManyItems
from lookalike.records import BulkSearchResult, DuplicatesResult, Garbage, JobRecord, Record, SearchResult
from lookalike.settings import ClientSettings

OnJob = Callable[[Job], None]

GARBAGE_HOLD_S: Final = 600.0  #: Looking through a million uploads takes minutes.


class Client:
    """A connection to a lookalike service; close it, or use it in a `with` statement. Safe in several threads.

    `url`, `api_key` and `timeout_s` default to LOOKALIKE_URL, LOOKALIKE_API_KEY and LOOKALIKE_TIMEOUT_S. `timeout_s`
    bounds one request with its repetitions; waiting for a job has no bound of its own. `on_retry` is
    called once, where a request is repeated for longer than a few seconds. `transport` replaces the network, for tests.

    Raises `InvalidParameter` for a `url` that is none.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeout_s: float | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
        on_retry: Callable[[], None] | None = None,
    ) -> None:
        settings = ClientSettings()
        key = api_key or (settings.api_key.get_secret_value() if settings.api_key else None)
        self._connection = Connection(
            url or settings.url,
            api_key=key,
            timeout_s=timeout_s or settings.timeout_s,
            transport=transport,
            on_retry=on_retry,
        )
        # Where none is named, the service has a default of its own.
        self._collection = settings.collection if "collection" in settings.model_fields_set else None
        self.collections = Collections(self._connection)
        self.images = Images(self._connection, self._collection)
        self.jobs = Jobs(self._connection)
        self.evaluations = Evaluations(self._connection, self._collection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service's address."""
        return self._connection.url

    def close(self) -> None:
        """Close the connections to the service. Its jobs go on."""
        self._connection.close()

    # --- Ingest ---

    @overload
    def ingest(
        self,
        *sources: str | os.PathLike[str],
        folder: str | None = ...,
        wait: Literal[True] = ...,
        upload: Upload = ...,
        on_progress: OnProgress | None = ...,
        on_job: OnJob | None = ...,
        on_bytes: OnBytes | None = ...,
        **options: Unpack[IngestOptions],
    ) -> IngestSummary: ...

    @overload
    def ingest(
        self,
        *sources: str | os.PathLike[str],
        folder: str | None = ...,
        wait: Literal[False],
        upload: Upload = ...,
        on_progress: OnProgress | None = ...,
        on_job: OnJob | None = ...,
        on_bytes: OnBytes | None = ...,
        **options: Unpack[IngestOptions],
    ) -> Job | JobGroup: ...

    def ingest(
        self,
        *sources: str | os.PathLike[str],
        folder: str | None = None,
        wait: bool = True,
        upload: Upload = "auto",
        on_progress: OnProgress | None = None,
        on_job: OnJob | None = None,
        on_bytes: OnBytes | None = None,
        **options: Unpack[IngestOptions],
    ) -> IngestSummary | Job | JobGroup:
        """Store images: local files and folders, archives (zip, tar), manifests (JSONL, CSV, Parquet), addresses on
        the web, prefixes of an object store (`s3://bucket/photos/`), or a `folder` that the service names.

        What is local is read by the service itself where it runs on this machine and has it under its roots; anything
        else is uploaded: images in requests of bounded size, archives and manifests in pieces, going on where an
        earlier upload of the same file was interrupted. `upload=True` always uploads, `upload=False` never.
        `IngestOptions` describes the options.

        Waits, and returns counts and failures; raises `JobFailed` and `JobCancelled`. With `wait=False` it returns
        once everything is sent: a `Job`, or a `JobGroup` where it became several. `on_progress` is called about once
        a second, `on_job` with each job as it is accepted, `on_bytes` while an archive or manifest is uploaded.
        """
        ingestion = Ingestion(
            self._connection,
            Order.of(options, collection=self._collection),
            bounds=lambda: self._bounds,
            on_job=on_job or _ignore,
            on_look=lambda group: on_progress(group.progress) if on_progress else None,
            on_bytes=on_bytes,
        )
        group = ingestion.start([os.fspath(source) for source in sources], folder=folder, upload=upload)
        if not wait:
            alone = len(group.jobs) == 1 and not group.unsent
            return group.jobs[0] if alone else group
        group.wait(on_progress=on_progress)
        return group.result()

    # --- Search ---

    @overload
    def search(
        self, *images: Picture, wait: Literal[True] = ..., on_job: OnJob | None = ..., **options: Unpack[SearchOptions]
    ) -> SearchResult: ...

    @overload
    def search(
        self, *images: Picture, wait: Literal[False], on_job: OnJob | None = ..., **options: Unpack[SearchOptions]
    ) -> Job: ...

    def search(
        self,
        *images: Picture,
        wait: bool = True,
        on_job: OnJob | None = None,
        **options: Unpack[SearchOptions],
    ) -> SearchResult | Job:
        """Find the stored images most like the given ones: local files, bytes or PIL images, all of them uploaded.

        Queries can also be stored images by id, files under the service's roots, addresses, uploads, vectors, and
        examples that are combined; `SearchOptions` describes these and all other options. The result has an entry per
        query, in the order of the options; one that could not be answered has an `error`.

        Waits, in several requests where the service takes no more in one; raises `JobFailed`. With `wait=False` it
        returns the `Job`, and raises `TooManyItems` where one is not enough.
        """
        requests = self.search_calls(images, options, wait=wait)
        if not wait and len(requests) > 1:
            raise TooManyItems(f"This search takes {len(requests)} jobs. Ask for less at once, or wait for the result.")
        jobs = []
        for request in requests:
            jobs.append(Job(self._connection, self._connection.fetch(JobRecord, request)))
            (on_job or _ignore)(jobs[-1])
        if not wait:
            return jobs[0]
        wait_for(jobs, None, None)
        return merged([job.search_result() for job in jobs])

    def search_calls(self, images: Sequence[Picture], options: SearchOptions, *, wait: bool) -> list[Call]:
        """Return a search as the calls that `search` sends, for those who send them in their own way."""
        return calls(images, Wanted.of(options, collection=self._collection), self._bounds, wait=wait)

    @overload
    def bulk_search(
        self,
        *sources: str | os.PathLike[str],
        wait: Literal[True] = ...,
        upload: Upload = ...,
        on_bytes: OnBytes | None = ...,
        **options: Unpack[BulkSearchOptions],
    ) -> BulkSearchResult: ...

    @overload
    def bulk_search(
        self,
        *sources: str | os.PathLike[str],
        wait: Literal[False],
        upload: Upload = ...,
        on_bytes: OnBytes | None = ...,
        **options: Unpack[BulkSearchOptions],
    ) -> Job: ...

    def bulk_search(
        self,
        *sources: str | os.PathLike[str],
        wait: bool = True,
        upload: Upload = "auto",
        on_bytes: OnBytes | None = None,
        **options: Unpack[BulkSearchOptions],
    ) -> BulkSearchResult | Job:
        """Search for every image of a folder, archive, manifest or prefix of objects, of addresses, or of local files.

        What the service cannot read itself is uploaded, folders and files as one archive, for which there has to be
        room on this machine. The answers are files of the job: with `wait=False` it returns that job, whose
        `download_to("results.jsonl", path)` has them once it has succeeded. Raises `JobFailed`.
        """
        search = BulkSearch(
            self._connection,
            options,
            collection=self._collection,
            bounds=lambda: self._bounds,
            on_bytes=on_bytes,
        )
        job = search.start([os.fspath(source) for source in sources], upload=upload)
        return job.step_result(BulkSearchResult) if wait and job.wait() else job

    # --- Duplicates ---

    @overload
    def duplicates(self, *, wait: Literal[True] = ..., **options: Unpack[DuplicatesOptions]) -> DuplicatesResult: ...

    @overload
    def duplicates(self, *, wait: Literal[False], **options: Unpack[DuplicatesOptions]) -> Job: ...

    def duplicates(self, *, wait: bool = True, **options: Unpack[DuplicatesOptions]) -> DuplicatesResult | Job:
        """Find images that are the same, in clusters; with `delete`, take all but one of each out of the collection.

        `DuplicatesOptions` describes the options. The clusters are files of the job: with `wait=False` it returns that
        job, whose `download("clusters.jsonl")` has them once it has succeeded. Raises `JobFailed`.
        """
        job = submit_job(self._connection, "/v1/duplicates", duplicates_body(options, self._collection))
        return job.step_result(DuplicatesResult) if wait and job.wait() else job

    # --- The service ---

    def info(self) -> dict[str, Any]:
        """Return what the service tells about itself: version, limits, workers and their models."""
        return dict(self._connection.send(Call(method="GET", path="/v1/info")).json())

    def readiness(self) -> dict[str, Any]:
        """Return the service's own check of its parts, ready or not; raises only where no service answers."""
        return self._connection.probe("/readyz")

    def collect_garbage(self, *, dry_run: bool = True) -> Garbage:
        """Remove what the service keeps and nothing refers to any more; with `dry_run` only tell what that is."""
        call = Call(method="POST", path="/v1/gc", json={"dry_run": dry_run}, hold_s=GARBAGE_HOLD_S)
        return self._connection.fetch(Garbage, call)

    @cached_property
    def _bounds(self) -> Bounds:
        return self._connection.fetch(_Info, Call(method="GET", path="/v1/info")).limits


class _Info(Record):
    """The part of `GET /v1/info` that the client goes by."""

    limits: Bounds


def _ignore(job: Job) -> None:
    """Nobody wants to know."""
