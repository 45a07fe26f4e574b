"""Who sends a request: where there are keys, everything under /v1 needs one as a bearer token."""

from typing import Final, cast

from flask import Flask, g, request

from lookalike.errors import Unauthorized
from lookalike.settings import Settings
from lookalike_web.keys import UNLIMITED, Key, KeyRing

PROTECTED_PREFIX: Final = "/v1/"


def register(app: Flask, settings: Settings) -> None:
    """Refuse requests under /v1 without one of the service's keys; raises `SetupError` for a broken file of them."""
    ring = KeyRing.from_settings(settings)

    @app.before_request
    def recognise_key() -> None:
        if not ring:
            g.key = UNLIMITED
            return
        if not request.path.startswith(PROTECTED_PREFIX):
            return  # Without a key: a view that asks for it there is a bug, and must not pass for an unlimited one.
        given = request.authorization
        token = given.token if given is not None and given.type == "bearer" else None
        known = ring.recognise(token or "")
        if known is None:
            raise Unauthorized
        g.sender, g.key = known


def caller() -> Key:
    """Return the key of the current request; one that may do everything where no keys are asked for."""
    return cast(Key, g.key)


def sender() -> str:
    """Name who sends the current request: its API key, where keys are asked for, else its address."""
    return f"key:{g.sender}" if "sender" in g else f"address:{request.remote_addr}"
