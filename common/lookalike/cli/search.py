"""`lookalike search`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import path_of, warn_untrained
from lookalike.cli.output import note, show
from lookalike.cli.picture import PictureFile
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalike.client import Job
    from lookalike.records import Hit, SearchResult

#: More are only ever added on the right.
HIT_COLUMNS: Final = ("query", "rank", "image", "score", "distance", "id", "width", "height")
_SPARE_COLUMNS: Final = ("width", "height", "id", "distance")  #: What a narrow terminal has to do without.


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-k", "--limit", type=click.IntRange(min=1), default=3, show_default=True, help="Hits per image.")
@click.option("-c", "--collection", help="Where to look.")
@click.option("--filter", "condition", metavar="EXPRESSION", help="Only images whose fields fit, as in: year > 2020")
@click.option(
    "--figure",
    type=PictureFile(),
    help="Write a picture of the queries and their hits (PNG).",
)
@click.option("--id", "by_id", is_flag=True, help="IMAGE is the id of a stored image.")
@click.option("--in-place", is_flag=True, help="IMAGE is a path under a root of the service, which reads it itself.")
@service_options
@click.pass_context
def search(  # noqa: PLR0913 - One parameter per option.
    ctx: click.Context,
    *,
    images: tuple[str, ...],
    limit: int,
    collection: str | None,
    condition: str | None,
    figure: Path | None,
    by_id: bool,
    in_place: bool,
) -> None:
    """Find the stored images most like the given ones.

    Prints a line per hit, closest first. The score grows with likeness; the distance is the vector store's.

    \b
    Examples:
      lookalike search photo.jpg
      lookalike search a.jpg b.jpg -k 10 --filter "year == 2024" --figure hits.png
      lookalike search photo.jpg -k 1 | tail -n 1 | cut -f3
    """
    if by_id and in_place:
        raise click.UsageError("--id and --in-place exclude each other.")
    if not (by_id or in_place):
        _refuse_folders(images)
    session = ctx.ensure_object(Session)
    jobs: list[Job] = []
    with session.client() as client:
        result = client.search(
            *(() if by_id or in_place else images),
            image_ids=images if by_id else (),
            server_paths=images if in_place else (),
            collection=collection,
            limit=limit,
            filter=condition,
            on_job=jobs.append,
        )
        show(session, HIT_COLUMNS, _rows(images, result), records=lambda: result, spare=_SPARE_COLUMNS)
        if figure is not None:
            _write_figures(figure, jobs)
    warn_untrained(result.model_dump(include={"model"}))
    if result.model is None:
        note(f"The collection {result.collection} has no images yet.")
    elif condition and not any(answer.hits or answer.error for answer in result.queries):
        note("No image fits the filter.")
    failed = [(image, answer.error) for image, answer in zip(images, result.queries, strict=True) if answer.error]
    for image, error in failed:
        note(f"failed: {image}: {error.message} ({error.code})")
    ctx.exit(Exit.SOME_FILES if failed else Exit.DONE)


def _rows(images: Sequence[str], result: "SearchResult") -> "Iterator[tuple[object, ...]]":
    for image, answer in zip(images, result.queries, strict=True):
        for hit in answer.hits:
            yield (image, hit.rank, _where(hit), hit.score, hit.distance, hit.id, hit.width, hit.height)


def _where(hit: "Hit") -> str:
    """Return what people know a hit by: a path, or the name it was uploaded with."""
    return path_of(hit.uri) or hit.name or hit.uri


def _refuse_folders(images: Sequence[str]) -> None:
    for image in images:
        if Path(image).is_dir():
            raise click.UsageError(f"{image} is a folder; name the images in it.")


def _write_figures(path: Path, jobs: "Sequence[Job]") -> None:
    """Write a picture per job: a search for more images than fit into one has several."""
    for number, job in enumerate(jobs, 1):
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        target.write_bytes(job.figure())
        note(f"wrote {target}")
