"""How the supervisor asks a server whether it answers: one short exchange of its own protocol, with no library.

A bare connection proves nothing: the kernel accepts it for a process that hangs.
"""

import http.client
import json
import socket
from typing import Final

from lookalike.supervisor.process import Health

PROBE_TIMEOUT_S: Final = 2.0

_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
_SETTINGS_FRAME: Final = 4


def _exchange(address: tuple[str, int], request: bytes, length: int) -> bytes:
    with socket.create_connection(address, PROBE_TIMEOUT_S) as connection:
        connection.sendall(request)
        answer = b""
        while len(answer) < length:
            part = connection.recv(length - len(answer))
            if not part:
                break
            answer += part
        return answer


def redis_health(port: int) -> Health:
    """Ask a Redis on this machine. One that still loads its data lives, and is not ready."""
    try:
        answer = _exchange(("127.0.0.1", port), b"PING\r\n", 5)
    except OSError:
        return Health.SILENT
    if answer == b"+PONG":
        return Health.READY
    return Health.UNKNOWN if answer else Health.SILENT


def grpc_health(port: int) -> Health:
    """Ask a gRPC server on this machine: it opens a connection with its HTTP/2 settings."""
    try:
        answer = _exchange(("127.0.0.1", port), _HTTP2_PREFACE, 9)
    except OSError:
        return Health.SILENT
    return Health.READY if len(answer) == 9 and answer[3] == _SETTINGS_FRAME else Health.SILENT


class WebProbe:
    """Asks the front end, by the address it listens on and a host name it accepts."""

    def __init__(self, host: str, port: int, *, host_header: str) -> None:
        self._address = ("127.0.0.1" if host in {"", "0.0.0.0"} else "::1" if host == "::" else host, port)  # noqa: S104
        self._host_header = host_header

    def health(self) -> Health:
        """Tell whether the front end answers at all."""
        try:
            return Health.READY if self._get("/healthz")[0] == http.client.OK else Health.SILENT
        except (OSError, http.client.HTTPException):
            return Health.SILENT

    def lacking(self) -> str | None:
        """Return what the service lacks for being ready, None when it is."""
        try:
            status, body = self._get("/readyz")
        except (OSError, http.client.HTTPException) as error:
            return f"the front end does not answer ({error})"
        return None if status == http.client.OK else _reason(status, body)

    def _get(self, path: str) -> tuple[int, bytes]:
        # A full check of the parts takes longer than a sign of life.
        connection = http.client.HTTPConnection(*self._address, timeout=5 * PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path, headers={"Host": self._host_header, "Accept": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(1 << 16)
        finally:
            connection.close()


def _reason(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return f"/readyz answers {status}"
    checks = answer.get("checks", {}) if isinstance(answer, dict) else {}
    missing = [f"{name}: {check['detail']}" for name, check in checks.items() if not check["ok"]]
    return " ".join(missing) or f"/readyz answers {status}: {json.dumps(answer)}"
