"""Ingests: which paths the service reads itself, and which are uploaded to it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lookalike.client.connection import Call, Connection
from lookalike.client.job import Job, JobGroup
from lookalike.client.parts import Part, file_part, local_uri, shown
from lookalike.client.upload import Bounds, Uploader, submit_key
from lookalike.errors import FileMissing, FolderNotFound, ImageError, InvalidPath, InvalidRequest
from lookalike.listing import list_folder
from lookalike.records import Failure, JobRecord, Metadata, Stage
from lookalike.roots import file_path

Upload = bool | Literal["auto"]  #: `auto`: what the service cannot read itself is uploaded.


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an ingest asks for, apart from where the images are."""

    collection: str | None  #: None: the service's own default.
    metadata: Metadata = field(default_factory=dict)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    recursive: bool = True

    def target(self) -> dict[str, str]:
        """Return the field that names the collection, where one was named."""
        return {} if self.collection is None else {"collection": self.collection}


class Ingestion:
    """Starts the jobs of one ingest."""

    def __init__(
        self,
        connection: Connection,
        order: Order,
        *,
        bounds: Callable[[], Bounds],
        on_job: Callable[[Job], None],
        on_look: Callable[[JobGroup], None],
    ) -> None:
        self._connection = connection
        self._order = order
        self._bounds = bounds
        self._on_job = on_job
        self._on_look = on_look
        self._group = JobGroup()

    def start(self, paths: Sequence[Path], *, folder: str | None, upload: Upload) -> JobGroup:
        """Submit everything and return its jobs; what has to be uploaded is on its way before this returns."""
        if not paths and folder is None:
            raise InvalidRequest("There is nothing to ingest: give a file, a folder, or a folder of the service.")
        if folder is not None:
            self._read_in_place(folder)
        to_upload = [path for path in paths if upload is True or not self._can_stay(path, upload)]
        for path in to_upload:
            if not path.exists():
                raise FileMissing(f"There is no file or folder {path}.")
        if to_upload:
            self._send(to_upload)
        return self._group

    def _can_stay(self, path: Path, upload: Upload) -> bool:
        """Have the service read a folder itself, where it can."""
        here = path.exists()
        if upload is False:
            self._read_in_place(str(path.resolve()) if here else str(path))
            return True
        # A folder of a remote service has nothing to do with one of ours of the same name.
        if here and not (path.is_dir() and self._connection.is_local):
            return False
        try:
            self._read_in_place(str(path.resolve()) if here else str(path))
        except (InvalidPath, FolderNotFound) as error:
            if here:
                return False
            raise FolderNotFound(
                f"There is no file or folder {path} here, and no such folder under the roots of the service."
            ) from error
        return True

    def _read_in_place(self, folder: str) -> None:
        source = {
            "type": "folder",
            "path": folder,
            "recursive": self._order.recursive,
            "include": list(self._order.include),
            "exclude": list(self._order.exclude),
        }
        body: dict[str, Any] = {"source": source, "metadata": self._order.metadata, **self._order.target()}
        record = self._connection.fetch(
            JobRecord, Call(method="POST", path="/v1/ingests", headers=submit_key(), json=body)
        )
        job = Job(self._connection, record)
        self._group.in_place.append(job)
        self._on_job(job)

    def _send(self, paths: Sequence[Path]) -> None:
        # Counting first costs a second for many thousands of files, and gives the rest of the time an end.
        self._group.announced = sum(1 for _ in self._found(paths))
        fields = {**self._order.target(), "metadata": json.dumps(self._order.metadata)}
        Uploader(self._connection, self._bounds(), fields).run(
            self._parts(paths), self._group, on_job=self._on_job, tick=lambda: self._on_look(self._group)
        )

    def _parts(self, paths: Sequence[Path]) -> Iterator[Part | Failure]:
        for found in self._found(paths):
            if isinstance(found, Failure):
                yield found
                continue
            path, label = found
            try:
                yield file_part(path, label)
            except ImageError as error:
                yield Failure(
                    uri=local_uri(path), code=error.code, message=error.message, stage=Stage.READ, name=shown(path.name)
                )

    def _found(self, paths: Sequence[Path]) -> Iterator[tuple[Path, str] | Failure]:
        """List files with their labels, by the rules that the service lists its own folders by."""
        for path in paths:
            if not path.is_dir():
                yield path, path.name
                continue
            top = path.resolve()
            for listed in list_folder(
                top, recursive=self._order.recursive, include=self._order.include, exclude=self._order.exclude
            ):
                error = listed.error
                if error is not None:
                    yield Failure(uri=listed.uri, code=error.code, message=error.message, stage=Stage.LIST)
                else:
                    file = file_path(listed.uri)
                    yield file, file.relative_to(top.parent).as_posix()
