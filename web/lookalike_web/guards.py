"""What happens around every request: its id, its Host, the headers of its answer, and its line in the access log."""

import json
import logging
import re
import secrets
import time
from datetime import UTC, datetime
from typing import Final

from flask import Flask, Response, g, request

from lookalike.settings import Settings
from lookalike_web.errors import BadHost, URITooLong
from lookalike_web.waiting import resumed, wait_gate

access_log = logging.getLogger("lookalike_web.access")

MAX_URI_CHARS: Final = 4094  #: As much as gunicorn takes by default; this service has it take more, to answer itself.

_REQUEST_ID = re.compile("[0-9A-Za-z._-]{8,128}")
_PORT = re.compile(r":\d{1,5}$")

#: Answers are data, so nothing in them may be run, framed or guessed at; the documentation may use its own style sheet.
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
}
_DOCS_CSP: Final = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def register(app: Flask, settings: Settings) -> None:
    """Set the guards up on an app."""
    allowed = frozenset(host.lower() for host in settings.allowed_hosts)

    @app.before_request
    def begin() -> Response | None:
        if parked := resumed.get():
            # It passed all that follows when it came.
            g.started, g.request_id = parked.started, parked.request_id
            return wait_gate().resume(parked)
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        return None

    @app.before_request
    def check_address() -> None:
        if not host_allowed(request.host, allowed):
            raise BadHost
        if len(request.full_path) > MAX_URI_CHARS:
            raise URITooLong

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        if response.mimetype == "text/html":
            response.headers.setdefault("Content-Security-Policy", _DOCS_CSP)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        _log(response)
        return response


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Tell whether a Host header names this service. An allowed name that begins with a dot allows what ends in it."""
    name = _PORT.sub("", host.lower())
    suffixes = (name[at:] for at, char in enumerate(name) if char == ".")
    return not allowed.isdisjoint({"*", name, *suffixes})


def _log(response: Response) -> None:
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "ms": round((time.perf_counter() - g.started) * 1000, 1),
        "request_id": g.request_id,
    }
    # The supervisor asks for this every few seconds.
    level = logging.DEBUG if request.path == "/healthz" else logging.INFO
    access_log.log(level, json.dumps(line))
