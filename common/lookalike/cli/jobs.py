"""`lookalike jobs`."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.cli.outcome import (
    FAILURE_COLUMNS,
    failure_row,
    finish,
    job_fields,
    show_jobs,
    summarise,
    tell_dropped,
)
from lookalike.cli.output import note, show, show_fields
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:  # A command that fails at its options needs no client.
    from lookalike.client import Job
    from lookalike.records import JobRecord

_KINDS = (
    *("ingest", "search", "deletion", "duplicates", "export", "import"),
    *("evaluation", "map", "reindex", "bulk_search"),
)
_STATES = ("queued", "running", "succeeded", "failed", "cancelled")

job_ids_argument = click.argument("job_ids", nargs=-1, required=True, metavar="ID...")


@click.group()
def jobs() -> None:
    """Look after what was submitted."""


@jobs.command("ls")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only jobs of this kind.")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@service_options
@click.pass_obj
def list_jobs(session: Session, limit: int, kind: str | None, state: str | None) -> None:
    """List jobs, newest first.

    \b
    Example:
      lookalike jobs ls --state running
    """
    with session.client() as client:
        show_jobs(session, [job.record for job in islice(client.jobs.list(kind=kind, state=state), limit)])


@jobs.command("show")
@click.argument("job_id", metavar="ID")
@service_options
@click.pass_obj
def show_job(session: Session, job_id: str) -> None:
    """Show one job; with --json its whole record, result included.

    \b
    Example:
      lookalike jobs show 01JDXYZ --json
    """
    with session.client() as client:
        record = client.jobs.get(job_id).record
    show_fields(session, job_fields(record), record=record)


@jobs.command("wait")
@job_ids_argument
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this long."
)
@service_options
@click.pass_context
def wait_for_jobs(ctx: click.Context, job_ids: tuple[str, ...], timeout_s: float | None) -> None:
    """Wait for jobs and show how far they are. The exit code is that of the worst.

    \b
    Example:
      lookalike jobs wait 01JDXYZ
    """
    from lookalike.client import JobGroup

    session = ctx.ensure_object(Session)
    with session.client() as client:
        group = JobGroup([client.jobs.get(job_id) for job_id in job_ids])
        session.started.extend(job_ids)
        ctx.exit(finish(session, group, what="jobs" if len(job_ids) > 1 else "job", timeout_s=timeout_s))


@jobs.command("cancel")
@job_ids_argument
@service_options
@click.pass_obj
def cancel(session: Session, job_ids: tuple[str, ...]) -> None:
    """Ask jobs to stop. What they have stored stays stored.

    \b
    Example:
      lookalike jobs cancel 01JDXYZ
    """
    _ask_of_each(session, job_ids, lambda job: job.cancel())


@jobs.command("pause")
@job_ids_argument
@service_options
@click.pass_obj
def pause(session: Session, job_ids: tuple[str, ...]) -> None:
    """Have ingests stand still after the batch in hand, until they are resumed.

    \b
    Example:
      lookalike jobs pause 01JDXYZ
    """
    _ask_of_each(session, job_ids, lambda job: job.pause())


@jobs.command("resume")
@job_ids_argument
@service_options
@click.pass_obj
def resume(session: Session, job_ids: tuple[str, ...]) -> None:
    """Let paused ingests go on.

    \b
    Example:
      lookalike jobs resume 01JDXYZ
    """
    _ask_of_each(session, job_ids, lambda job: job.resume())


def _ask_of_each(session: Session, job_ids: Iterable[str], ask: "Callable[[Job], JobRecord]") -> None:
    with session.client() as client:
        show_jobs(session, [ask(client.jobs.get(job_id)) for job_id in job_ids])


@jobs.command("retry")
@job_ids_argument
@click.option("--no-wait", is_flag=True, help="Print the new jobs and leave.")
@service_options
@click.pass_context
def retry(ctx: click.Context, job_ids: tuple[str, ...], no_wait: bool) -> None:
    """Ingest what failed, and only that: a new job for each.

    \b
    Example:
      lookalike jobs retry 01JDXYZ
    """
    from lookalike.client import JobGroup

    session = ctx.ensure_object(Session)
    with session.client() as client:
        group = JobGroup()
        for job_id in job_ids:
            group.in_place.append(client.jobs.get(job_id).retry())
            session.note(group.in_place[-1])
        if no_wait:
            show_jobs(session, [job.record for job in group.jobs])
            return
        code = finish(session, group, what="retry")
        summarise(group.progress, code=code)
        ctx.exit(code)


@jobs.command("failures")
@job_ids_argument
@service_options
@click.pass_obj
def failures(session: Session, job_ids: tuple[str, ...]) -> None:
    """List the files that could not be used, each with its reason.

    \b
    Example:
      lookalike jobs failures 01JDXYZ | cut -f1,2
    """
    with session.client() as client:
        found = [client.jobs.get(job_id) for job_id in job_ids]
        lines = (line for job in found for line in job.iter_failures())
        spare = ("attempts", "stage")
        show(session, FAILURE_COLUMNS, map(failure_row, lines), records=lambda: list(lines), spare=spare)
    tell_dropped([job.record for job in found])


@jobs.command("files")
@click.argument("job_id", metavar="ID")
@service_options
@click.pass_obj
def list_files(session: Session, job_id: str) -> None:
    """List the files that a job has left behind.

    \b
    Example:
      lookalike jobs files 01JDXYZ
    """
    with session.client() as client:
        found = client.jobs.get(job_id).files()
    show(session, ("name", "size", "url"), ((one.name, one.size, one.url) for one in found), records=lambda: found)


@jobs.command("download")
@click.argument("job_id", metavar="ID")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=".", help="A folder.")
@service_options
@click.pass_obj
def download(session: Session, job_id: str, names: tuple[str, ...], output: Path) -> None:
    """Fetch files that a job has left behind: all of them, or those named.

    \b
    Example:
      lookalike jobs download 01JDXYZ -o results
    """
    output.mkdir(parents=True, exist_ok=True)
    with session.client() as client:
        job = client.jobs.get(job_id)
        for name in names or [one.name for one in job.files()]:
            job.download_to(name, output / name)
            note(f"wrote {output / name}")
