"""The supervisor: the whole service on one machine, started, kept alive and stopped as one.

`up` runs the stack, `down` ends it, `status` tells of it; the command line calls these. Why it is built as it is, says
docs/decisions/0004-supervision.md.
"""

from lookalike.supervisor.commands import down, status, up
from lookalike.supervisor.options import Event, EventKind, UpOptions
from lookalike.supervisor.state import ProcessState, ProcessStatus, Status

__all__ = [
    "Event",
    "EventKind",
    "ProcessState",
    "ProcessStatus",
    "Status",
    "UpOptions",
    "down",
    "status",
    "up",
]
