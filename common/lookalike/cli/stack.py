"""`lookalike up`, `down` and `status`: the whole service on this machine."""

from pathlib import Path
from typing import Final

import click

from lookalike.cli.output import note, show
from lookalike.cli.session import Session, data_dir_option, json_option, settings

#: More are only ever added on the right.
PROCESS_COLUMNS: Final = ("name", "pid", "state", "restarts")

_COUNT = click.IntRange(min=1)


@click.command()
@data_dir_option
@click.option("--host", help="The address to listen on; default LOOKALIKE_HOST or 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on; default LOOKALIKE_PORT or 8000.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that the service may read. Repeatable; default LOOKALIKE_ROOTS.",
)
@click.option("--ingest-workers", type=_COUNT, default=1, show_default=True, help="Processes that store images.")
@click.option("--search-workers", type=_COUNT, default=1, show_default=True, help="Processes that answer searches.")
@click.option("--weights", help="A .pth or .safetensors file, torchvision's name for weights, or `untrained`.")
@click.option("--detach", is_flag=True, help="Leave it running once it is ready.")
@click.pass_context
def up(  # noqa: PLR0913 - One parameter per option.
    ctx: click.Context,
    *,
    data_dir: str | None,
    host: str | None,
    port: int | None,
    roots: tuple[Path, ...],
    ingest_workers: int,
    search_workers: int,
    weights: str | None,
    detach: bool,
) -> None:
    """Start the whole service on this machine.

    It runs until Ctrl-C, or with --detach until `lookalike down`.

    \b
    Examples:
      lookalike up --root ~/Pictures
      lookalike up --detach --port 8080 --weights untrained
    """
    from lookalike.supervisor import UpOptions
    from lookalike.supervisor import up as start

    options = UpOptions.from_settings(
        settings(data_dir=data_dir, host=host, port=port, roots=roots, weights=weights),
        ingest_workers=ingest_workers,
        search_workers=search_workers,
        detach=detach,
        on_event=lambda event: note(str(event)),
    )
    ctx.exit(start(options))


@click.command()
@data_dir_option
@click.pass_context
def down(ctx: click.Context, data_dir: str | None) -> None:
    """Stop the service on this machine.

    \b
    Example:
      lookalike down
    """
    from lookalike.supervisor import down as stop

    ctx.exit(stop(settings(data_dir=data_dir).data_dir))


@click.command()
@data_dir_option
@json_option
@click.pass_obj
def status(session: Session, data_dir: str | None) -> None:
    """Show the processes of the service on this machine.

    \b
    Example:
      lookalike status --json
    """
    from lookalike.supervisor import status as look

    found = look(settings(data_dir=data_dir).data_dir)
    rows = [(process.name, process.pid, process.state, process.restarts) for process in found.processes]
    show(session, PROCESS_COLUMNS, rows, records=lambda: found)
