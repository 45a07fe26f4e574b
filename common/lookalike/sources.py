"""Sources: one way to open an image that is on this machine, whatever its URI's scheme.

The decoder's child process opens images with it, so nothing here talks to a network: what is elsewhere is fetched first
(`lookalike.remote`), and then opened as `fetched:`.
"""

from typing import TYPE_CHECKING, Self

from lookalike.fetched import FETCHED_AREA, FETCHED_SCHEME, open_fetched
from lookalike.roots import OpenedFile, Roots
from lookalike.uploads import QUERY_SCHEME, UPLOAD_SCHEME, UploadStore

if TYPE_CHECKING:  # The decoder's child process opens sources, and has no use for pydantic.
    from lookalike.settings import Settings


class Sources:
    """Opens images by URI: `file:` under the roots; `upload:`, `query:` and `fetched:` in the upload folder."""

    def __init__(self, roots: Roots, uploads: UploadStore) -> None:
        self.roots = roots
        self.uploads = uploads
        self._fetched = uploads.folder / FETCHED_AREA

    @classmethod
    def from_settings(cls, settings: "Settings") -> Self:
        """Make the sources that the settings name."""
        return cls(Roots(settings.roots), UploadStore.from_settings(settings))

    def open(self, uri: str) -> OpenedFile:
        """Open an image; raises `ImageError` classes. The caller closes it."""
        if uri.startswith((UPLOAD_SCHEME, QUERY_SCHEME)):
            return self.uploads.open(uri)
        if uri.startswith(FETCHED_SCHEME):
            return open_fetched(self._fetched, uri)
        return self.roots.open(uri)
