"""Collections, stored images and jobs, each under a name of the client."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, Literal, overload
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from lookalike.client import calls
from lookalike.client.comparing import Comparison, compare
from lookalike.client.connection import Call, Connection, Repeat
from lookalike.client.exports import ExportsAndImports
from lookalike.client.job import Job, JobGroup, submit_job
from lookalike.client.results import IngestSummary
from lookalike.errors import CollectionNotFound, ImageNotFound, LookalikeError
from lookalike.records import (
    Collection,
    DeletionResult,
    Image,
    ImagePage,
    IndexKind,
    JobKind,
    JobPage,
    JobRecord,
    JobState,
    Metric,
    Tiles,
)

IMAGES_PER_PAGE: Final = 500


class CollectionList(BaseModel):
    """Answer of `GET /v1/collections`."""

    model_config = ConfigDict(frozen=True)

    collections: tuple[Collection, ...]


class Collections(ExportsAndImports):
    """The collections of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> tuple[Collection, ...]:
        """Return all collections, without their counts."""
        return self._connection.fetch(CollectionList, Call(method="GET", path="/v1/collections")).collections

    def create(
        self,
        name: str,
        *,
        metric: Metric | str | None = None,
        index: IndexKind | str | None = None,
        tiles: Tiles | None = None,
    ) -> Collection:
        """Create an empty collection; raises `CollectionExists`. An ingest creates a missing one by itself.

        With `tiles` a crop finds its original; that takes as many times the room and the work.
        """
        body: dict[str, Any] = {"name": name}
        if metric is not None:
            body["metric"] = str(metric)
        if index is not None:
            body["index"] = str(index)
        if tiles is not None:
            body["tiles"] = tiles.model_dump()
        call = Call(method="POST", path="/v1/collections", json=body, repeat=Repeat.UNSENT)
        return self._connection.fetch(Collection, call)

    def get(self, name: str) -> Collection:
        """Return one collection with its count; raises `CollectionNotFound`."""
        path = f"/v1/collections/{quote(name, safe='')}"
        return self._connection.fetch(Collection, Call(method="GET", path=path, about={CollectionNotFound: name}))

    @overload
    def reembed(
        self, name: str, model: str, *, switch: bool = ..., allow_missing: bool = ..., wait: Literal[True] = ...
    ) -> IngestSummary: ...

    @overload
    def reembed(
        self, name: str, model: str, *, switch: bool = ..., allow_missing: bool = ..., wait: Literal[False]
    ) -> Job: ...

    def reembed(
        self, name: str, model: str, *, switch: bool = False, allow_missing: bool = False, wait: bool = True
    ) -> IngestSummary | Job:
        """Embed a collection's images with another model, while the one that made it serves on.

        `model` is a fingerprint, the first eight or more digits of one, or a name; workers with it have to be live,
        else it raises `ModelNotLive`. With `switch` it serves the collection in the end, unless images failed and
        `allow_missing` does not let them. With `wait=False` it returns the job.
        """
        body = {"collection": name, "model": model, "switch": switch, "allow_missing": allow_missing}
        job = submit_job(self._connection, "/v1/reembeds", body)
        if not wait:
            return job
        job.wait()
        return JobGroup([job]).result()

    def switch(self, name: str, model: str, *, force: bool = False) -> Collection:
        """Have another of its models serve a collection, at once; raises `ModelNotFound`, `ReembeddingIncomplete`.

        With `force` it may lack images that are stored with the other one.
        """
        path = f"/v1/collections/{quote(name, safe='')}/switch"
        body = {"model": model, "force": force}
        return self._connection.fetch(Collection, Call(method="POST", path=path, json=body, about=_about(name)))

    def compare(self, name: str, model: str, image_ids: Iterable[str], *, limit: int = 10) -> Comparison:
        """Search for stored images with the model that serves a collection and with another of its models.

        At most as many images as one search takes queries. Raises `ModelNotFound`, `ImageNotFound` and `JobFailed`.
        """
        return compare(self._connection, name, model, image_ids, limit)

    def drop_model(self, name: str, model: str) -> None:
        """Delete a collection's vectors of a model that does not serve it; raises `ModelNotFound`, `ModelInUse`."""
        path = f"/v1/collections/{quote(name, safe='')}/models/{quote(model, safe='')}"
        self._connection.send(Call(method="DELETE", path=path, repeat=Repeat.UNSENT, about=_about(name)))

    def delete(self, name: str) -> None:
        """Delete a collection and what is in it; the image files stay. Raises `CollectionNotFound`."""
        path = f"/v1/collections/{quote(name, safe='')}"
        self._connection.send(Call(method="DELETE", path=path, repeat=Repeat.UNSENT, about={CollectionNotFound: name}))


