"""Sources: one way to open an image, whatever its URI's scheme."""

from typing import TYPE_CHECKING, Self

from lookalike.roots import OpenedFile, Roots
from lookalike.uploads import QUERY_SCHEME, UPLOAD_SCHEME, UploadStore

if TYPE_CHECKING:  # The decoder's child process opens sources, and has no use for pydantic.
    from lookalike.settings import Settings


class Sources:
    """Opens images by canonical URI: `file:` under the roots, `upload:` and `query:` in the upload store."""

    def __init__(self, roots: Roots, uploads: UploadStore) -> None:
        self.roots = roots
        self.uploads = uploads

    @classmethod
    def from_settings(cls, settings: "Settings") -> Self:
        """Make the sources that the settings name."""
        uploads = UploadStore(
            settings.uploads_dir, min_free_bytes=settings.min_free_bytes, max_file_bytes=settings.max_file_bytes
        )
        return cls(Roots(settings.roots), uploads)

    def open(self, uri: str) -> OpenedFile:
        """Open an image; raises `ImageError` classes. The caller closes it."""
        if uri.startswith((UPLOAD_SCHEME, QUERY_SCHEME)):
            return self.uploads.open(uri)
        return self.roots.open(uri)
