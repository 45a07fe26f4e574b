"""`lookalike demo`."""

from pathlib import Path

import click

from lookalike.cli.picture import PictureFile
from lookalike.cli.session import data_dir_option


@click.command()
@data_dir_option
@click.option(
    "--out",
    type=PictureFile(),
    default=Path("search_result.png"),
    show_default=True,
    help="The picture of queries and hits to write.",
)
@click.pass_context
def demo(ctx: click.Context, data_dir: str | None, out: Path) -> None:
    """Show the service at work, then stop it.

    Draws a gallery of pictures, ingests it, searches it with altered copies, and shows what is found.

    \b
    Example:
      lookalike demo --out hits.png
    """
    from lookalike.demo import run

    ctx.exit(run(data_dir=Path(data_dir) if data_dir else None, out=out))