def _about(name: str) -> dict[type[LookalikeError], str]:
    return {CollectionNotFound: name}


class Images:
    """The stored images of a service, by id. Every method raises `ImageNotFound` and `CollectionNotFound`."""

    def __init__(self, connection: Connection, collection: str | None) -> None:
        self._connection = connection
        self._collection = collection

    def get(self, image_id: str, *, collection: str | None = None) -> Image:
        """Return what is stored about an image."""
        return self._connection.fetch(Image, self._call("GET", image_id, "", collection))

    def list(self, filter: str | None = None, *, collection: str | None = None) -> Iterator[Image]:
        """Go through a collection's images in the order of their ids, all or those that a filter matches.

        Raises `InvalidFilter`.
        """
        named = collection or self._collection
        asked = {"collection": named, "filter": filter, "limit": IMAGES_PER_PAGE}
        cursor: str | None = None
        while True:
            params = {name: value for name, value in {**asked, "cursor": cursor}.items() if value}
            call = Call(method="GET", path="/v1/images", params=params, about={CollectionNotFound: named or ""})
            page = self._connection.fetch(ImagePage, call)
            yield from page.images
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    def update(self, image_id: str, metadata: dict[str, Any], *, collection: str | None = None) -> Image:
        """Change some of an image's metadata, None taking a key away; returns the image as it is then.

        Raises `InvalidParameter` for metadata that cannot be stored.
        """
        call = self._call("PATCH", image_id, "", collection)
        return self._connection.fetch(Image, replace(call, json={"metadata": metadata}))

    def delete(self, image_id: str, *, collection: str | None = None) -> None:
        """Take an image out of its collection; its file stays."""
        self._connection.send(self._call("DELETE", image_id, "", collection, repeat=Repeat.UNSENT))

    @overload
    def delete_matching(
        self, filter: str, *, collection: str | None = ..., dry_run: bool = ..., wait: Literal[True] = ...
    ) -> DeletionResult: ...

    @overload
    def delete_matching(
        self, filter: str, *, collection: str | None = ..., dry_run: bool = ..., wait: Literal[False]
    ) -> Job: ...

    def delete_matching(
        self, filter: str, *, collection: str | None = None, dry_run: bool = False, wait: bool = True
    ) -> DeletionResult | Job:
        """Take all images that a filter matches out of their collection; with `dry_run` only count them.

        Raises `InvalidFilter`. With `wait=False` it returns the job.
        """
        named = collection or self._collection
        body = {"filter": filter, "dry_run": dry_run, **({"collection": named} if named else {})}
        job = submit_job(self._connection, "/v1/deletions", body)
        return job.step_result(DeletionResult) if wait and job.wait() else job

    def thumbnail(self, image_id: str, *, collection: str | None = None) -> bytes:
        """Return a small picture of an image, encoded."""
        return self._connection.send(self._call("GET", image_id, "/thumbnail", collection)).content

    def content(self, image_id: str, *, collection: str | None = None) -> bytes:
        """Return the image's file."""
        return self._connection.send(self._call("GET", image_id, "/content", collection)).content

    def _call(
        self, method: str, image_id: str, what: str, collection: str | None, repeat: Repeat = Repeat.ALWAYS
    ) -> Call:
        named = collection or self._collection
        return Call(
            method=method,
            path=f"/v1/images/{quote(image_id, safe='')}{what}",
            params={"collection": named} if named else {},
            repeat=repeat,
            about={ImageNotFound: image_id, CollectionNotFound: named or ""},
        )


class Jobs:
    """The jobs of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, job_id: str) -> Job:
        """Return a job; raises `JobNotFound` and `JobExpired`."""
        return Job(self._connection, self._connection.fetch(JobRecord, calls.look(job_id)))

    def list(self, *, kind: JobKind | str | None = None, state: JobState | str | None = None) -> Iterator[Job]:
        """Go through the jobs, newest first, page by page."""
        asked = {"kind": kind and str(kind), "state": state and str(state)}
        cursor: str | None = None
        while True:
            params = {name: value for name, value in {**asked, "cursor": cursor}.items() if value}
            page = self._connection.fetch(JobPage, Call(method="GET", path="/v1/jobs", params=params))
            yield from (Job(self._connection, record) for record in page.jobs)
            if not page.next_cursor:
                return
            cursor = page.next_cursor
