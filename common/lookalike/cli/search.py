"""`lookalike search`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.cli.exits import Exit
from lookalike.cli.models import show_comparison
from lookalike.cli.outcome import path_of, warn_untrained
from lookalike.cli.output import note, show
from lookalike.cli.picture import PictureFile
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalike.client import Job
    from lookalike.records import Hit, SearchResult

#: More are only ever added on the right.
HIT_COLUMNS: Final = ("query", "rank", "image", "score", "distance", "id", "width", "height", "percentile", "band")
_SPARE_COLUMNS: Final = (
    "width",
    "height",
    "percentile",
    "id",
    "distance",
)  #: What a narrow terminal has to do without.


def _box(_ctx: click.Context, _param: click.Parameter, text: str | None) -> "tuple[float, float, float, float] | None":
    if text is None:
        return None
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not four numbers, as in 0.25,0.25,0.5,0.5") from error
    return left, top, width, height


def _params(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if name not in {"ef", "nprobe"} or not number.isdecimal():
            raise click.BadParameter(f"{value!r} is neither ef=NUMBER nor nprobe=NUMBER")
        found[name] = int(number)
    return found


_HIT_TERMS = (
    click.option("-k", "--limit", type=click.IntRange(min=1), default=3, show_default=True, help="Hits per image."),
    click.option("-c", "--collection", help="Where to look."),
    click.option("--model", help="Which of the collection's models is to answer."),
    click.option("--filter", metavar="EXPRESSION", help="Only images whose fields fit, as in: year > 2020"),
    click.option("--max-distance", type=float, help="Only hits that are at least as close as this distance."),
    click.option("--min-score", type=float, help="Only hits with at least this score."),
    click.option("--group-by", metavar="FIELD", help="Of images with the same value only the closest."),
    click.option("--exclude-self", is_flag=True, help="Leave out the images that are searched with."),
    click.option("--distinct", is_flag=True, help="Of images with the same content only the closest."),
    click.option(
        "--param",
        "params",
        multiple=True,
        metavar="NAME=NUMBER",
        callback=_params,
        help="How closely to look: ef or nprobe, whichever the index takes.",
    ),
    click.option("--consistency", type=click.Choice(("strong", "bounded")), help="strong finds what was just stored."),
    click.option(
        "--variant",
        "variants",
        multiple=True,
        type=click.Choice(("mirror", "rotate90", "rotate180", "rotate270")),
        help="Search with the image turned, too. Repeatable.",
    ),
)

_TERMS = (
    *_HIT_TERMS,
    click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out so many hits at the beginning."),
    click.option(
        "--box",
        metavar="X,Y,W,H",
        callback=_box,
        help="Only this region of each image, in parts of its sides: 0.25,0.25,0.5,0.5 is the middle.",
    ),
)


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a search to a command, in the order of this list."""
    return _with(_TERMS, command)


