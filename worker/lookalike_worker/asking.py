"""Asking: from what a search names to vectors. Pictures are fetched, decoded and embedded, vectors looked up."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.decodepool import Decoded
from lookalike.errors import (
    EmbeddingInvalid,
    FileMissing,
    ImageError,
    ImageNotFound,
    InvalidParameter,
    LookalikeError,
)
from lookalike.jobstore import SearchClaim
from lookalike.records import Collection, Example, Query, QueryResult, SearchRequest, Variant
from lookalike.remote import Fetched
from lookalike.roots import image_id
from lookalike.uploads import query_uri, upload_uri
from lookalike_worker.combining import combined, turned
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.keeping import result_of

#: Milvus squares and adds in float32; outside of this a length is lost in it.
_NORMS: Final = (1e-15, 1e15)
_WEB: Final = ("http://", "https://")

Vector = NDArray[np.float32]


@dataclass(eq=False)
class Part:
    """One example of a query on its way to its vectors: one, or one for each way the picture is turned."""

    example: Example
    is_wanted: bool = True  #: False of a negative example.
    uris: tuple[str, ...] = ()  #: Where its picture may lie, in the order to be tried; none of a vector.
    vectors: list[Vector] = field(default_factory=list)
    sha256: str = ""  #: Of the picture's file, once it was read.
    fetching: Future[Fetched] | None = None
    decoding: Future[Decoded] | None = None


@dataclass(eq=False)
class Asked:
    """One query on its way: its parts, then its vectors or its error, then its answer."""

    query: Query
    parts: list[Part]
    vectors: list[Vector] = field(default_factory=list)
    error: LookalikeError | None = None
    answer: QueryResult | None = None

    @classmethod
    def of(cls, query: Query) -> "Asked":
        """Begin a query."""
        if query.positive is None:
            return cls(query, [Part(query)])
        wanted = [Part(example) for example in query.positive]
        return cls(query, wanted + [Part(example, is_wanted=False) for example in query.negative])

    @property
    def own_ids(self) -> set[str]:
        """The ids that the pictures searched with have, where they are stored."""
        named = {part.example.image_id for part in self.parts if part.example.image_id}
        return named | {image_id(uri) for part in self.parts for uri in part.uris}

    @property
    def own_contents(self) -> set[str]:
        """The contents of what was uploaded to search with: it has no place of its own to be known by."""
        return {part.example.upload.sha256 for part in self.parts if part.example.upload}


@dataclass(eq=False)
class Search:
    """One claimed search on its way to its outcome."""

    claim: SearchClaim
    asked: list[Asked]
    collection: Collection | None = None
    error: LookalikeError | None = None

    @classmethod
    def of(cls, claim: SearchClaim) -> "Search":
        """Begin a search."""
        return cls(claim, [Asked.of(query) for query in claim.request.queries])

    @property
    def request(self) -> SearchRequest:
        """What is asked for."""
        return self.claim.request

    @property
    def turns(self) -> tuple[Variant | None, ...]:
        """How each picture is searched with: as it is, and turned."""
        return (None, *dict.fromkeys(self.request.variants))

    @property
    def is_fetching(self) -> bool:
        """True while a picture of it is still on its way here."""
        return any(part.fetching and not part.fetching.done() for _, part in parts_of([self]))


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, and what its vectors are for."""

    asked: Asked
    part: Part
    turns: tuple[Variant | None, ...]
    decoded: Decoded


def parts_of(searches: Sequence[Search]) -> Iterator[tuple[Asked, Part]]:
    """Yield the parts of all queries that have no error."""
    for search in searches:
        for asked in search.asked if search.error is None else ():
            for part in asked.parts:
                if asked.error is None:
                    yield asked, part


def read(context: Context, searches: Sequence[Search]) -> None:
    """Begin to decode all pictures; those that lie elsewhere are only fetched, side by side.

    Waits for neither: while this round is on its way, the one before it is to be answered.
    """
    stored = _stored_places(context, searches)
    for asked, part in parts_of(searches):
        try:
            part.uris = stored.get(id(part)) or _places(context, part.example)
            if part.uris:
                _begin(context, part, part.uris[0])
        except LookalikeError as error:
            asked.error = error


def _begin(context: Context, part: Part, uri: str) -> None:
    if uri.startswith(_WEB):
        part.fetching = context.remote.fetch(uri, patient=False)
    elif context.remote.is_remote(uri):
        part.fetching = context.remote.fetch(uri)
    else:
        part.decoding = _decode(context, part, uri)


def _decode(context: Context, part: Part, uri: str) -> Future[Decoded]:
    return context.decoders.decode(uri, region=part.example.box, hashed=False)


def _places(context: Context, example: Example) -> tuple[str, ...]:
    if example.upload:
        # Pictures that came with a search lie apart from those that were uploaded for an ingest.
        return query_uri(example.upload.sha256), upload_uri(example.upload.sha256)
    if example.path:
        return (context.sources.roots.resolve_file(example.path),)
    if example.url:
        return (context.remote.check_url(example.url),)
    return ()


