"""The job store in memory: the twin of the one on Redis, for tests of what stands before and behind it.

It keeps the same promises, in one process and without expiry of records by themselves: `expire` does that on demand.
Time is whatever the `clock` it is given says.
"""

from lookalike.jobstore.memory.store import MemoryJobStore

__all__ = ["MemoryJobStore"]
