"""`lookalike ingest`."""

import json
from typing import Any

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import finish, show_jobs, summarise
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


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-c", "--collection", help="Where the images go; it is created where it does not exist.")
@click.option(
    "-m",
    "--metadata",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_metadata,
    help="Stored with every image; filters compare it. Repeatable.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Take only files of a folder that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches. Repeatable.")
@click.option("--no-recursive", is_flag=True, help="Leave out folders inside a folder.")
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
def ingest(  # noqa: PLR0913 - One parameter per option.
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    collection: str | None,
    metadata: dict[str, Any],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    no_recursive: bool,
    upload: bool | None,
    no_wait: bool,
) -> None:
    """Store the images of files and folders.

    PATH is a file or folder here, or a folder under one of the service's roots. Images that are stored and have not
    changed are skipped; files that cannot be used are counted and listed, and do not stop the rest.

    \b
    Examples:
      lookalike ingest photos/
      lookalike ingest photos/ --collection spring -m year=2024 --exclude '*.gif'
      lookalike ingest a.jpg b.png --no-wait
    """
    session = ctx.ensure_object(Session)
    with session.client() as client:
        with progress_report("ingest") as on_progress:
            started = client.ingest(
                *paths,
                collection=collection,
                metadata=metadata,
                include=include,
                exclude=exclude,
                recursive=not no_recursive,
                upload="auto" if upload is None else upload,
                wait=False,
                on_progress=on_progress,
                on_job=session.note,
            )
        if no_wait:
            show_jobs(session, [job.record for job in started.jobs])
            ctx.exit(Exit.SOME_FILES if started.unsent else Exit.DONE)
        code = finish(session, started, what="ingest")
        summarise(started.progress)
        ctx.exit(code)