def _stored_places(context: Context, searches: Sequence[Search]) -> dict[int, tuple[str, ...]]:
    """Return where the stored images lie whose pixels are needed, because only a part of them counts, or they turn."""
    wanted: dict[str, list[tuple[Asked, Part]]] = defaultdict(list)
    for search in searches:
        for asked, part in parts_of([search]):
            if part.example.image_id and (part.example.box or len(search.turns) > 1):
                wanted[search.request.collection].append((asked, part))
    places: dict[int, tuple[str, ...]] = {}
    for name, asking in wanted.items():
        try:
            images = context.vectors.known(name, sorted({str(part.example.image_id) for _, part in asking}))
        except LookalikeError as error:
            for asked, _ in asking:
                asked.error = error
            continue
        for asked, part in asking:
            image = images.get(str(part.example.image_id))
            if image is None:
                asked.error = ImageNotFound()
            else:
                places[id(part)] = (image.uri,)
    return places


def take_pictures(context: Context, searches: Sequence[Search], keep: Callable[[], None]) -> list[Picture]:
    """Wait for the pictures of a round."""
    for asked, part in parts_of(searches):
        if part.fetching is None:
            continue
        try:
            part.decoding = _decode(context, part, result_of(part.fetching, keep).uri)
        except FileMissing as error:
            # What one place has not, the next may have.
            if len(part.uris) < 2:
                asked.error = error
        except LookalikeError as error:
            asked.error = error
    pictures: list[Picture] = []
    for search in searches:
        for asked, part in parts_of([search]):
            if not part.uris:
                continue
            try:
                decoded = _decoded(context, part, keep)
            except LookalikeError as error:
                asked.error = error
            else:
                part.sha256 = decoded.sha256
                pictures.append(Picture(asked, part, search.turns, decoded))
    context.heart.beat()
    return pictures


def _decoded(context: Context, part: Part, keep: Callable[[], None]) -> Decoded:
    try:
        if part.decoding is not None:
            return result_of(part.decoding, keep)
    except FileMissing:
        if len(part.uris) < 2:
            raise
    other = part.uris[-1]
    readable = result_of(context.remote.fetch(other), keep).uri if context.remote.is_remote(other) else other
    return result_of(_decode(context, part, readable), keep)


def embed(context: Context, pictures: Sequence[Picture]) -> None:
    """Embed the pictures of all searches together, as they are and turned."""
    if not pictures:
        return
    pixels = [turned(picture.decoded.pixels, turn) for picture in pictures for turn in picture.turns]
    places = [(picture.asked, picture.part) for picture in pictures for _ in picture.turns]
    try:
        vectors = context.embedder.engine.embed(np.stack(pixels))
    except ImageError as error:
        for asked, _ in places:
            asked.error = error
        return
    for (asked, part), vector, invalid in zip(places, vectors, invalid_rows(vectors), strict=True):
        if invalid:
            asked.error = EmbeddingInvalid()
        else:
            part.vectors.append(vector)


def look_up(context: Context, searches: Sequence[Search]) -> None:
    """Take the vectors of stored images, and those that came along; then make each query's of those of its parts."""
    wanted: dict[str, list[tuple[Asked, Part]]] = defaultdict(list)
    for search in searches:
        for asked, part in parts_of([search]):
            if part.example.vector:
                _take_vector(asked, part, search.collection)
            elif not part.uris:
                wanted[search.request.collection].append((asked, part))
    for name, asking in wanted.items():
        try:
            vectors = context.vectors.vectors(name, sorted({str(part.example.image_id) for _, part in asking}))
        except LookalikeError as error:
            for asked, _ in asking:
                asked.error = error
            continue
        for asked, part in asking:
            vector = vectors.get(str(part.example.image_id))
            if vector is None:
                asked.error = ImageNotFound()
            else:
                part.vectors.append(vector)
    for asked in {id(asked): asked for asked, _ in parts_of(searches)}.values():
        _combine(asked)


def _take_vector(asked: Asked, part: Part, collection: Collection | None) -> None:
    vector = np.asarray(part.example.vector, dtype=np.float32)
    model = collection.model if collection else None
    if model and len(vector) != model.dim:
        asked.error = InvalidParameter(f"The vector has {len(vector)} values, this collection's have {model.dim}.")
    elif not _NORMS[0] < np.linalg.norm(vector.astype(np.float64)) < _NORMS[1]:
        asked.error = InvalidParameter("The vector has to be finite, and neither all but zero nor of an absurd length.")
    else:
        part.vectors.append(vector)


def _combine(asked: Asked) -> None:
    if not asked.query.is_combined:
        asked.vectors = asked.parts[0].vectors
        return
    try:
        asked.vectors = [
            combined(
                [part.vectors[0] for part in asked.parts if part.is_wanted],
                [part.vectors[0] for part in asked.parts if not part.is_wanted],
            )
        ]
    except InvalidParameter as error:
        asked.error = error
