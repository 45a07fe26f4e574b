"""gunicorn's threaded worker, answering what it refuses before the app sees it in the app's own form."""

import json
import secrets
import socket
from http import HTTPStatus
from typing import Any, Final

from lookalike_web.parking import ParkingWorker

_CODES: Final = {HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long", HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error"}


class _Recorder:
    """Stands in for a client's socket, to learn what gunicorn would have sent."""

    def __init__(self) -> None:
        self.sent = b""

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.sent += data


class ProblemThreadWorker(ParkingWorker):
    """A `ParkingWorker` whose refusals of malformed requests are problem+json instead of HTML."""

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Log as gunicorn does, and send its status in our form."""
        recorder = _Recorder()
        super().handle_error(req, recorder, addr, exc)
        _, status, reason = recorder.sent.split(b"\r\n", 1)[0].decode().split(" ", 2)
        try:
            client.sendall(problem_bytes(int(status), reason))
        except OSError as error:
            self.log.debug("the client was gone before its refusal: %s", error)


def problem_bytes(status: int, reason: str) -> bytes:
    """Write a whole response that refuses a request which could not be parsed."""
    code = _CODES.get(HTTPStatus(status), "invalid_request")
    request_id = secrets.token_hex(8)
    problem = {
        "type": f"/docs#error-{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": f"The request is not one that HTTP allows here ({reason}). Nothing was done.",
        "code": code,
        "request_id": request_id,
        "instance": "",
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-ID: {request_id}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
