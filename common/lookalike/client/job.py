"""Jobs from their submitter's side: look at them, wait for them, cancel them, take their results."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from lookalike.client import calls
from lookalike.client.connection import Call, Connection, error_from, submit_key
from lookalike.client.results import IngestSummary, combined, summarise
from lookalike.errors import CollectionNotFound, JobCancelled, JobFailed, WaitTimeout
from lookalike.records import (
    STEP_RESULTS,
    ArtifactList,
    ArtifactRecord,
    Failure,
    FailurePage,
    JobKind,
    JobRecord,
    JobState,
    Progress,
    Record,
    SearchResult,
)

R = TypeVar("R", bound=Record)

OnProgress = Callable[[Progress], None]  #: Called with every new look at a job, the last of which is final.

LONG_POLL_S: Final = 30.0  #: One held request where nobody watches the progress.
WATCH_S: Final = 1.0  #: The same where somebody does: the service answers early only when a job ends.
#: How long a wait goes on while the service is away: a restart loads a model.
RESTART_PATIENCE_S: Final = 60.0
_LOOKS_PER_S: Final = 5  #: Where many jobs are watched, each gets its turn at this rate.


class Job:
    """One job of the service. `record` is the last look at it; nothing is asked until a method is called."""

    def __init__(self, connection: Connection, record: JobRecord) -> None:
        self._connection = connection
        self.record = record

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.record.kind} {self.record.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id

    @property
    def progress(self) -> Progress:
        """How far the job is, by the last look at it."""
        return self.record.progress

    @property
    def jobs(self) -> tuple["Job", ...]:
        """This job alone, so that one job and a group of them can be handled alike."""
        return (self,)

    @property
    def unsent(self) -> Sequence[Failure]:
        """Files that could not be sent: none, as for every single job."""
        return ()

    def refresh(self, *, hold_s: float = 0.0, patience_s: float | None = None) -> JobRecord:
        """Look at the job anew; the service may hold its answer for `hold_s`, until the job is final."""
        self.record = self._connection.fetch(JobRecord, calls.look(self.id, hold_s=hold_s, patience_s=patience_s))
        return self.record

    def wait(self, timeout_s: float | None = None, on_progress: OnProgress | None = None) -> JobRecord:
        """Return the record once it is final, whatever the end; `result` raises where that is not success.

        Goes on through a restart of the service. Raises `WaitTimeout` after `timeout_s`; the job goes on.
        """
        wait_for([self], timeout_s, None if on_progress is None else lambda: on_progress(self.record.progress))
        return self.record

    def cancel(self) -> JobRecord:
        """Ask the job to stop. It ends as `cancelled` once the work in hand is accounted; `wait` for that."""
        return self._tell("cancel")

    def _tell(self, verb: str) -> JobRecord:
        self.record = self._connection.fetch(JobRecord, calls.tell(self.id, verb))
        return self.record

    def pause(self) -> JobRecord:
        """Have the job stand still after the batch in hand; `resume` lets it go on, whatever was restarted since."""
        return self._tell("pause")

    def resume(self) -> JobRecord:
        """Let a paused job go on."""
        return self._tell("resume")

    def retry(self) -> "Job":
        """Start a job of the files of an ingest that failed, and of nothing else; returns it.

        Raises `InvalidRequest` where none failed, and `JobNotFinal` as long as the ingest goes on.
        """
        return Job(self._connection, self._connection.fetch(JobRecord, calls.retry(self.id)))

    def result(self, timeout_s: float | None = None) -> SearchResult | IngestSummary | Record:
        """Wait for the job and return what it came to.

        Raises `JobFailed` (its cause is the error of the record's code), `JobCancelled`, `WaitTimeout`.
        """
        self.wait(timeout_s)
        return result_of(self.record, self.failures() if self.record.progress.failed else [])

    def search_result(self) -> SearchResult:
        """Return the result of a search that is over; raises as `result` does."""
        return SearchResult.model_validate(succeeded(self.record).result, extra="ignore")

    def step_result(self, kind: type[R]) -> R:
        """Return the result of a job that is over, and is neither an ingest nor a search; raises as `result` does."""
        return kind.model_validate(succeeded(self.record).result, extra="ignore")

    def files(self) -> tuple[ArtifactRecord, ...]:
        """Return the files that the job has left behind so far."""
        return self._connection.fetch(ArtifactList, calls.files(self.id)).files

    def download(self, name: str) -> bytes:
        """Return one of the job's files; raises `ArtifactNotFound`."""
        return self._connection.send(calls.file(self.id, name)).content

    def download_to(self, name: str, path: Path) -> None:
        """Write one of the job's files to a path; raises as `download` does."""
        self._connection.save(calls.file(self.id, name), path)

    def failures(self) -> list[Failure]:
        """Return the files that could not be used, in the order they were found."""
        return list(self.iter_failures())

    def iter_failures(self) -> Iterator[Failure]:
        """Go through the failures ledger page by page."""
        cursor: str | None = None
        while True:
            page = self._connection.fetch(FailurePage, calls.failures(self.id, cursor))
            yield from page.failures
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    def figure(self) -> bytes:
        """Return a search's queries and hits as a picture (PNG)."""
        return self._connection.send(calls.figure(self.id)).content


class JobGroup:
    """Several jobs handled like one: what an ingest became, with the files that could not be sent."""

    def __init__(self, jobs: Sequence[Job] = ()) -> None:
        self._began = time.monotonic()
        self.in_place = list(jobs)  #: One for each folder that the service reads itself.
        self.uploaded: list[Job] = []  #: One for each request of uploads.
        self.unsent: list[Failure] = []  #: Files that could not be sent, and belong to no job.
        self.announced = 0  #: Files to upload, the unsent ones included.

    def __repr__(self) -> str:
        return f"<JobGroup {' '.join(job.id for job in self.jobs)}>"

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in the order they were accepted."""
        return (*self.in_place, *self.uploaded)

    @property
    def progress(self) -> Progress:
        """How far the jobs are together, by the last look at each."""
        listed = [job.record.progress.total for job in self.in_place]
        known = [total for total in listed if total is not None]
        return combined(
            (job.record.progress for job in self.jobs),
            unsent=len(self.unsent),
            total=sum(known) + self.announced if len(known) == len(listed) else None,
            elapsed_s=time.monotonic() - self._began,
        )

    def refresh(self) -> tuple[JobRecord, ...]:
        """Look at every job anew."""
        return tuple(job.refresh() for job in self.jobs)

    def wait(self, timeout_s: float | None = None, on_progress: OnProgress | None = None) -> tuple[JobRecord, ...]:
        """Return all records once they are final. Raises `WaitTimeout` after `timeout_s`; the jobs go on."""
        wait_for(self.jobs, timeout_s, None if on_progress is None else lambda: on_progress(self.progress))
        return tuple(job.record for job in self.jobs)

    def cancel(self) -> tuple[JobRecord, ...]:
        """Ask every job to stop."""
        return tuple(job.cancel() for job in self.jobs)

    def result(self, timeout_s: float | None = None) -> IngestSummary:
        """Wait for all jobs and return what they came to; raises as `Job.result` does, for the first that failed."""
        records = [succeeded(record) for record in self.wait(timeout_s)]
        return summarise(records, self.failures(), unsent=len(self.unsent))

    def failures(self) -> list[Failure]:
        """Return the files that could not be sent, then those of each job's ledger."""
        return [
            *self.unsent,
            *(line for job in self.jobs if job.record.progress.failed for line in job.iter_failures()),
        ]


def wait_for(jobs: Sequence[Job], timeout_s: float | None, on_look: Callable[[], None] | None) -> None:
    """Return when all jobs are final; calls `on_look` after every look at one of them."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pending = deque(job for job in jobs if not job.record.state.final)
    if on_look:
        on_look()
    while pending:
        job = pending.popleft()
        hold_s = WATCH_S / min(len(pending) + 1, _LOOKS_PER_S) if on_look else LONG_POLL_S
        if deadline is not None:
            hold_s = min(hold_s, deadline - time.monotonic())
            if hold_s <= 0:
                raise WaitTimeout(f"Job {job.id} was still {job.record.state} after {timeout_s:g} seconds. It goes on.")
        _look(job, hold_s)
        if not job.record.state.final:
            pending.append(job)
        if on_look:
            on_look()


def _look(job: Job, hold_s: float) -> None:
    asked = time.monotonic()
    job.refresh(hold_s=hold_s, patience_s=RESTART_PATIENCE_S)
    early_s = min(hold_s, WATCH_S) - (time.monotonic() - asked)
    if early_s > 0 and not job.record.state.final:
        # Every place for held requests is taken, so the answer came at once: go on at our own pace.
        time.sleep(early_s)


def succeeded(record: JobRecord) -> JobRecord:
    """Return a final record that is a success, raise `JobFailed` or `JobCancelled` for another."""
    if record.state is JobState.CANCELLED:
        raise JobCancelled(f"Job {record.id} was cancelled. What it had stored until then stays stored.")
    if record.state is JobState.FAILED:
        cause = error_from(record.error.code, record.error.message) if record.error else None
        raise JobFailed(
            f"Job {record.id} failed: {cause.message if cause else 'its record does not say why.'}"
        ) from cause
    return record


def result_of(record: JobRecord, ledger: Sequence[Failure]) -> SearchResult | IngestSummary | Record:
    """Return what a final job came to; raises `JobFailed` and `JobCancelled`."""
    succeeded(record)
    if record.kind is JobKind.SEARCH:
        return SearchResult.model_validate(record.result, extra="ignore")
    if record.kind.in_steps:
        return STEP_RESULTS[record.kind].model_validate(record.result, extra="ignore")
    return summarise([record], ledger)


def submit_job(connection: Connection, path: str, body: Mapping[str, Any]) -> Job:
    """Start a job that is described by a JSON body."""
    name = str(body.get("collection", ""))
    call = Call(method="POST", path=path, json=dict(body), headers=submit_key(), about={CollectionNotFound: name})
    return Job(connection, connection.fetch(JobRecord, call))