def hit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those options that make sense for any number of queries."""
    return _with(_HIT_TERMS, command)


def _with(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@search_options
@click.option("--together", is_flag=True, help="The images are examples of one thing to search for.")
@click.option("--unlike", multiple=True, metavar="IMAGE", help="An example of what is not wanted. Repeatable.")
@click.option("--compare", metavar="MODEL", help="Print what this model of the collection finds beside what serves it.")
@click.option(
    "--figure",
    type=PictureFile(),
    help="Write a picture of the queries and their hits (PNG).",
)
@click.option("--id", "by_id", is_flag=True, help="IMAGE is the id of a stored image.")
@click.option("--in-place", is_flag=True, help="IMAGE is a path under a root of the service, which reads it itself.")
@click.option("--address", "by_url", is_flag=True, help="IMAGE is an address, which the service fetches.")
@service_options
@click.pass_context
def search(  # noqa: PLR0913 - One parameter per option that says what IMAGE is; the others come together.
    ctx: click.Context,
    /,
    *,
    images: tuple[str, ...],
    figure: Path | None,
    by_id: bool,
    in_place: bool,
    by_url: bool,
    together: bool,
    unlike: tuple[str, ...],
    compare: str | None,
    **terms: Any,
) -> None:
    """Find the stored images most like the given ones.

    Prints a line per hit, closest first. The score grows with likeness; the distance is the vector store's.

    \b
    Examples:
      lookalike search photo.jpg
      lookalike search a.jpg b.jpg -k 10 --filter "year == 2024" --figure hits.png
      lookalike search photo.jpg -k 1 | tail -n 1 | cut -f3
      lookalike search photo.jpg --box 0.5,0,0.5,0.5 --exclude-self --distinct
      lookalike search red.jpg round.jpg --unlike square.jpg
      lookalike search photo.jpg -k 10 --compare resnet18
    """
    kind = _kind(by_id=by_id, in_place=in_place, by_url=by_url)
    if kind is None:
        _refuse_folders((*images, *unlike))
    if compare and terms["model"]:
        raise click.UsageError("--compare is with the model that serves: leave --model out.")
    as_one = together or bool(unlike)
    session = ctx.ensure_object(Session)
    jobs: list[Job] = []
    named = _named(kind, images, unlike, terms["box"], as_one=as_one)
    pictures = images if kind is None else ()
    asked = (" + ".join(images),) if as_one else images
    with session.client() as client:
        result = client.search(*pictures, **named, **terms, on_job=jobs.append)
        if compare:
            from lookalike.client.comparing import side_by_side

            other = client.search(*pictures, **named, **terms | {"model": compare}, on_job=jobs.append)
            show_comparison(session, side_by_side(asked, result, other), terms["limit"])
        else:
            _show_hits(session, asked, result)
        if figure is not None:
            _write_figures(figure, jobs)
    warn_untrained(result.model_dump(include={"model"}))
    if result.model is None:
        note(f"The collection {result.collection} has no images yet.")
    elif terms["filter"] and not any(answer.hits or answer.error for answer in result.queries):
        note("No image fits the filter.")
    failed = [(image, answer.error) for image, answer in zip(asked, result.queries, strict=True) if answer.error]
    for image, error in failed:
        note(f"failed: {image}: {error.message} ({error.code})")
    ctx.exit(Exit.SOME_FILES if failed else Exit.DONE)


def _show_hits(session: Session, asked: Sequence[str], result: "SearchResult") -> None:
    in_parts = any(hit.box for answer in result.queries for hit in answer.hits)
    columns = (*HIT_COLUMNS, "box") if in_parts else HIT_COLUMNS
    rows = _rows(asked, result, in_parts=in_parts)
    show(session, columns, rows, records=lambda: result, spare=("box", *_SPARE_COLUMNS))


def _kind(*, by_id: bool, in_place: bool, by_url: bool) -> str | None:
    """Return what an IMAGE is to the service; None for a local file."""
    kinds = [kind for kind, is_it in (("image_id", by_id), ("path", in_place), ("url", by_url)) if is_it]
    if len(kinds) > 1:
        raise click.UsageError("--id, --in-place and --address exclude each other.")
    return kinds[0] if kinds else None


def _named(
    kind: str | None, images: Sequence[str], unlike: Sequence[str], box: object, *, as_one: bool
) -> dict[str, Any]:
    """Return what a search names, apart from local files, as options of the client."""
    if kind is None:
        return {"unlike": unlike, "together": as_one}
    region = {} if box is None else {"box": box}
    wanted = [{kind: image, **region} for image in images]
    if not as_one:
        return {"queries": wanted}
    return {"queries": [{"positive": wanted, "negative": [{kind: image, **region} for image in unlike]}]}


def _rows(images: Sequence[str], result: "SearchResult", *, in_parts: bool) -> "Iterator[tuple[object, ...]]":
    for image, answer in zip(images, result.queries, strict=True):
        for hit in answer.hits:
            yield (
                image,
                hit.rank,
                _where(hit),
                hit.score,
                hit.distance,
                hit.id,
                hit.width,
                hit.height,
                hit.percentile,
                hit.band,
                *((",".join(f"{part:g}" for part in hit.box or ()),) if in_parts else ()),
            )


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
