"""The page: `/` and its modules, style and icon, as they lie in `static/page`. It talks to `/v1` like any client."""

from typing import Final

from flask import Blueprint, Response, send_from_directory

blueprint = Blueprint("page", __name__, static_folder="../static/page", static_url_path="/page")

#: Pictures may come from `blob:` too: those that need a key, and those of the user that are searched with.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@blueprint.get("/")
def home() -> Response:
    """Show the page."""
    response = send_from_directory(str(blueprint.static_folder), "index.html")
    response.headers["Content-Security-Policy"] = _CSP
    return response
