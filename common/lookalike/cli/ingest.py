"""`lookalike ingest`."""

import json
from collections.abc import Callable
from typing import Any, TextIO

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import finish, show_jobs, summarise, tell_failures
from lookalike.cli.output import note
from lookalike.cli.progress import progress_report
from lookalike.cli.session import Session, service_options


def _metadata(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    """Read a number, true, false or a quoted text as JSON has them; anything else is the text itself."""
    try:
        value = json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) else text


def _addresses(_ctx: click.Context, _param: click.Parameter, file: TextIO | None) -> tuple[str, ...]:
    if file is None:
        return ()
    with file:
        lines = [line.strip() for line in file]
    found = tuple(line for line in lines if line and not line.startswith("#"))
    for address in found:
        if "://" not in address:  # It would be taken for a path of this machine.
            raise click.BadParameter(f"{address!r} is not an address. One looks like https://example.com/cat.jpg.")
    return found


_OPTIONS = (
    click.option("-c", "--collection", help="Where the images go; it is created where it does not exist."),
    click.option(
        "-m",
        "--metadata",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_metadata,
        help="Stored with every image; filters compare it. Repeatable.",
    ),
    click.option(
        "--include", multiple=True, metavar="GLOB", help="Take only files of a folder that match. Repeatable."
    ),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches. Repeatable."),
    click.option("--recursive/--no-recursive", default=True, help="Take folders inside a folder, too; the default."),
    click.option("--hidden", is_flag=True, help="Take names that begin with a dot, too."),
    click.option("--symlinks", is_flag=True, help="Follow links that lead to something under the service's roots."),
    click.option("--label-from-folder", is_flag=True, help="Store the name of an image's folder as the field `label`."),
    click.option("--checksum", is_flag=True, help="Tell changed files by content instead of by size and time."),
    click.option("--sync", is_flag=True, help="Also remove what is gone from the folder; moved files keep their rows."),
    click.option("-n", "--dry-run", is_flag=True, help="Store nothing; say what would be done."),
    click.option(
        "--priority",
        type=click.Choice(("low", "normal", "high")),
        default="normal",
        help="The share of the workers while other ingests run.",
    ),
    click.option("--webhook", metavar="URL", help="An address that is sent the job's record when it ends."),
)


def ingest_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an ingest to a command, in the order of this list."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@ingest_options
@click.option(
    "--urls",
    type=click.File(lazy=True),
    callback=_addresses,
    metavar="FILE",
    help="A file of addresses of images, one a line; - reads them from stdin.",
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="A published set of images: paintings.")
@click.option(
    "--upload/--in-place",
    "upload",
    default=None,
    help="Always upload, or have the service read its own folders. By default it reads those under its roots, and "
    "the rest is uploaded.",
)
@click.option("--no-wait", is_flag=True, help="Print the jobs once everything is sent, and leave.")
@service_options
@click.pass_context
def ingest(
    ctx: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    urls: tuple[str, ...],
    datasets: tuple[str, ...],
    upload: bool | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Store images.

    SOURCE is a file or folder here, a folder under one of the service's roots, an archive (.zip, .tar, .tar.gz), a
    manifest (.jsonl, .csv, .parquet: a column `uri`, the others become metadata), the address of one of these, or a
    prefix of an object store. Images that are stored and have not changed are skipped; files that cannot be used are
    counted and listed, and do not stop the rest.

    \b
    Examples:
      lookalike ingest photos/
      lookalike ingest photos/ --sync --dry-run
      lookalike ingest photos/ --collection spring -m year=2024 --exclude '*.gif'
      lookalike ingest scans.tar.gz https://example.com/cat.jpg s3://pictures/2024/
    """
    if not (sources or urls or datasets):
        raise click.UsageError("Missing argument 'SOURCE...'.")
    session = ctx.ensure_object(Session)
    fetched = [_dataset(name) for name in datasets]
    with session.client() as client:
        with progress_report("ingest") as report:
            started = client.ingest(
                *sources,
                *urls,
                *fetched,
                upload="auto" if upload is None else upload,
                wait=False,
                on_progress=report.progress,
                on_job=session.note,
                on_bytes=report.bytes,
                **options,
            )
        if no_wait:
            show_jobs(session, [job.record for job in started.jobs])
            tell_failures(started, len(started.unsent))
            ctx.exit(Exit.SOME_FILES if started.unsent else Exit.DONE)
        code = finish(session, started, what="ingest")
        summarise(started.progress, code=code, dry_run=options["dry_run"])
        ctx.exit(code)


def _dataset(name: str) -> str:
    from lookalike.client.datasets import fetch

    with progress_report(name) as report:
        path = fetch(name, on_bytes=report.bytes)
    note(f"{name} lies at {path}")
    return str(path)
