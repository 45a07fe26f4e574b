"""Exports and imports from their asker's side: files fetched to a folder, and files found and sent where need be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from lookalike.client.connection import Call, Connection
from lookalike.client.ingest import Upload
from lookalike.client.job import Job, submit_job
from lookalike.client.transfer import Transfer
from lookalike.errors import (
    ExportInvalid,
    FileMissing,
    FolderNotFound,
    InvalidPath,
    InvalidRequest,
    NotRegularFile,
    RootNotAllowed,
)
from lookalike.records import ExportFormat, ExportResult, ImportResult
from lookalike.records.exports import HEADER_FILE, is_export_file


class ExportsAndImports:
    """What collections can be turned into, and be made of."""

    _connection: Connection

    @overload
    def export(
        self,
        name: str,
        output: Path,
        *,
        format: ExportFormat | str = ...,
        filter: str | None = ...,
        wait: Literal[True] = ...,
    ) -> ExportResult: ...

    @overload
    def export(
        self,
        name: str,
        output: None = ...,
        *,
        format: ExportFormat | str = ...,
        filter: str | None = ...,
        wait: Literal[False],
    ) -> Job: ...

    def export(
        self,
        name: str,
        output: Path | None = None,
        *,
        format: ExportFormat | str = ExportFormat.PARQUET,
        filter: str | None = None,
        wait: bool = True,
    ) -> ExportResult | Job:
        """Write a collection with its vectors to files in the folder `output`, all of it or what a filter matches.

        With `wait=False` it returns the job, whose files are then the export. Raises `InvalidFilter`.
        """
        job = start_export(self._connection, name, format=format, filter=filter)
        if not wait or output is None:
            return job
        job.wait()
        result = job.step_result(ExportResult)
        download_export(job, output)
        return result

    @overload
    def import_from(
        self,
        *places: str | Path,
        into: str | None = ...,
        job_id: str | None = ...,
        upload: Upload = ...,
        wait: Literal[True] = ...,
    ) -> ImportResult: ...

    @overload
    def import_from(
        self,
        *places: str | Path,
        into: str | None = ...,
        job_id: str | None = ...,
        upload: Upload = ...,
        wait: Literal[False],
    ) -> Job: ...

    def import_from(
        self,
        *places: str | Path,
        into: str | None = None,
        job_id: str | None = None,
        upload: Upload = "auto",
        wait: bool = True,
    ) -> ImportResult | Job:
        """Store the images of an export with their vectors: of a folder, of files, or of an export job of the service.

        Into the collection `into`, or the one of the name it was exported under. What the service cannot read itself
        is uploaded. Rows that cannot be used are in the job's failures; with `wait=False` it returns the job.
        """
        job = start_import(self._connection, places, into=into, job_id=job_id, upload=upload)
        return job.step_result(ImportResult) if wait and job.wait() else job


def start_export(connection: Connection, name: str, *, format: str, filter: str | None) -> Job:
    """Submit an export."""
    body = {"collection": name, "format": str(format), **({"filter": filter} if filter else {})}
    return submit_job(connection, "/v1/exports", body)


def download_export(job: Job, output: Path) -> None:
    """Fetch all files of an export into a folder, which is made where it is missing; the header comes last."""
    output.mkdir(parents=True, exist_ok=True)
    names = [file.name for file in job.files()]
    for name in sorted(names, key=lambda name: name == HEADER_FILE):
        job.download_to(name, output / name)


def start_import(
    connection: Connection, places: Sequence[str | Path], *, into: str | None, job_id: str | None, upload: Upload
) -> Job:
    """Submit an import; what the service cannot read is sent first.

    Raises `InvalidRequest` where it is not said what to import or, where that cannot be found here, into what.
    """
    if bool(places) == (job_id is not None):
        raise InvalidRequest("Name the folder or files of an export, or the job that made it.")
    paths = [Path(place) for place in places]
    name = into or _exported_name(connection, paths, job_id)

    def submit(place: Mapping[str, Any]) -> Job:
        return submit_job(connection, "/v1/imports", {"collection": name, **place})

    if job_id is not None:
        return submit({"job_id": job_id})
    is_here = all(path.exists() for path in paths)
    if len(paths) == 1 and upload is not True and (connection.is_local or upload is False or not is_here):
        try:
            return submit({"path": str(paths[0].resolve() if is_here else paths[0])})
        except (InvalidPath, FolderNotFound, FileMissing, NotRegularFile, RootNotAllowed):
            if upload is False or not is_here:
                raise
    return submit({"uploads": _sent(connection, paths)})


def _exported_name(connection: Connection, paths: Sequence[Path], job_id: str | None) -> str:
    if job_id is not None:
        call = Call(method="GET", path=f"/v1/jobs/{job_id}")
        return str(connection.send(call).json()["request"].get("collection", ""))
    for header in (path / HEADER_FILE if path.is_dir() else path for path in paths):
        if header.name == HEADER_FILE and header.is_file():
            try:
                return str(json.loads(header.read_text(encoding="utf-8"))["collection"])
            except (ValueError, KeyError, TypeError) as error:
                raise ExportInvalid(f"{header} is not the header of an export.") from error
    raise InvalidRequest("Say into which collection: its exported name is not to be seen from here.")


def _sent(connection: Connection, paths: Sequence[Path]) -> list[dict[str, Any]]:
    limits = connection.send(Call(method="GET", path="/v1/info")).json()["limits"]
    transfer = Transfer(connection, max_request_bytes=limits["max_upload_bytes"])
    return [transfer.send(file, file.name).model_dump() for file in _files(paths)]


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if is_export_file(file.name))
        elif path.is_file():
            found.append(path)
        else:
            raise FileMissing(f"There is no file or folder {path}.")
    if not found:
        raise ExportInvalid(f"There is no file of an export in {paths[0]}.")
    return found
