"""`lookalike images`."""

import click

from lookalike.cli.outcome import run_job
from lookalike.cli.output import note, show_fields
from lookalike.cli.session import Session, service_options


@click.group()
def images() -> None:
    """Look after stored images, by their ids."""


@images.command()
@click.argument("image_id", metavar="ID")
@click.option("-c", "--collection", help="Where the image is.")
@service_options
@click.pass_obj
def show(session: Session, image_id: str, collection: str | None) -> None:
    """Show what is stored about an image.

    \b
    Example:
      lookalike images show 0123456789abcdef0123456789abcdef
    """
    with session.client() as client:
        image = client.images.get(image_id, collection=collection)
    show_fields(session, image.model_dump(), record=image)


@images.command()
@click.argument("image_ids", nargs=-1, required=True, metavar="ID...")
@click.option("-c", "--collection", help="Where the images are.")
@service_options
@click.pass_obj
def delete(session: Session, image_ids: tuple[str, ...], collection: str | None) -> None:
    """Take images out of their collection. Their files stay where they are.

    \b
    Example:
      lookalike images delete 0123456789abcdef0123456789abcdef
    """
    with session.client() as client:
        for image_id in image_ids:
            client.images.delete(image_id, collection=collection)
            note(f"deleted {image_id}")


@images.command("delete-matching")
@click.argument("filter")
@click.option("-c", "--collection", help="Where the images are.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@service_options
@click.pass_context
def delete_matching(ctx: click.Context, filter: str, collection: str | None, dry_run: bool) -> None:
    """Take all images that FILTER matches out of their collection. Their files stay where they are.

    \b
    Example:
      lookalike images delete-matching "album == 'spring'" --dry-run
    """
    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.images.delete_matching(filter, collection=collection, dry_run=dry_run, wait=False)
        ctx.exit(run_job(session, job, what="deletion"))
