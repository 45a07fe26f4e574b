"""`python -m lookalike_worker`: run a worker, check that one lives, or fetch the weights.

Exit codes: 0 done, 1 not live, 2 usage, 75 a server cannot be reached, 78 the configuration does not
allow a start (as in sysexits.h).
"""

import argparse
import logging
import platform
import sys
from collections.abc import Sequence
from typing import Final

from lookalike.errors import LookalikeError, SetupError
from lookalike.jobstore import Lane
from lookalike.settings import Settings

EX_CONFIG: Final = 78
EX_TEMPFAIL: Final = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lookalike_worker", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for lane in Lane:
        run = commands.add_parser(lane.value, help=f"run a worker of the {lane.value} lane")
        run.add_argument("--name", default=f"worker-{lane.value}-{platform.node()}", help="its name, one of a kind")
    check = commands.add_parser("check", help="exit 0 if a worker of this lane is live on this host")
    check.add_argument("lane", choices=[lane.value for lane in Lane])
    weights = commands.add_parser("weights", help="fetch the network's weights, so that workers find them")
    weights.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this time")
    options = parser.parse_args(argv)
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        match options.command:
            case "check":
                return _check(settings, Lane(options.lane))
            case "weights":
                return _weights(settings, options.timeout)
            case lane:
                return _run(settings, Lane(lane), options.name)
    except LookalikeError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - the sentence is for who started the process
        return EX_CONFIG if isinstance(error, SetupError) else EX_TEMPFAIL


def _run(settings: Settings, lane: Lane, name: str) -> int:
    from lookalike_worker.celery_app import run_worker

    return run_worker(settings, lane, name)


def _check(settings: Settings, lane: Lane) -> int:
    from lookalike.jobstore.redis import RedisJobStore

    try:
        workers = RedisJobStore.connect(settings).workers()
    except LookalikeError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - a health check's output is its log
        return 1
    return 0 if any(worker.lane == lane.value and worker.host == platform.node() for worker in workers) else 1


def _weights(settings: Settings, timeout_s: float | None) -> int:
    from lookalike_worker.model import find_weights

    find_weights(settings.model_copy(update={"weights_timeout_s": timeout_s or settings.weights_timeout_s}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
