"""API keys: where any are configured, everything under /v1 needs one as a bearer token."""

import hashlib
import hmac

from flask import Flask, g, request

from lookalike.errors import Unauthorized
from lookalike.settings import Settings

PROTECTED_PREFIX = "/v1/"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def register(app: Flask, settings: Settings) -> None:
    """Refuse requests under /v1 that carry none of the configured keys. Several are valid at once, for rotation."""
    known = tuple(_digest(key.get_secret_value()) for key in settings.api_keys)
    if not known:
        return

    @app.before_request
    def require_api_key() -> None:
        if not request.path.startswith(PROTECTED_PREFIX):
            return
        given = request.authorization
        token = given.token if given is not None and given.type == "bearer" else None
        offered = _digest(token or "")
        # Every key is compared, so that the time taken does not tell which one was nearly right.
        matches = [hmac.compare_digest(offered, digest) for digest in known]
        if not token or not any(matches):
            raise Unauthorized
        g.api_key = offered.hex()[:32]  # Tells senders apart, and is no key.
