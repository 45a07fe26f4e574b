"""gunicorn's threaded worker, answering what it refuses before the app sees it in the app's own form."""

import socket
from typing import Any

from lookalike_web.parking import ParkingWorker
from lookalike_web.refusing import problem_bytes


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
