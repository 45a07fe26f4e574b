"""`lookalike duplicates`."""

import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.outcome import run_job
from lookalike.cli.output import note, show
from lookalike.cli.session import Session, service_options

if TYPE_CHECKING:
    from lookalike.client import Job

_COLUMNS = ("cluster", "keep", "distance", "width", "height", "size", "id", "uri")


@click.command()
@click.option("-c", "--collection", help="Where to look.")
@click.option(
    "--level",
    type=click.Choice(("content", "picture", "near")),
    default="content",
    show_default=True,
    help="The same bytes, the same picture, or alike to the model.",
)
@click.option("--max-bits", type=click.IntRange(0, 12), help="Of picture: how many of 64 bits may differ.")
@click.option("--min-score", type=float, help="Of near: the lowest score that counts.")
@click.option("--max-distance", type=float, help="Of near: the farthest distance that counts.")
@click.option(
    "--keep",
    type=click.Choice(("largest", "oldest", "newest", "first")),
    default="largest",
    show_default=True,
    help="Which of a cluster to suggest for keeping; `first` goes by address.",
)
@click.option("--delete", is_flag=True, help="Take all but the keepers out of the collection; files stay.")
@click.option("--dry-run", is_flag=True, help="Only say how many would be deleted.")
@click.option("-n", "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Clusters to print.")
@service_options
@click.pass_context
def duplicates(ctx: click.Context, /, limit: int, **options: Any) -> None:
    """Find images that are the same, and print them in clusters.

    \b
    Example:
      lookalike duplicates --level picture --delete --dry-run
    """
    session = ctx.ensure_object(Session)
    with session.client() as client:
        job = client.duplicates(wait=False, **options)
        ctx.exit(run_job(session, job, what="duplicates", tell=lambda: _tell(session, job, limit)))


def _tell(session: Session, job: "Job", limit: int) -> None:
    result = job.record.result or {}
    found = _clusters(job, limit)
    rows = (_row(number, cluster, image) for number, cluster in enumerate(found, 1) for image in cluster["images"])
    show(session, _COLUMNS, rows, records=lambda: [{"job": job.id, **result, "found": found}])
    count, what = (result["deleted"], "were") if result["deleted"] else (result["deletable"], "could be")
    note(f"{result['images']} images in {result['clusters']} clusters, of which {count} {what} deleted")
    if result["note"]:
        note(result["note"])
    note(f"all clusters, and a contact sheet: lookalike jobs download {job.id}")


def _clusters(job: "Job", limit: int) -> list[dict[str, Any]]:
    """Read the first clusters of a file that may be large."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clusters.jsonl"
        job.download_to(path.name, path)
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in islice(lines, limit)]


def _row(number: int, cluster: dict[str, Any], image: dict[str, Any]) -> tuple[object, ...]:
    is_kept = "keep" if image["id"] == cluster["keep"] else ""
    return (number, is_kept, *(image[name] for name in _COLUMNS[2:]))
