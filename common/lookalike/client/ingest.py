"""Ingests: which sources the service reads itself, and which are uploaded to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from lookalike.client.connection import Call, Connection, submit_key
from lookalike.client.job import Job, JobGroup
from lookalike.client.order import Order
from lookalike.client.parts import Part, file_part, local_uri, shown
from lookalike.client.places import Kind, Place, place_of
from lookalike.client.transfer import OnBytes, Transfer
from lookalike.client.upload import Bounds, Uploader
from lookalike.errors import FileMissing, FolderNotFound, ImageError, InvalidPath, InvalidRequest
from lookalike.listing import list_folder
from lookalike.records import Failure, JobRecord, Stage
from lookalike.roots import file_path

Upload = bool | Literal["auto"]  #: `auto`: what the service cannot read itself is uploaded.

URLS_PER_JOB: Final = 1000  #: A tenth of what a service takes by default.


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
        on_bytes: OnBytes | None = None,
    ) -> None:
        self._connection = connection
        self._order = order
        self._bounds = bounds
        self._on_job = on_job
        self._on_look = on_look
        self._on_bytes = on_bytes
        self._group = JobGroup()

    def start(self, sources: Sequence[str | Path], *, folder: str | None, upload: Upload) -> JobGroup:
        """Submit everything and return its jobs; what has to be uploaded is on its way before this returns."""
        if not sources and folder is None:
            raise InvalidRequest("There is nothing to ingest: give a file, a folder, or a folder of the service.")
        if folder is not None:
            self._submit(self._folder(folder))
        places = [place_of(source) for source in sources]
        self._submit_remote([place for place in places if place.url is not None])
        to_upload = [
            path for place in places if (path := place.path) is not None and not self._submit_path(place, path, upload)
        ]
        if to_upload:
            if self._order.needs_place:
                asked = "A sync" if self._order.sync else "A dry run"
                raise InvalidRequest(
                    f"{asked} needs a source that the service reads itself, and {to_upload[0]} is none. "
                    "Start the service with --root for its folder."
                )
            self._send(to_upload)
        return self._group

    def _submit_remote(self, places: Sequence[Place]) -> None:
        images = []
        for place in places:
            match place.kind:
                case Kind.IMAGE:
                    images.append(place.url)
                case Kind.OBJECTS:
                    self._submit({"type": "objects", "prefix": place.url, **self._order.narrowed()})
                case kind:
                    self._submit({"type": str(kind), "url": place.url})
        for start in range(0, len(images), URLS_PER_JOB):
            self._submit({"type": "urls", "urls": images[start : start + URLS_PER_JOB]})

    def _submit_path(self, place: Place, path: Path, upload: Upload) -> bool:
        """Submit what is at a path, but for the images that have to be uploaded one by one: then it returns False."""
        if upload is not True and self._stays(place, path, upload):
            return True
        if not path.exists():
            raise FileMissing(f"There is no file or folder {path}.")
        if place.kind in {Kind.IMAGE, Kind.FOLDER}:
            return False
        transfer = Transfer(
            self._connection, max_request_bytes=self._bounds().max_upload_bytes, on_bytes=self._on_bytes
        )
        self._submit({"type": str(place.kind), "upload": transfer.send(path, path.name).model_dump()})
        return True

    def _stays(self, place: Place, path: Path, upload: Upload) -> bool:
        """Have the service read a source itself, where it can."""
        # A folder of a remote service has nothing to do with one of ours of the same name.
        here_only = place.is_here and (place.kind is Kind.IMAGE or not self._connection.is_local)
        if upload is not False and here_only:
            return False
        named = str(path.resolve()) if place.is_here else str(path)
        whole = place.kind in {Kind.ARCHIVE, Kind.MANIFEST}
        try:
            self._submit({"type": str(place.kind), "path": named} if whole else self._folder(named))
        except (InvalidPath, FolderNotFound, FileMissing) as error:
            if upload is False:
                raise
            if place.is_here:
                return False
            raise FolderNotFound(
                f"There is no file or folder {path} here, and no such folder under the roots of the service."
            ) from error
        return True

    def _folder(self, path: str) -> dict[str, Any]:
        links = {name: True for name in ("hidden", "symlinks") if getattr(self._order, name)}
        return {"type": "folder", "path": path, **self._order.narrowed(), **links}

    def _submit(self, source: Mapping[str, Any]) -> None:
        call = Call(method="POST", path="/v1/ingests", headers=submit_key(), json=self._order.body(source))
        job = Job(self._connection, self._connection.fetch(JobRecord, call))
        self._group.in_place.append(job)
        self._on_job(job)

    def _send(self, paths: Sequence[Path]) -> None:
        # Counting first costs a second for many thousands of files, and gives the rest of the time an end.
        self._group.announced = sum(1 for _ in self._found(paths))
        Uploader(self._connection, self._bounds(), self._order.form()).run(
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
                top,
                recursive=self._order.recursive,
                include=self._order.include,
                exclude=self._order.exclude,
                hidden=self._order.hidden,
            ):
                error = listed.error
                if error is not None:
                    yield Failure(uri=listed.uri, code=error.code, message=error.message, stage=Stage.LIST)
                else:
                    file = file_path(listed.uri)
                    yield file, file.relative_to(top.parent).as_posix()
