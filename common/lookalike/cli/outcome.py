"""The end of jobs: what is printed about them, and the exit code they come to."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.cli.exits import Exit, report
from lookalike.cli.output import note, show, show_fields
from lookalike.cli.progress import hindrance, images, progress_report, stage_split
from lookalike.cli.session import Session
from lookalike.errors import JobCancelled, JobFailed

if TYPE_CHECKING:
    from lookalike.client import Job, JobGroup
    from lookalike.records import Failure, JobRecord, Progress

#: Columns about jobs; more are only ever added on the right.
JOB_COLUMNS: Final = (
    *("job", "kind", "state", "total", "done", "stored", "unchanged", "failed", "created", "collection"),
    *("removed", "note"),
)
FAILURE_COLUMNS: Final = ("uri", "code", "message", "stage", "attempts", "name")
_FAILURES_SHOWN: Final = 10


def show_jobs(session: Session, records: "Sequence[JobRecord]") -> None:
    """Print a line per job."""
    # A note says why nothing happens, or that nothing did: it goes last, unless there is none.
    spare: tuple[str, ...] = ("removed", "unchanged", "done", "collection", "kind", "total", "note")
    if not any(map(_remark, records)):
        spare = ("note", *spare)
    show(session, JOB_COLUMNS, map(job_row, records), records=lambda: records, spare=spare)


def job_row(record: "JobRecord") -> tuple[object, ...]:
    """Return a job as a row of JOB_COLUMNS."""
    progress = record.progress
    counts = (progress.total, progress.done, progress.stored, progress.unchanged, progress.failed)
    collection = record.request.get("collection")
    created = record.created_at
    return (record.id, record.kind, record.state, *counts, created, collection, progress.removed, _remark(record))


def _remark(record: "JobRecord") -> str:
    if record.paused and not record.state.final:
        return "paused"
    return hindrance(record) or ("dry run" if record.request.get("dry_run") else "")


def job_fields(record: "JobRecord") -> dict[str, object]:
    """Return a job's fields by name, for showing one."""
    progress = record.progress
    details = ("added", "changed", "moved", "duplicates", "images_per_s", "eta_s", "position")
    return {
        **dict(zip(JOB_COLUMNS, job_row(record), strict=True)),
        "started": record.started_at,
        "finished": record.finished_at,
        **{name: getattr(progress, name) for name in details},
        "work": progress.stages and stage_split(progress.stages),
        "failures": ", ".join(f"{count} {code}" for code, count in record.failure_counts.items()) or None,
        "failures_dropped": record.failures_dropped or None,
        "webhook": record.webhook and record.webhook.state,
        "error": record.error and f"{record.error.message} ({record.error.code})",
    }


def failure_row(failure: "Failure") -> tuple[object, ...]:
    """Return a line of the failures ledger as a row of FAILURE_COLUMNS."""
    return (failure.uri, failure.code, failure.message, failure.stage, failure.attempts, failure.name)


def finish(session: Session, started: "Job | JobGroup", *, what: str, timeout_s: float | None = None) -> Exit:
    """Wait with progress on stderr, print the jobs, say on stderr what they came to, and return the exit code."""
    from lookalike.records import JobState

    with progress_report(what) as report:
        started.wait(timeout_s, lambda progress: report.progress(progress, _hindrances(started.jobs)))
    session.started.clear()
    records = [job.record for job in started.jobs]
    show_jobs(session, records)
    for record in records:
        _report_unless_done(record)
    failed = started.progress.failed
    if failed:
        tell_failures(started, failed)
    for record in records:
        if warn_untrained(record.result):
            break
    if any(record.state is not JobState.SUCCEEDED for record in records):
        return Exit.FAILED
    return Exit.SOME_FILES if failed else Exit.DONE


def run_job(session: Session, job: "Job", *, what: str, tell: Callable[[], None] | None = None) -> Exit:
    """Wait for a job that is done in steps, with progress on stderr; print its result, and return the exit code.

    `tell` prints the result where its fields in a row are not how to read it.
    """
    from lookalike.records import JobState

    session.note(job)
    with progress_report(what) as report:
        job.wait(None, lambda progress: report.progress(progress, _hindrances([job])))
    session.started.clear()
    record = job.record
    _report_unless_done(record)
    if record.state is not JobState.SUCCEEDED:
        return Exit.FAILED
    if tell:
        tell()
    else:
        show_fields(session, {"job": record.id, **(record.result or {})}, record=record)
    if record.progress.failed:
        tell_failures(job, record.progress.failed)
    return Exit.SOME_FILES if record.progress.failed else Exit.DONE


def _hindrances(jobs: "Sequence[Job]") -> str:
    """Say what keeps jobs from getting on, where it keeps all that are left."""
    left = [job.record for job in jobs if not job.record.state.final]
    found = {hindrance(record) for record in left}
    return found.pop() if len(found) == 1 else ""


def summarise(progress: "Progress", *, code: Exit, dry_run: bool = False) -> None:
    """Say on stderr what an ingest came to, or, of a dry run, what it would come to."""
    from lookalike.records import StageTimes

    names = ("added", "changed", "moved", "removed", "unchanged", "failed")
    always = {"added", "unchanged", "failed"}
    counts = [f"{getattr(progress, name)} {name}" for name in names if name in always or getattr(progress, name)]
    twins = f"; {progress.duplicates} of the stored have the content of another" if progress.duplicates else ""
    rate = f"; {progress.images_per_s:.1f} a second" if progress.images_per_s and not dry_run else ""
    would = "would be " if dry_run else ""
    note(f"{progress.done} {images(progress.done)}: {would}{', '.join(counts)}{twins}{rate}")
    if progress.stages and progress.stages != StageTimes() and not dry_run:
        note(f"work: {stage_split(progress.stages)}")
    if code is Exit.DONE and not progress.done and not progress.removed:
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


def tell_failures(started: "Job | JobGroup", failed: int) -> None:
    """Say on stderr which files failed, the first of them, and what can be done about them."""
    ledgers = (job.iter_failures() for job in started.jobs if job.record.progress.failed)
    shown = list(islice(chain(started.unsent, *ledgers), _FAILURES_SHOWN))
    for failure in shown:
        note(f"failed: {_where(failure)}: {failure.message} ({failure.code})")
    job_ids = " ".join(job.id for job in started.jobs if job.record.progress.failed)
    if failed > len(shown):
        where = f"; all of them: lookalike jobs failures {job_ids}" if job_ids else ""
        click.echo(f"... and {failed - len(shown)} more{where}", err=True)
    if job_ids and all(job.record.kind == "ingest" for job in started.jobs):
        click.echo(f"Once mended, try only these again: lookalike jobs retry {job_ids}", err=True)


def tell_dropped(records: "Sequence[JobRecord]") -> None:
    """Say on stderr how many lines of their ledgers jobs did not keep."""
    dropped = sum(record.failures_dropped for record in records)
    if dropped:
        note(f"{dropped} more failed, of which no line was kept: a ledger has room for LOOKALIKE_MAX_FAILURES lines.")
