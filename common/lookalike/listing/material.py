"""Material: the archive or manifest that a source names, as an open file, wherever it lies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from lookalike.listing.listed import label
from lookalike.listing.stores import Keep, RemoteFiles, UploadFiles
from lookalike.records import ArchiveSource, ManifestSource
from lookalike.roots import Roots, file_path
from lookalike.uploads import upload_uri


@dataclass(frozen=True, kw_only=True)
class Material:
    """An open file and what it is called. It can seek."""

    uri: str
    name: str
    file: BinaryIO
    folder: Path | None = None  #: The real path of the folder it lies in, where that is under a root.


@contextmanager
def opened_material(
    source: ArchiveSource | ManifestSource, roots: Roots, uploads: UploadFiles, remote: RemoteFiles, keep: Keep
) -> Iterator[Material]:
    """Open what a source names.

    Raises `InvalidPath` and `ImageError` classes where it is not there, and what fetching it raises.
    """
    if source.path is not None:
        uri = roots.resolve_file(source.path)
        path = file_path(uri)
        with os.fdopen(roots.open(uri).fd, "rb") as file:
            yield Material(uri=uri, name=path.name, file=file, folder=path.parent)
    elif source.upload is not None:
        uri = upload_uri(source.upload.sha256)
        far = remote.is_remote(uri)
        with remote.download(uri, keep=keep).open("rb") if far else os.fdopen(uploads.open(uri).fd, "rb") as file:
            yield Material(uri=uri, name=label(source.upload.name) or "upload", file=file)
    else:
        uri = remote.check_url(source.url or "")
        with remote.download(uri, keep=keep).open("rb") as file:
            yield Material(uri=uri, name=label(urlsplit(uri).path.rpartition("/")[2]) or "download", file=file)
