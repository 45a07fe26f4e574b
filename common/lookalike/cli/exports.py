"""`lookalike collections export` and `lookalike collections import`."""

from pathlib import Path

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import run_job
from lookalike.cli.output import note
from lookalike.cli.session import Session, service_options


@click.command("export")
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder of its files."
)
@click.option(
    "--format",
    type=click.Choice(("parquet", "npy")),
    default="parquet",
    show_default=True,
    help="A series of tables, or a matrix for numpy with JSON lines.",
)
@click.option("--filter", "condition", metavar="EXPRESSION", help="Only images whose fields fit, as in: year > 2020")
@service_options
@click.pass_context
def export_collection(ctx: click.Context, *, name: str, output: Path, format: str, condition: str | None) -> None:
    """Write a collection with its vectors to files: a backup, or a table for other programs.

    \b
    Example:
      lookalike collections export spring -o backups/spring
    """
    from lookalike.client.exports import download_export

    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.collections.export(name, format=format, filter=condition, wait=False)
        code = run_job(session, job, what="export")
        if code is Exit.DONE:
            download_export(job, output)
            note(f"wrote {output}")
        ctx.exit(code)


@click.command("import")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--into", metavar="NAME", help="The collection; by default the one it was exported from.")
@click.option("--job", "job_id", metavar="ID", help="An export of the service, instead of a path.")
@service_options
@click.pass_context
def import_collection(ctx: click.Context, *, paths: tuple[str, ...], into: str | None, job_id: str | None) -> None:
    """Store the images of an export with their vectors, without embedding them again.

    PATH is a folder that an export was written to, or its files. What the service cannot read itself is uploaded.

    \b
    Example:
      lookalike collections import backups/spring --into restored
    """
    if bool(paths) == (job_id is not None):
        raise click.UsageError("Name the folder or files of an export, or its job with --job.")
    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.collections.import_from(*paths, into=into, job_id=job_id, wait=False)
        ctx.exit(run_job(session, job, what="import"))
