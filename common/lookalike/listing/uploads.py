"""Uploads named one by one."""

from collections.abc import Iterator

from lookalike.errors import FileMissing
from lookalike.listing.listed import Listed, label
from lookalike.listing.stores import Keep, UploadFiles
from lookalike.records import UploadSource
from lookalike.uploads import upload_uri


def list_uploads(
    source: UploadSource, uploads: UploadFiles, *, folder_labels: bool, after: str | None, keep: Keep
) -> Iterator[Listed]:
    """List uploaded files, each content once: the same picture sent twice is one image.

    Their names may have folders in them, which nobody looks up: they only label.
    """
    files = list({file.sha256: file for file in source.files}.values())
    begin = int(after) + 1 if after else 0
    for position, file in enumerate(files[begin:], begin):
        keep()
        size = uploads.size(file.sha256)
        error = (
            FileMissing("There is no such upload, or not any more. Upload the file again.") if size is None else None
        )
        folder = file.name.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
        metadata = {"label": label(folder)} if folder_labels and folder else {}
        yield Listed(upload_uri(file.sha256), label(file.name), str(position), error, size, metadata=metadata)
