"""Where the files of an import lie: left by an export of this service, under a root, or among the uploads."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from lookalike.errors import ArtifactNotFound, FolderNotFound
from lookalike.exports import ExportFile
from lookalike.records import ImportRequest, UploadedFile
from lookalike.records.exports import TABLE_SUFFIX, is_export_file
from lookalike.roots import file_path, file_uri
from lookalike.uploads import upload_uri
from lookalike_worker.context import Context


def files_of(context: Context, request: ImportRequest, keep: Callable[[], None]) -> list[ExportFile]:
    """Return what an import may read from, by names that files of an export have; nothing is opened yet.

    Raises `ArtifactNotFound`, `InvalidPath`, `FolderNotFound` and `ImageError` classes. So does opening them.
    """
    if request.job_id is not None:
        return _left_behind(context, request.job_id)
    if request.path is not None:
        return _under_a_root(context, request.path)
    return [_uploaded(context, file, keep) for file in request.uploads]


def _left_behind(context: Context, job_id: str) -> list[ExportFile]:
    def opener(name: str) -> Callable[[], AbstractContextManager[BinaryIO]]:
        return lambda: context.artifacts.open(job_id, name)

    found = context.artifacts.of(job_id)
    if not found:
        raise ArtifactNotFound("The export's files are no longer kept. Export the collection again.")
    return [ExportFile(file.name, opener(file.name)) for file in found]


def _under_a_root(context: Context, path: str) -> list[ExportFile]:
    roots = context.sources.roots

    def opener(uri: str) -> Callable[[], AbstractContextManager[BinaryIO]]:
        return lambda: os.fdopen(roots.open(uri).fd, "rb")

    def file_at(file: Path) -> ExportFile:
        return ExportFile(file.name, opener(file_uri(file)))

    try:
        folder = roots.resolve_folder(path)
    except FolderNotFound:
        return [file_at(file_path(roots.resolve_file(path)))]
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_export_file(entry.name))
    return [file_at(folder / name) for name in names]


def _uploaded(context: Context, file: UploadedFile, keep: Callable[[], None]) -> ExportFile:
    uri = upload_uri(file.sha256)

    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        if context.remote.is_remote(uri):
            with context.remote.download(uri, keep=keep).open("rb") as local:
                yield local
        else:
            with os.fdopen(context.sources.uploads.open(uri).fd, "rb") as local:
                yield local

    # What nobody named is taken for what most files of an export are.
    name = file.name.rpartition("/")[2] or f"{file.sha256}{TABLE_SUFFIX}"
    return ExportFile(name, opened)
