"""Loopback ports for servers under test: each is given once, to one test process, for as long as that lives.

They lie below the range from which the kernel takes ports for outgoing connections. From within it, a client that tries
again and again while its server restarts can be given the server's own port.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

_PORTS: Final = range(10_000, 20_000)  # The supervisor takes its own from 20,000 on.
_TRIES: Final = 500
_taken: list[int] = []  #: Handles of lock files; the kernel lets go of them with this process.


def free_port() -> int:
    """A port that nobody listens on, and no other test is given."""
    folder = Path(tempfile.gettempdir(), f"lookalike-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(_PORTS, _TRIES):
        if _is_free(port) and _take(folder / str(port)):
            return port
    raise RuntimeError(f"no free port in {_PORTS}")


def free_ports(count: int) -> list[int]:
    """Different ports."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _take(lock: Path) -> bool:
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _taken.append(handle)
    return True
