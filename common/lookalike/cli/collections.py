"""`lookalike collections`."""

from typing import TYPE_CHECKING, Final

import click

from lookalike.cli.exports import export_collection, import_collection
from lookalike.cli.output import note, show, show_fields
from lookalike.cli.progress import images
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from lookalike.records import Collection, Tiles

#: More are only ever added on the right.
COLLECTION_COLUMNS: Final = ("name", "metric", "index", "model", "weights")


@click.group()
def collections() -> None:
    """Look after collections.

    A collection is a named set of images with one model, metric and index.
    """


@collections.command("ls")
@service_options
@click.pass_obj
def list_collections(session: Session) -> None:
    """List all collections.

    \b
    Example:
      lookalike collections ls
    """
    with session.client() as client:
        found = client.collections.list()
    show(session, COLLECTION_COLUMNS, map(_row, found), records=lambda: found, spare=("index", "weights"))


@collections.command()
@click.argument("name")
@click.option(
    "--metric", type=click.Choice(("COSINE", "L2", "IP"), case_sensitive=False), help="How vectors are compared."
)
@click.option(
    "--index",
    type=click.Choice(("AUTO", "FLAT", "IVF_FLAT", "HNSW", "tutorial"), case_sensitive=False),
    help="How they are searched.",
)
@click.option(
    "--tiles",
    type=click.IntRange(2, 4),
    metavar="GRID",
    help="Embed GRID x GRID overlapping regions of each image, too (3 is a good choice), so that a crop finds it.",
)
@click.option("--tile-overlap", type=click.FloatRange(0, 0.75), help="What neighbouring tiles share of a side: 0.25.")
@service_options
@click.pass_obj
def create(
    session: Session, name: str, metric: str | None, index: str | None, tiles: int | None, tile_overlap: float | None
) -> None:
    """Create an empty collection.

    An ingest creates a missing one by itself; this is to choose metric, index and tiles.

    \b
    Example:
      lookalike collections create spring --metric L2
      lookalike collections create parts --tiles 3
    """
    cut = _tiles(tiles, tile_overlap)
    with session.client() as client:
        _show_one(session, client.collections.create(name, metric=metric, index=index, tiles=cut))


@collections.command("show")
@click.argument("name")
@service_options
@click.pass_obj
def show_collection(session: Session, name: str) -> None:
    """Show one collection with its model and the number of its images.

    \b
    Example:
      lookalike collections show spring
    """
    with session.client() as client:
        _show_one(session, client.collections.get(name))


@collections.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@service_options
@click.pass_obj
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete a collection with all its vectors. The image files stay where they are.

    \b
    Example:
      lookalike collections delete spring --yes
    """
    with session.client() as client:
        if not yes:
            count = client.collections.get(name).count or 0
            click.confirm(f"Delete the collection {name} with {count} {images(count)}?", abort=True, err=True)
        client.collections.delete(name)
    note(f"deleted {name}")


for command in (export_collection, import_collection):
    collections.add_command(command)


def _tiles(grid: int | None, overlap: float | None) -> "Tiles | None":
    from lookalike.records import Tiles

    if grid is None:
        if overlap is not None:
            raise click.UsageError("--tile-overlap is about tiles: add --tiles GRID.")
        return None
    return Tiles(grid=grid) if overlap is None else Tiles(grid=grid, overlap=overlap)


def _row(collection: "Collection") -> tuple[object, ...]:
    model = collection.model
    bound = (model.name, model.weights) if model else (None, None)
    return (collection.name, collection.metric, collection.index, *bound)


def _show_one(session: Session, collection: "Collection") -> None:
    fields = dict(zip(COLLECTION_COLUMNS, _row(collection), strict=True))
    fields["count"] = collection.count
    if collection.tiles:
        fields["tiles"] = f"{collection.tiles.grid} x {collection.tiles.grid}, overlap {collection.tiles.overlap:g}"
    fields["fingerprint"] = collection.model.fingerprint if collection.model else None
    if collection.index_chosen:
        chosen = collection.index_chosen
        parameters = {**chosen.params, **chosen.search}
        words = [chosen.index_type, *(f"{name}={value}" for name, value in parameters.items())]
        fields["index_chosen"] = f"{' '.join(words)}: {chosen.reason}"
    show_fields(session, fields, record=collection)
