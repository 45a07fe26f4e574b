"""The command line.

Data goes to stdout and everything else to stderr; exit codes are in `lookalike.cli.exits`. Modules that take time to
import are imported by the commands that use them, so that --help answers at once.
"""

import io
import sys

import click

from lookalike.cli import models
from lookalike.cli.bulk import bulk_search
from lookalike.cli.collections import collections
from lookalike.cli.demo import demo
from lookalike.cli.doctor import doctor
from lookalike.cli.duplicates import duplicates
from lookalike.cli.evaluate import evaluate, map_collection, reindex_collection
from lookalike.cli.exits import CommandLine
from lookalike.cli.garbage import collect_garbage
from lookalike.cli.images import images
from lookalike.cli.ingest import ingest
from lookalike.cli.jobs import jobs
from lookalike.cli.search import search
from lookalike.cli.session import Session, service_options
from lookalike.cli.stack import down, status, up

__all__ = ["main"]


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", prog_name="lookalike")
@service_options
@click.pass_context
def main(ctx: click.Context) -> None:
    """Find images that look alike.

    Start a service with `lookalike up`, store images with `lookalike ingest photos/`, and look for one with
    `lookalike search photo.jpg`.

    Data is printed as a table on a terminal, tab-separated with a line of column names in a pipe, or as JSON with
    --json. An API key is read from LOOKALIKE_API_KEY.

    Exit codes: 0 done, 1 a job failed, 2 wrong usage, 3 not found, 4 service unreachable, 5 some files failed,
    130 interrupted while the job goes on.
    """
    ctx.ensure_object(Session)
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding does not have is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


for command in (up, down, status, doctor, demo, collect_garbage):
    main.add_command(command)
for command in (ingest, search, bulk_search, duplicates, evaluate, jobs, collections, images):
    main.add_command(command)
for command in (*models.COMMANDS, reindex_collection, map_collection):
    collections.add_command(command)
