"""Searches: pictures, stored images, server files and vectors as requests, each of which becomes one job."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookalike.client.connection import Call, submit_key
from lookalike.client.job import LONG_POLL_S
from lookalike.client.parts import Part, Picture, picture_part
from lookalike.client.upload import Bounds, batches_of, submission
from lookalike.errors import CollectionNotFound, FileTooLarge, ImageError, ImageNotFound, InvalidRequest, LookalikeError
from lookalike.records import SearchResult


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a search asks for, apart from its queries."""

    collection: str | None  #: None: the service's own default.
    limit: int
    filter: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as a request's fields."""
        fields = {"collection": self.collection, "limit": self.limit, "filter": self.filter}
        return {name: value for name, value in fields.items() if value is not None}


def queries_of(
    image_ids: Iterable[str], server_paths: Iterable[str], vectors: Iterable[Iterable[float]]
) -> list[dict[str, Any]]:
    """Return the queries that need no upload, as the HTTP API names them."""
    return [
        *({"image_id": image_id} for image_id in image_ids),
        *({"path": str(path)} for path in server_paths),
        *({"vector": [float(value) for value in vector]} for vector in vectors),
    ]


def calls(
    pictures: Sequence[Picture], queries: Sequence[Mapping[str, Any]], wanted: Wanted, bounds: Bounds, *, wait: bool
) -> list[Call]:
    """Cut a search into requests that the service takes, pictures first; one alone can hold for its result."""
    if not pictures and not queries:
        raise InvalidRequest("There is nothing to search for: give an image, an image id, a server path or a vector.")
    room = bounds.room_bytes(wanted.fields())
    parts = [_fitting(picture_part(picture, number), room) for number, picture in enumerate(pictures, 1)]
    uploads = list(batches_of(parts, max_bytes=room, max_images=bounds.max_queries))
    named = [queries[start : start + bounds.max_queries] for start in range(0, len(queries), bounds.max_queries)]
    hold_s = LONG_POLL_S if wait and len(uploads) + len(named) == 1 else 0.0
    form = {name: str(value) for name, value in {**wanted.fields(), "wait": hold_s}.items()}
    return [
        *(
            submission("/v1/searches", batch, form, hold_s=hold_s, about=_about([part.label for part in batch], wanted))
            for batch in uploads
        ),
        *(
            Call(
                method="POST",
                path="/v1/searches",
                headers=submit_key(),
                json={**wanted.fields(), "queries": batch, "wait": hold_s},
                hold_s=hold_s,
                about=_about([str(query.get("image_id") or query.get("path") or "") for query in batch], wanted),
            )
            for batch in named
        ),
    ]


def _about(queries: Sequence[str], wanted: Wanted) -> dict[type[LookalikeError], str]:
    """Return what a refusal is about: the only query, or the one that the service names."""
    query = queries[0] if len(queries) == 1 else ""
    return {ImageError: query, ImageNotFound: query, CollectionNotFound: wanted.collection or ""}


def merged(results: Sequence[SearchResult]) -> SearchResult:
    """Put the results of a search's requests together, in their order."""
    queries = tuple(query for result in results for query in result.queries)
    return results[0].model_copy(update={"queries": queries, "took_ms": sum(result.took_ms for result in results)})


def _fitting(part: Part, room: int) -> Part:
    if part.cost_bytes > room:
        raise FileTooLarge(f"{part.label} is larger than the service takes in one request ({room} bytes).")
    return part
