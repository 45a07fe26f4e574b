"""`lookalike images`."""

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.cli.outcome import path_of, run_job
from lookalike.cli.output import note, show_fields
from lookalike.cli.output import show as show_table
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from lookalike.records import Image

#: More are only ever added on the right.
IMAGE_COLUMNS: Final = ("id", "image", "size", "width", "height", "metadata")


@click.group()
def images() -> None:
    """Look after stored images, by their ids."""


@images.command("ls")
@click.option("-c", "--collection", help="Where the images are.")
@click.option("--filter", "condition", metavar="EXPRESSION", help="Only images whose fields fit, as in: year > 2020")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
@service_options
@click.pass_obj
def list_images(session: Session, collection: str | None, condition: str | None, limit: int) -> None:
    """List stored images in the order of their ids.

    \b
    Example:
      lookalike images ls --filter "album == 'spring'" -n 1000 | cut -f1,2
    """
    with session.client() as client:
        found = list(islice(client.images.list(condition, collection=collection), limit))
    show_table(session, IMAGE_COLUMNS, map(_row, found), records=lambda: found, spare=("metadata", "height", "width"))


@images.command("set")
@click.argument("image_id", metavar="ID")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("-c", "--collection", help="Where the image is.")
@service_options
@click.pass_obj
def set_metadata(session: Session, image_id: str, changes: tuple[str, ...], collection: str | None) -> None:
    """Change some of an image's metadata. A value is JSON where it can be, else text; KEY= alone takes the key away.

    \b
    Example:
      lookalike images set 0123456789abcdef0123456789abcdef album=summer stars=5 draft=
    """
    metadata = dict(_change(text) for text in changes)
    with session.client() as client:
        image = client.images.update(image_id, metadata, collection=collection)
    show_fields(session, image.model_dump(), record=image)


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


def _row(image: "Image") -> tuple[object, ...]:
    where = path_of(image.uri) or image.name or image.uri
    return (image.id, where, image.size, image.width, image.height, json.dumps(image.metadata, ensure_ascii=False))


def _change(text: str) -> tuple[str, Any]:
    """Read one KEY=VALUE; None takes the key away."""
    key, is_one, value = text.partition("=")
    if not is_one or not key:
        raise click.UsageError(f"{text!r} is not KEY=VALUE.")
    if not value:
        return key, None
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
