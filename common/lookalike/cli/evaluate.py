"""`lookalike evaluate`, and what it leads to: `lookalike collections reindex` and `lookalike collections map`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from lookalike.cli.exits import Exit
from lookalike.cli.outcome import run_job
from lookalike.cli.output import note, show
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from lookalike.client import Job

F = TypeVar("F", bound=Callable[..., Any])

#: The measure that a pass mark without a name is for.
_MAIN: Final = {"recall": "recall_at_10", "labels": "map_at_10", "robustness": "recall_at_1"}
_ALTERATIONS: Final = (
    *("crop_80", "crop_65", "crop_50", "jpeg_30", "rescale_50"),
    *("rotate_10", "rotate_90", "mirror", "blur"),
)


@click.group()
def evaluate() -> None:
    """Measure how well a collection is searched.

    With --pass-mark the exit code is 1 where a mark is not reached, for use in CI.
    """


def _common(command: F) -> F:
    options = (
        click.option("-c", "--collection", help="The collection."),
        click.option("-n", "--sample", type=click.IntRange(1, 2_000), help="How many images are searched for."),
        click.option("--seed", type=click.IntRange(min=0), help="Another seed takes another sample."),
        click.option("--pass-mark", "marks", multiple=True, metavar="[NAME=]VALUE", help="The least that passes."),
        click.option(
            "-o", "--output", type=click.Path(file_okay=False), metavar="FOLDER", help="Save the reports there."
        ),
        service_options,
        click.pass_context,
    )
    decorated: Any = command
    for option in options[::-1]:
        decorated = option(decorated)
    return cast("F", decorated)


@evaluate.command()
@click.option("--target", type=click.FloatRange(0, 1), help="The recall@10 that a parameter is suggested for.")
@_common
def recall(ctx: click.Context, target: float | None, **options: Any) -> None:
    """Compare the index with exact search: recall and latency for each search parameter.

    \b
    Example:
      lookalike evaluate recall --collection spring --target 0.99
    """
    _run(ctx, "recall", options, target=target)


@evaluate.command()
@click.option("--field", help="The metadata field that says what belongs together; default label.")
@click.option("--distinct", is_flag=True, help="Leave images of the query's own content out.")
@_common
def labels(ctx: click.Context, field: str | None, distinct: bool, **options: Any) -> None:
    """Ask whether images of one label find each other: mAP@10 and P@1.

    `lookalike ingest --label-from-folder` stores the labels.

    \b
    Example:
      lookalike evaluate labels --collection spring --field album
    """
    _run(ctx, "labels", options, field=field, distinct=distinct or None)


@evaluate.command()
@click.option(
    "--alteration", "alterations", multiple=True, type=click.Choice(_ALTERATIONS), help="Only these; default all."
)
@_common
def robustness(ctx: click.Context, alterations: tuple[str, ...], **options: Any) -> None:
    """Ask whether cropped, turned, blurred and otherwise altered copies find their originals.

    \b
    Example:
      lookalike evaluate robustness --collection spring --sample 50 --pass-mark jpeg_30=0.9
    """
    _run(ctx, "robustness", options, alterations=alterations or None)


@click.command("reindex")
@click.argument("name")
@click.option(
    "--index",
    type=click.Choice(("AUTO", "FLAT", "IVF_FLAT", "HNSW", "tutorial"), case_sensitive=False),
    help="How it is searched.",
)
@click.option("--build", multiple=True, metavar="NAME=NUMBER", help="M, efConstruction or nlist; may be repeated.")
@click.option("--search", multiple=True, metavar="NAME=NUMBER", help="ef or nprobe, of searches that name none.")
@click.option("--offline", is_flag=True, help="Also where searches fail until the index is built.")
@service_options
@click.pass_context
def reindex_collection(
    ctx: click.Context, name: str, index: str | None, build: tuple[str, ...], search: tuple[str, ...], offline: bool
) -> None:
    """Give a collection another index, or other search parameters; what is left out stays.

    \b
    Example:
      lookalike collections reindex spring --index AUTO
    """
    session = ctx.ensure_object(Session)
    parameters = {"build": _numbers(build) or None, "search": _numbers(search) or None}
    with session.client() as client:
        job = client.evaluations.reindex(name, index=index, offline=offline, wait=False, **parameters)
        ctx.exit(run_job(session, job, what="reindexing"))


@click.command("map")
@click.argument("name")
@click.option(
    "-n", "--limit", type=click.IntRange(3, 10_000), default=5_000, show_default=True, help="How many images."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Save the points there, as JSON.")
@service_options
@click.pass_context
def map_collection(ctx: click.Context, name: str, limit: int, output: str | None) -> None:
    """Lay a sample of a collection out in a plane: their two principal components.

    \b
    Example:
      lookalike collections map spring --output map.json
    """
    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.evaluations.map(collection=name, limit=limit, wait=False)
        code = run_job(session, job, what="map")
        if output and code is Exit.DONE:
            job.download_to("map.json", Path(output))
            note(f"wrote {output}")
        ctx.exit(code)


def _run(ctx: click.Context, kind: str, options: Mapping[str, Any], **fields: Any) -> None:
    session = ctx.ensure_object(Session)
    marks = {name: float(value) for name, value in (_pair(text, _MAIN[kind]) for text in options["marks"])}
    asked = {name: options[name] for name in ("collection", "sample", "seed")} | fields
    with session.client() as client:
        job = client.evaluations.run(kind, pass_mark=marks, wait=False, **asked)
        code = run_job(session, job, what="evaluation", tell=lambda: _tell(session, job, kind))
        if options["output"] and job.record.result:
            folder = Path(options["output"])
            folder.mkdir(parents=True, exist_ok=True)
            for file in job.files():
                job.download_to(file.name, folder / file.name)
                note(f"wrote {folder / file.name}")
        result = job.record.result or {}
        for name, value in result.get("missed", {}).items():
            note(f"not passed: {name} is {value:.4g}, and {marks[name]:.4g} is the mark")
        ctx.exit(Exit.FAILED if result.get("passed") is False else code)


def _pair(text: str, main: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=")
    try:
        float(value)
    except ValueError:
        raise click.UsageError(f"A pass mark is a number, or NAME=NUMBER; {text!r} is neither.") from None
    return name or main, value


def _numbers(pairs: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in pairs:
        name, _, value = text.partition("=")
        if not name or not value.isdecimal():
            raise click.UsageError(f"A parameter is given as NAME=NUMBER; {text!r} is not.")
        found[name] = int(value)
    return found


def _tell(session: Session, job: "Job", kind: str) -> None:
    """Print the table of a report."""
    report = (job.record.result or {})[kind]
    columns: tuple[str, ...]
    if kind == "recall":
        columns = ("params", "default", "recall@1", "recall@10", "recall@100", "p50_ms", "p95_ms")
        rows = [
            (_params(point["params"]), "yes" if point["default"] else "", *(point[key] for key in _POINT))
            for point in report["points"]
        ]
    elif kind == "labels":
        columns = ("label", "images", "queries", "map@10", "p@1")
        overall = ("(all)", "", report["queries"], report["map_at_10"]["mean"], report["precision_at_1"]["mean"])
        keys = ("label", "images", "queries", "map_at_10", "precision_at_1")
        rows = [overall, *(tuple(row[key] for key in keys) for row in report["labels"])]
    else:
        columns = ("alteration", "queries", "recall@1", "low", "high", "recall@10")
        rows = [
            (one["alteration"], one["queries"], *one["recall_at_1"].values(), one["recall_at_10"]["mean"])
            for one in report["alterations"]
        ]
    show(session, columns, rows, records=lambda: job.record)
    if kind == "recall" and not session.as_json:
        note(_advice(report))


_POINT: Final = ("recall_at_1", "recall_at_10", "recall_at_100", "p50_ms", "p95_ms")


def _params(params: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "exact"


def _advice(report: Mapping[str, Any]) -> str:
    if report["exact"]:
        return "This index compares every row: there is nothing to tune."
    if report["suggested"] is None:
        return f"No parameter tried reaches a recall@10 of {report['target']}."
    return f"The cheapest that reaches a recall@10 of {report['target']}: {_params(report['suggested'])}."
