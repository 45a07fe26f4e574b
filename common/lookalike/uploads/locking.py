"""Locks between processes that share the folder. The kernel lets go of them when their holder dies, however it does."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600


@contextmanager
def flocked(fd: int, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an open file; yields whether it does, which without `wait` may be False."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file of ours for a while, following no link."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def lock_file(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file that is there for nothing else; its folder has to exist."""
    # Open for writing, since network file systems lock nothing exclusively that is open for reading only.
    with opened(path, os.O_RDWR | os.O_CREAT) as fd, flocked(fd, shared=shared):
        yield


def lies_at(fd: int, path: Path) -> bool:
    """Tell whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
