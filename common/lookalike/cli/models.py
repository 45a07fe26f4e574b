"""`lookalike collections models`, `reembed`, `switch`, `compare` and `drop-model`: a collection's models."""

from typing import TYPE_CHECKING, Final

import click

from lookalike.cli.outcome import finish, summarise
from lookalike.cli.output import note, show
from lookalike.cli.progress import images
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalike.client.comparing import Comparison
    from lookalike.records import Collection

#: More are only ever added on the right.
MODEL_COLUMNS: Final = ("model", "weights", "state", "count", "fingerprint")
COMPARE_COLUMNS: Final = ("query", "rank", "serving", "other", "in_both")

model_argument = click.argument("model")


@click.command()
@click.argument("name")
@service_options
@click.pass_obj
def models(session: Session, name: str) -> None:
    """List the models that a collection has vectors of.

    \b
    Example:
      lookalike collections models spring
    """
    with session.client() as client:
        found = client.collections.get(name)
    show(session, MODEL_COLUMNS, _rows(found), records=lambda: found.models, spare=("weights",))


@click.command()
@click.argument("name")
@model_argument
@click.option("--switch", is_flag=True, help="Have the model serve the collection once all is embedded.")
@click.option("--allow-missing", is_flag=True, help="Switch although some images could not be embedded.")
@click.option("--no-wait", is_flag=True, help="Print the new job and leave.")
@service_options
@click.pass_context
def reembed(ctx: click.Context, *, name: str, model: str, switch: bool, allow_missing: bool, no_wait: bool) -> None:
    """Embed a collection's images with another MODEL, while the one that made it serves on.

    Workers with that model have to run beside the others. MODEL is its name, or the beginning of its fingerprint. Done
    again, it embeds what is missing only.

    \b
    Examples:
      lookalike collections reembed spring resnet18
      lookalike collections reembed spring resnet18 --switch
    """
    from lookalike.cli.outcome import show_jobs

    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.collections.reembed(name, model, switch=switch, allow_missing=allow_missing, wait=False)
        session.note(job)
        if no_wait:
            show_jobs(session, [job.record])
            return
        code = finish(session, job, what="re-embedding")
        summarise(job.progress, code=code)
        ctx.exit(code)


@click.command("switch")
@click.argument("name")
@model_argument
@click.option("--force", is_flag=True, help="Switch although fewer images are stored with it.")
@service_options
@click.pass_obj
def switch_model(session: Session, name: str, model: str, force: bool) -> None:
    """Have another of its models serve a collection, at once: a new one, or the one before.

    \b
    Example:
      lookalike collections switch spring resnet50
    """
    with session.client() as client:
        found = client.collections.switch(name, model, force=force)
    show(session, MODEL_COLUMNS, _rows(found), records=lambda: found, spare=("weights",))


@click.command("drop-model")
@click.argument("name")
@model_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@service_options
@click.pass_obj
def drop_model(session: Session, name: str, model: str, yes: bool) -> None:
    """Delete a collection's vectors of a model that does not serve it.

    \b
    Example:
      lookalike collections drop-model spring resnet50 --yes
    """
    with session.client() as client:
        if not yes:
            click.confirm(f"Delete the vectors that {name} has of {model}?", abort=True, err=True)
        client.collections.drop_model(name, model)
    note(f"dropped {model} from {name}")


@click.command()
@click.argument("name")
@model_argument
@click.argument("image_ids", nargs=-1, required=True, metavar="ID...")
@click.option("-k", "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Hits per image.")
@service_options
@click.pass_obj
def compare(session: Session, name: str, model: str, image_ids: tuple[str, ...], limit: int) -> None:
    """Search for stored images with the model that serves and with MODEL, side by side.

    Prints a line per rank. On stderr it says how many of the hits both models find.

    \b
    Example:
      lookalike collections compare spring resnet18 0123456789abcdef0123456789abcdef
    """
    with session.client() as client:
        found = client.collections.compare(name, model, image_ids, limit=limit)
    show_comparison(session, found, limit)


def show_comparison(session: Session, found: "Comparison", limit: int) -> None:
    """Print what two models find, a line per rank, and on stderr how much of it both do."""
    show(session, COMPARE_COLUMNS, _pairs(found), records=lambda: found)
    if found.overlap is not None:
        count = len(found.queries)
        note(f"overlap@{limit}: {found.overlap:.0%} of the hits of {count} {images(count)} are found by both models")


#: All of them, for the group `collections`.
COMMANDS: Final = (models, reembed, compare, switch_model, drop_model)


def _rows(collection: "Collection") -> "Iterator[tuple[object, ...]]":
    for one in collection.models:
        yield one.model.name, one.model.weights, one.state, one.count, one.model.fingerprint
    if not collection.models and collection.model:
        model = collection.model
        yield model.name, model.weights, "serving", collection.count, model.fingerprint


def _pairs(found: "Comparison") -> "Iterator[tuple[object, ...]]":
    for query in found.queries:
        ids = {hit.id for hit in query.serving} & {hit.id for hit in query.other}
        for rank in range(max(len(query.serving), len(query.other))):
            left, right = (hits[rank] if rank < len(hits) else None for hits in (query.serving, query.other))
            both = [side for side, hit in (("serving", left), ("other", right)) if hit and hit.id in ids]
            yield (
                query.image_id,
                rank + 1,
                left and (left.name or left.uri),
                right and (right.name or right.uri),
                " ".join(both),
            )
