"""The search for processes that a test left behind."""

import os
import re
from pathlib import Path

import psutil


def processes_of(folder: Path, *, since: float = 0.0) -> list[psutil.Process]:
    """Every living process but this one that carries a folder in its environment or command, or works in it.

    `since` leaves out those that were started before, in seconds of the epoch.
    """
    named = re.compile(re.escape(str(folder)) + r"(?![\w-])")  # No folder whose name is longer.
    found = []
    for process in psutil.process_iter():
        try:
            known_by = [*process.cmdline(), *process.environ().values(), process.cwd()]
            counts = process.status() != psutil.STATUS_ZOMBIE and process.create_time() >= since
        except psutil.Error:  # Another user's, or gone meanwhile.
            continue
        if counts and process.pid != os.getpid() and any(named.search(word) for word in known_by):
            found.append(process)
    return found
