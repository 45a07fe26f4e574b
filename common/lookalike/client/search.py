"""Searches: pictures, stored images, server files and vectors as requests, each of which becomes one job."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypedDict

from lookalike.client.connection import Call, submit_key
from lookalike.client.job import LONG_POLL_S
from lookalike.client.parts import Part, Picture, picture_part
from lookalike.client.upload import Bounds, batches_of, submission
from lookalike.errors import CollectionNotFound, FileTooLarge, ImageError, ImageNotFound, InvalidRequest, LookalikeError
from lookalike.records import SearchResult, Variant


class SearchOptions(TypedDict, total=False):
    """The options of a search, each by its name."""

    image_ids: Iterable[str]  #: Stored images to search with.
    server_paths: Iterable[str]  #: Files under the service's roots.
    urls: Iterable[str]  #: Addresses of pictures, where the service fetches any.
    uploads: Iterable[str]  #: Contents that were uploaded before, by SHA-256.
    vectors: Iterable[Iterable[float]]
    queries: Iterable[Mapping[str, Any]]  #: Any others, as the HTTP API has them: combined examples, say.
    collection: str | None  #: Where to look; None is the service's default.
    model: str | None  #: Which of the collection's models is to answer.
    limit: int  #: Hits per query.
    offset: int  #: Hits that are left out at the beginning.
    filter: str | None  #: A Milvus expression over the images' fields.
    max_distance: float | None  #: The distance of the farthest hit that counts, whatever the metric's direction.
    min_score: float | None
    group_by: str | None  #: A field; of the images with the same value only the closest is a hit.
    exclude_self: bool  #: Leave out the images that are searched with.
    distinct: bool  #: Of images with the same content only the closest is a hit.
    params: Mapping[str, int] | None  #: `ef` or `nprobe`, where the collection's index takes it.
    consistency: Literal["strong", "bounded"] | None
    variants: Sequence[Variant | str]  #: Search with the pictures turned, too.
    box: tuple[float, float, float, float] | None  #: The region of local pictures that counts, in parts of their sides.
    unlike: Iterable[Picture]  #: Local pictures of what is not wanted. All others are then examples of one query.
    together: bool  #: Make one query of all that is given.


_SOURCES: Final = ("image_ids", "server_paths", "urls", "uploads", "vectors", "queries", "box", "unlike", "together")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a search asks for, apart from its queries."""

    terms: Mapping[str, Any]  #: Fields of the request; those that say nothing are left out.
    queries: Sequence[Mapping[str, Any]]  #: Those that need no upload.
    box: tuple[float, float, float, float] | None = None
    unlike: Sequence[Picture] = ()
    together: bool = False

    @classmethod
    def of(cls, options: SearchOptions, *, collection: str | None) -> Self:
        """Sort the options; `collection` is where to look if they do not say."""
        unknown = sorted(set(options) - set(SearchOptions.__annotations__))
        if unknown:
            raise TypeError(f"a search has no option {unknown[0]!r}")
        given: dict[str, Any] = {"collection": collection, "limit": 3}
        given |= {name: value for name, value in options.items() if value is not None and name not in _SOURCES}
        terms = {name: value for name, value in given.items() if not _says_nothing(value)}
        if "variants" in terms:
            terms["variants"] = [str(Variant(variant)) for variant in terms["variants"]]
        unlike = tuple(options.get("unlike", ()))
        return cls(
            terms=terms,
            queries=queries_of(options),
            box=options.get("box"),
            unlike=unlike,
            together=bool(unlike) or options.get("together", False),
        )

    def form(self) -> dict[str, str]:
        """Return it as the fields of a form."""
        fields = {**self.terms, **({"box": list(self.box)} if self.box else {})}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def _says_nothing(value: object) -> bool:
    return value is None or value is False or (isinstance(value, Sequence | Mapping) and not value)


