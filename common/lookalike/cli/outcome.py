"""The end of jobs: what is printed about them, and the exit code they come to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.cli.exits import Exit, report
from lookalike.cli.output import note, show
from lookalike.cli.progress import images, progress_report
from lookalike.cli.session import Session
from lookalike.errors import JobCancelled, JobFailed

if TYPE_CHECKING:
    from lookalike.client import Job, JobGroup
    from lookalike.records import Failure, JobRecord, Progress

#: Columns about jobs; more are only ever added on the right.
JOB_COLUMNS: Final = ("job", "kind", "state", "total", "done", "stored", "unchanged", "failed", "created", "collection")
FAILURE_COLUMNS: Final = ("uri", "code", "message", "stage", "attempts", "name")
_FAILURES_SHOWN: Final = 10


def show_jobs(session: Session, records: "Sequence[JobRecord]") -> None:
    """Print a line per job."""
    spare = ("unchanged", "done", "collection", "kind", "total")
    show(session, JOB_COLUMNS, map(job_row, records), records=lambda: records, spare=spare)


def job_row(record: "JobRecord") -> tuple[object, ...]:
    """Return a job as a row of JOB_COLUMNS."""
    progress = record.progress
    counts = (progress.total, progress.done, progress.stored, progress.unchanged, progress.failed)
    collection = record.request.get("collection")
    return (record.id, record.kind, record.state, *counts, record.created_at, collection)


def job_fields(record: "JobRecord") -> dict[str, object]:
    """Return a job's fields by name, for showing one."""
    return {
        **dict(zip(JOB_COLUMNS, job_row(record), strict=True)),
        "started": record.started_at,
        "finished": record.finished_at,
        "images_per_s": record.progress.images_per_s,
        "eta_s": record.progress.eta_s,
        "error": record.error and f"{record.error.message} ({record.error.code})",
    }


def failure_row(failure: "Failure") -> tuple[object, ...]:
    """Return a line of the failures ledger as a row of FAILURE_COLUMNS."""
    return (failure.uri, failure.code, failure.message, failure.stage, failure.attempts, failure.name)


def finish(session: Session, started: "Job | JobGroup", *, what: str, timeout_s: float | None = None) -> Exit:
    """Wait with progress on stderr, print the jobs, say on stderr what they came to, and return the exit code."""
    from lookalike.records import JobState

    with progress_report(what) as on_progress:
        started.wait(timeout_s, on_progress)
    session.started.clear()
    records = [job.record for job in started.jobs]
    show_jobs(session, records)
    for record in records:
        _report_unless_done(record)
    failed = started.progress.failed
    if failed:
        _tell_failures(started.failures(), [record.id for record in records])
    for record in records:
        if warn_untrained(record.result):
            break
    if any(record.state is not JobState.SUCCEEDED for record in records):
        return Exit.FAILED
    return Exit.SOME_FILES if failed else Exit.DONE


def summarise(progress: "Progress") -> None:
    """Say on stderr what an ingest came to."""
    rate = f", {progress.images_per_s:.1f} a second" if progress.images_per_s else ""
    counts = f"{progress.stored} stored, {progress.unchanged} unchanged, {progress.failed} failed"
    note(f"{progress.done} {images(progress.done)}: {counts}{rate}")
    if not progress.done:
        note("No image was found there. Files are taken by their suffix; --include takes others.")


def warn_untrained(result: Mapping[str, Any] | None) -> bool:
    """Say so where a result's vectors come from a network without training."""
    model = (result or {}).get("model")
    untrained = model is not None and not model["trained"]
    if untrained:
        note(
            "The model is untrained: it finds near-duplicates and knows no concepts. "
            "Start the service with trained weights for more."
        )
    return untrained


def path_of(uri: str) -> str | None:
    """Return the path of a file's URI, None for any other URI."""
    from lookalike.errors import InvalidFilename
    from lookalike.roots import file_path

    try:
        return str(file_path(uri))
    except InvalidFilename:
        return None


def _where(failure: "Failure") -> str:
    """Return what people know a file by: its path, or the name it was uploaded with."""
    named = f"{failure.name} ({failure.uri})" if failure.name else failure.uri
    return path_of(failure.uri) or named


def _report_unless_done(record: "JobRecord") -> None:
    from lookalike.client.job import succeeded

    try:
        succeeded(record)
    except (JobFailed, JobCancelled) as error:
        report(error)


def _tell_failures(failures: "Sequence[Failure]", job_ids: Sequence[str]) -> None:
    for failure in failures[:_FAILURES_SHOWN]:
        note(f"failed: {_where(failure)}: {failure.message} ({failure.code})")
    if len(failures) > _FAILURES_SHOWN and job_ids:
        more = len(failures) - _FAILURES_SHOWN
        click.echo(f"... and {more} more; all of them: lookalike jobs failures {' '.join(job_ids)}", err=True)
