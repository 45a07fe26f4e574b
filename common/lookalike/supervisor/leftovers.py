"""What an earlier run may have left on a data folder: processes that its watchman still ends, or that nobody does."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lookalike.errors import SetupError
from lookalike.supervisor.stack import RUN_ID
from lookalike.supervisor.state import RunFolder
from lookalike.supervisor.watchman import GRACE_S, kill_group

if TYPE_CHECKING:
    import psutil

_WATCHMAN_END_S = 2 * GRACE_S + 5.0
_KILLED_END_S = 5.0


def end_leftovers(folder: RunFolder) -> int:
    """Wait for the watchman of a killed supervisor; end what is left where that was killed too. Returns how many."""
    if not folder.watch_lock.wait_free(_WATCHMAN_END_S):
        raise SetupError("The processes of an earlier run have not ended yet. Try again in a few seconds.")
    earlier = folder.read()
    if earlier is None:
        return 0
    import psutil  # An extra, and needed only after a crash.

    left = list(_processes_of(earlier.run_id))
    for process in left:
        kill_group(process.pid)
        process.kill()
    psutil.wait_procs(left, timeout=_KILLED_END_S)
    folder.clear()
    return len(left)


def _processes_of(run_id: str) -> "Iterator[psutil.Process]":
    import psutil

    for process in psutil.process_iter():
        try:
            if run_id and process.environ().get(RUN_ID) == run_id:
                yield process
        except psutil.Error:  # Another user's, or gone.
            continue
