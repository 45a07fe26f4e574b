"""Refusals that the server itself sends, where no app can answer: problem+json, written as a whole response."""

import errno
import json
import secrets
from http import HTTPStatus
from typing import Final

_CODES: Final = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error",
}
#: Seconds after which a refused request may be worth another try.
RETRY_AFTER_S: Final = 5

#: What the operating system says where this process may open no more files and connections.
OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


def problem_bytes(status: int, reason: str) -> bytes:
    """Write a whole response that refuses a request which could not be parsed."""
    code = _CODES.get(HTTPStatus(status), "invalid_request")
    return _written(status, reason, code, f"The request is not one that HTTP allows here ({reason}). Nothing was done.")


def busy_bytes(code: str, detail: str) -> bytes:
    """Write a whole response that turns a request away for now."""
    return _written(503, "Service Unavailable", code, detail, f"Retry-After: {RETRY_AFTER_S}\r\n")


def _written(status: int, reason: str, code: str, detail: str, more: str = "") -> bytes:
    request_id = secrets.token_hex(8)
    problem = {
        "type": f"/docs#error-{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "instance": "",
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-ID: {request_id}\r\n"
        f"{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body
