"""`lookalike bulk-search`."""

from pathlib import Path
from typing import Any

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import run_job, show_jobs, warn_untrained
from lookalike.cli.output import note
from lookalike.cli.progress import progress_report
from lookalike.cli.search import hit_options
from lookalike.cli.session import Session, service_options


@click.command("bulk-search")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@hit_options
@click.option("--sheets", type=click.IntRange(0, 100), default=4, show_default=True, help="Contact sheets at most.")
@click.option("--include", multiple=True, metavar="GLOB", help="Take only files of a folder that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches. Repeatable.")
@click.option(
    "--upload/--in-place",
    "upload",
    default=None,
    help="Always upload, or have the service read SOURCE itself. By default it reads what is under its roots.",
)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="A folder for the results.")
@click.option("--no-wait", is_flag=True, help="Print the job once everything is sent, and leave.")
@service_options
@click.pass_context
def bulk_search(
    ctx: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    upload: bool | None,
    output: Path | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Search for every image of a folder, archive or manifest, as one job.

    SOURCE is a folder, archive (.zip, .tar, .tar.gz), manifest (.jsonl, .csv, .parquet: a column `uri`) or prefix of an
    object store; or several files and folders here, or addresses. The results are files of the job: results.jsonl with
    a line per query, results.csv with a line per hit, and contact sheets. With -o they are fetched.

    \b
    Examples:
      lookalike bulk-search new-arrivals/ -k 5 -o results
      lookalike bulk-search queries.csv --filter "year == 2024" --min-score 0.9 --no-wait
    """
    if output and no_wait:
        raise click.UsageError("--output needs the end of the job; `lookalike jobs download` fetches results later.")
    session = ctx.ensure_object(Session)
    with session.client() as client:
        with progress_report("upload") as report:
            job = client.bulk_search(
                *sources, upload="auto" if upload is None else upload, wait=False, on_bytes=report.bytes, **options
            )
        if no_wait:
            show_jobs(session, [job.record])
            return
        code = run_job(session, job, what="bulk search")
        warn_untrained(job.record.result)
        if output and code in {Exit.DONE, Exit.SOME_FILES}:
            output.mkdir(parents=True, exist_ok=True)
            for file in job.files():
                job.download_to(file.name, output / file.name)
                note(f"wrote {output / file.name}")
        elif code is not Exit.FAILED:
            note(f"the results: lookalike jobs download {job.id}")
        ctx.exit(code)