def queries_of(options: SearchOptions) -> list[dict[str, Any]]:
    """Return the queries that need no upload, as the HTTP API names them."""
    return [
        *({"image_id": image_id} for image_id in options.get("image_ids", ())),
        *({"path": str(path)} for path in options.get("server_paths", ())),
        *({"url": url} for url in options.get("urls", ())),
        *({"upload": {"sha256": sha256}} for sha256 in options.get("uploads", ())),
        *({"vector": [float(value) for value in vector]} for vector in options.get("vectors", ())),
        *(dict(query) for query in options.get("queries", ())),
    ]


def calls(pictures: Sequence[Picture], wanted: Wanted, bounds: Bounds, *, wait: bool) -> list[Call]:
    """Cut a search into requests that the service takes, pictures first; one alone can hold for its result."""
    if not pictures and not wanted.queries:
        raise InvalidRequest("There is nothing to search for: give an image, an image id, a server path or a vector.")
    room = bounds.room_bytes(wanted.form())
    parts = [_fitting(picture_part(picture, number), room) for number, picture in enumerate(pictures, 1)]
    if wanted.together:
        return [_together(parts, wanted, room, wait=wait)]
    uploads = list(batches_of(parts, max_bytes=room, max_images=bounds.max_queries))
    most = bounds.max_queries
    named = [wanted.queries[start : start + most] for start in range(0, len(wanted.queries), most)]
    hold_s = LONG_POLL_S if wait and len(uploads) + len(named) == 1 else 0.0
    form = {**wanted.form(), "wait": str(hold_s)}
    return [
        *(
            submission("/v1/searches", batch, form, hold_s=hold_s, about=_about([part.label for part in batch], wanted))
            for batch in uploads
        ),
        *(_named(batch, wanted, hold_s) for batch in named),
    ]


def _named(queries: Sequence[Mapping[str, Any]], wanted: Wanted, hold_s: float) -> Call:
    names = [str(query.get("image_id") or query.get("path") or query.get("url") or "") for query in queries]
    return Call(
        method="POST",
        path="/v1/searches",
        headers=submit_key(),
        json={**wanted.terms, "queries": list(queries), "wait": hold_s},
        hold_s=hold_s,
        about=_about(names, wanted),
    )


def _together(parts: Sequence[Part], wanted: Wanted, room: int, *, wait: bool) -> Call:
    """Make one query of all examples: local pictures, or what the service can find itself."""
    hold_s = LONG_POLL_S if wait else 0.0
    others = [_fitting(picture_part(picture, number), room) for number, picture in enumerate(wanted.unlike, 1)]
    if wanted.queries and (parts or others):
        raise InvalidRequest(
            "Examples that are combined are all local pictures, or all known to the service. "
            "Upload the local ones first, and name them in `queries`."
        )
    if wanted.queries:
        return _named([{"positive": list(wanted.queries)}], wanted, hold_s)
    sent = [replace(part, role="positive") for part in parts] + [replace(part, role="negative") for part in others]
    if sum(part.cost_bytes for part in sent) > room:
        raise FileTooLarge(f"The examples together are larger than the service takes in one request ({room} bytes).")
    return submission("/v1/searches", sent, {**wanted.form(), "wait": str(hold_s)}, hold_s=hold_s)


def _about(queries: Sequence[str], wanted: Wanted) -> dict[type[LookalikeError], str]:
    """Return what a refusal is about: the only query, or the one that the service names."""
    query = queries[0] if len(queries) == 1 else ""
    return {ImageError: query, ImageNotFound: query, CollectionNotFound: str(wanted.terms.get("collection", ""))}


def merged(results: Sequence[SearchResult]) -> SearchResult:
    """Put the results of a search's requests together, in their order."""
    queries = tuple(query for result in results for query in result.queries)
    return results[0].model_copy(update={"queries": queries, "took_ms": sum(result.took_ms for result in results)})


def _fitting(part: Part, room: int) -> Part:
    if part.cost_bytes > room:
        raise FileTooLarge(f"{part.label} is larger than the service takes in one request ({room} bytes).")
    return part
