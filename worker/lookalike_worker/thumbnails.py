"""Thumbnails for contact sheets: begun side by side, then awaited. A picture that is gone is None."""

from collections.abc import Callable
from concurrent.futures import Future

from lookalike.errors import LookalikeError
from lookalike_worker.context import Context
from lookalike_worker.keeping import result_of


def begin_thumbnail(context: Context, uri: str) -> Future[bytes] | None:
    """Begin a thumbnail; of a remote image only from the copy that is here, which is fetched if need be."""
    try:
        here = context.remote.ensure(uri) if context.remote.is_remote(uri) else uri
    except LookalikeError:
        return None
    return context.decoders.thumbnail(here) if here else None


def awaited(future: Future[bytes] | None, keep: Callable[[], None]) -> bytes | None:
    """Return a thumbnail that was begun."""
    try:
        return result_of(future, keep) if future else None
    except LookalikeError:  # It is gone, or broken by now.
        return None
