"""`lookalike gc`."""

import click

from lookalike.cli.output import note, show_fields
from lookalike.cli.session import Session, service_options


@click.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing; say what would go.")
@service_options
@click.pass_obj
def collect_garbage(session: Session, dry_run: bool) -> None:
    """Remove uploaded files that no image and no job refers to any more.

    The service does that by itself every hour; files younger than a day stay in any case.

    \b
    Example:
      lookalike gc --dry-run
    """
    with session.client() as client:
        found = client.collect_garbage(dry_run=dry_run)
    show_fields(session, found.model_dump(), record=found)
    if not (found.uploads or found.parts or found.fetched or found.artifacts):
        note("There is nothing to remove.")
    elif found.dry_run:
        note("Nothing was removed yet: without --dry-run it is.")
