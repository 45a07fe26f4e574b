"""The watchman: a small process that ends what the supervisor started, should the supervisor itself be killed.

The supervisor starts it first, runs it as a file in a bare interpreter, and tells it over standard input which process
groups run: `watch PGID SIGNAL` and `forget PGID`, one per line. When that pipe ends, however the supervisor died, every
group left is asked to stop by its signal and killed after a short grace. It imports nothing but the standard library
and knows nothing of lookalike.
"""

import os
import signal
import sys
import time

GRACE_S = 5.0  #: Between the polite signal and SIGKILL.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_POLL_S = 0.05


def group_exists(pgid: int) -> bool:
    """Tell whether a process group has members; those that are dead and not yet reaped count on Linux."""
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses signals to a group of dead processes.
        return False
    return True


def kill_group(pgid: int) -> None:
    """Kill every process of a group, if any are left."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _ask_leader(pgid: int, signum: int) -> bool:
    """Signal the leader alone: it knows best how to end its children. False where it is gone."""
    try:
        if os.getpgid(pgid) != pgid:
            return False
        os.kill(pgid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_groups(groups: dict[int, int], grace_s: float = GRACE_S) -> None:
    """End process groups, given with their polite signals; the latest first."""
    for pgid, signum in reversed(groups.items()):
        if not _ask_leader(pgid, signum):
            kill_group(pgid)
    deadline = time.monotonic() + grace_s
    left = set(groups)
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        for pgid in [pgid for pgid in left if not _leader_lives(pgid)]:
            kill_group(pgid)
            left.discard(pgid)
    for pgid in left:
        kill_group(pgid)


def _leader_lives(pgid: int) -> bool:
    try:
        os.kill(pgid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """Follow the supervisor's lines until they end, then end what is left."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["watch", pgid, stop_signal]:
                groups[int(pgid)] = int(stop_signal)
            case ["forget", pgid]:
                groups.pop(int(pgid), None)
    end_groups(groups)


if __name__ == "__main__":
    main()
