"""Bulk searches: every image of a source as a query of one job, whose answers are files."""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from lookalike.client.connection import Connection
from lookalike.client.ingest import Upload
from lookalike.client.job import Job, submit_job
from lookalike.client.places import Kind, Place, place_of
from lookalike.client.transfer import OnBytes, Transfer
from lookalike.client.upload import Bounds
from lookalike.errors import FileMissing, FolderNotFound, InvalidPath, InvalidRequest
from lookalike.listing import list_folder
from lookalike.records import Variant
from lookalike.roots import file_path


class BulkSearchOptions(TypedDict, total=False):
    """Options of `Client.bulk_search`; what is left out, or None, is as the service has it."""

    collection: str | None  #: Where to look.
    model: str | None  #: Which of the collection's models is to answer.
    limit: int  #: Hits per query.
    filter: str | None  #: A Milvus expression over the images' fields.
    max_distance: float | None  #: The distance of the farthest hit that counts, whatever the metric's direction.
    min_score: float | None
    group_by: str | None  #: A field; of the images with the same value only the closest is a hit.
    exclude_self: bool  #: Leave out the image that is searched with.
    distinct: bool  #: Of images with the same content only the closest is a hit.
    params: Mapping[str, int] | None  #: `ef` or `nprobe`, where the collection's index takes it.
    consistency: Literal["strong", "bounded"] | None
    variants: Sequence[Variant | str]  #: Search with the pictures turned, too.
    sheets: int  #: Contact sheets at most, of 24 queries each.
    include: Sequence[str]  #: Of a folder or prefix: globs on names, or on paths where they hold a `/`.
    exclude: Sequence[str]  #: The same; they win over `include`.
    recursive: bool  #: Whether folders inside a folder are taken, too; they are by default.
    webhook: str | None  #: An address that is sent the job's record once it is final.


_OF_FOLDERS: Final = ("include", "exclude", "recursive")


class BulkSearch:
    """Starts one bulk search."""

    def __init__(
        self,
        connection: Connection,
        options: BulkSearchOptions,
        *,
        collection: str | None,
        bounds: Callable[[], Bounds],
        on_bytes: OnBytes | None,
    ) -> None:
        unknown = sorted(set(options) - set(BulkSearchOptions.__annotations__))
        if unknown:
            raise TypeError(f"a bulk search has no option {unknown[0]!r}")
        given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, (), {})}
        self._narrowed: dict[str, Any] = {name: given.pop(name) for name in _OF_FOLDERS if name in given}
        if "webhook" in given:
            given["webhook"] = {"url": given["webhook"]}
        if "variants" in given:
            given["variants"] = [str(Variant(variant)) for variant in given["variants"]]
        self._terms = ({"collection": collection} if collection else {}) | given
        self._connection = connection
        self._bounds = bounds
        self._on_bytes = on_bytes

    def start(self, sources: Sequence[str], *, upload: Upload) -> Job:
        """Submit it; what the service cannot read itself is uploaded before, as one archive."""
        places = [place_of(source) for source in sources]
        if not places:
            raise InvalidRequest("There is nothing to search for: give a folder, an archive, a manifest or addresses.")
        if all(place.kind is Kind.IMAGE and place.url for place in places):
            return self._submit({"type": "urls", "urls": [place.url for place in places]})
        if len(places) == 1:
            (place,) = places
            if place.url:
                name = "prefix" if place.kind is Kind.OBJECTS else "url"
                return self._submit({"type": str(place.kind), name: place.url, **self._narrowing(place)})
            if upload is not True and (job := self._stays(place, upload)):
                return job
        if any(place.url or not place.is_here for place in places):
            raise FileMissing(
                f"{sources[0]} is not here, nor under a root of the service."
                if len(places) == 1
                else "Several sources of one bulk search are files and folders of this machine, or addresses of images."
            )
        return self._send(places)

    def _stays(self, place: Place, upload: Upload) -> Job | None:
        """Have the service read a source itself, where it can."""
        # A folder of a remote service has nothing to do with one of ours of the same name.
        if place.kind is Kind.IMAGE or (upload is not False and place.is_here and not self._connection.is_local):
            return None
        named = str(place.path.resolve()) if place.path and place.is_here else str(place.path)
        try:
            return self._submit({"type": str(place.kind), "path": named, **self._narrowing(place)})
        except (InvalidPath, FolderNotFound, FileMissing):
            if upload is False or not place.is_here:
                raise
            return None

    def _send(self, places: Sequence[Place]) -> Job:
        transfer = Transfer(
            self._connection, max_request_bytes=self._bounds().max_upload_bytes, on_bytes=self._on_bytes
        )
        paths = [place.path for place in places if place.path]
        if len(places) == 1 and places[0].kind in {Kind.ARCHIVE, Kind.MANIFEST}:
            file = transfer.send(paths[0], paths[0].name)
            return self._submit({"type": str(places[0].kind), "upload": file.model_dump()})
        with self._packed(paths) as archive:
            file = transfer.send(archive, "queries.tar")
        return self._submit({"type": "archive", "upload": file.model_dump()})

    @contextmanager
    def _packed(self, paths: Sequence[Path]) -> Iterator[Path]:
        """Pack files and folders; one upload can be gone on with, thousands of small ones are slow."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "queries.tar"
            with tarfile.open(archive, "w") as tar:
                for path in paths:
                    top = path.resolve()
                    if not top.is_dir():
                        tar.add(top, path.name)
                        continue
                    for listed in list_folder(top, **self._narrowed):
                        if listed.error is None:
                            file = file_path(listed.uri)
                            tar.add(file, os.fspath(file.relative_to(top.parent)))
            yield archive

    def _narrowing(self, place: Place) -> dict[str, Any]:
        return self._narrowed if place.kind in {Kind.FOLDER, Kind.OBJECTS} else {}

    def _submit(self, source: Mapping[str, Any]) -> Job:
        return submit_job(self._connection, "/v1/bulk-searches", {**self._terms, "source": dict(source)})
