"""The detached supervisor: `python -m lookalike.supervisor`, started by `lookalike up --detach` and by nobody else.

Its settings come from the environment, what it says goes to the pipe given by `--events-fd`.
"""

import argparse
import os
import sys

from lookalike.errors import LookalikeError
from lookalike.settings import Settings
from lookalike.supervisor.commands import run
from lookalike.supervisor.detaching import Reporter
from lookalike.supervisor.options import UpOptions


def main() -> int:
    """Fork away from the launching process, then supervise."""
    parser = argparse.ArgumentParser(prog="lookalike.supervisor")
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--ingest-workers", type=int, default=1)
    parser.add_argument("--search-workers", type=int, default=1)
    given = parser.parse_args()
    if os.fork():
        os._exit(0)
    reporter = Reporter(given.events_fd)
    try:
        options = UpOptions.from_settings(
            Settings(),
            ingest_workers=given.ingest_workers,
            search_workers=given.search_workers,
            on_event=reporter.event,
        )
        return run(options, ignore_hangup=True)
    except LookalikeError as error:
        reporter.error(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
