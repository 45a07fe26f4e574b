"""What a request asks of a file: which part of it (RFC 9110, section 14), and on which conditions (section 13)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from werkzeug.exceptions import PreconditionFailed
from werkzeug.http import parse_etags

#: One range of bytes: from one place to another, from a place on, or so many at the end.
_ONE: Final = re.compile(r"bytes=(?:[0-9]{1,4000}-[0-9]{0,4000}|-([0-9]{1,4000}))")


def conditions(environ: Mapping[str, Any], *, etag: str, size: int) -> dict[str, Any]:
    """Return a request's environ for werkzeug's `make_conditional`, which refuses ranges that are to be ignored.

    A Range is left only where it has to be heeded: in a GET, for one range of bytes, and without another condition than
    that of If-Range. Anybody else is sent the whole file, which is an answer to any Range. `size` is the file's, in
    bytes. Raises `PreconditionFailed` where If-Match names other files only.
    """
    heeded = dict(environ)
    if "HTTP_IF_MATCH" in heeded and not parse_etags(heeded["HTTP_IF_MATCH"]).contains(etag):
        raise PreconditionFailed
    found = _ONE.fullmatch(heeded.get("HTTP_RANGE", ""))
    is_weak = heeded.get("HTTP_IF_RANGE", "").startswith("W/")
    if found is None or is_weak or heeded["REQUEST_METHOD"] != "GET" or "HTTP_IF_NONE_MATCH" in heeded:
        heeded.pop("HTTP_RANGE", None)
    elif found[1] and int(found[1]) > size:
        heeded["HTTP_RANGE"] = f"bytes=-{size}"  # More than there is at the end is all of it.
    return heeded
