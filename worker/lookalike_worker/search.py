"""The search lane: claim all that waits, decode in one round, embed in one pass, ask Milvus once, answer each.

At rest a search is served alone and at once; under load those that wait share the network, without any timer, and are
decoded while the network is at those before them.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.decodepool import Decoded
from lookalike.errors import (
    EmbeddingInvalid,
    ImageError,
    ImageNotFound,
    InvalidParameter,
    LookalikeError,
    ModelMismatch,
    Quarantined,
)
from lookalike.jobstore import SearchClaim
from lookalike.records import Collection, Hit, JobError, Query, QueryResult, SearchResult, score
from lookalike.remote import Fetched
from lookalike.uploads import query_uri
from lookalike.vectorstore import Found
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.keeping import Keeper, result_of

log = logging.getLogger(__name__)

#: Milvus squares and adds in float32; outside of this a length is lost in it.
_NORMS: Final = (1e-15, 1e15)

#: For as long one message keeps its worker at it. Then Celery has its turn: a signal to stop, the connection's health.
SERVE_FOR_S: Final = 2.0


@dataclass
class _Asked:
    """One query on its way: its vector or its error, then its hits."""

    query: Query
    vector: NDArray[np.float32] | None = None
    error: LookalikeError | None = None
    hits: list[Found] = field(default_factory=list)


@dataclass
class _Search:
    """One claimed search on its way to its outcome."""

    claim: SearchClaim
    collection: Collection | None = None
    asked: list[_Asked] = field(default_factory=list)
    error: LookalikeError | None = None


@dataclass
class _Round:
    """Searches that are claimed, decoded, embedded and answered together."""

    began_s: float
    searches: list[_Search]
    keeper: Keeper
    fetching: list[tuple[_Asked, Future[Fetched]]]  #: Their pictures, on their way from an object store...
    decoding: list[tuple[_Asked, Future[Decoded]]]  #: ...and through the decoders.


def serve_searches(context: Context) -> int:
    """Answer the searches that wait, and those that come meanwhile; returns how many there were.

    While the network is at one round, the decoders are at the next. It returns after a while although more may wait:
    their messages do, too.
    """
    served, until_s = 0, time.monotonic() + SERVE_FOR_S
    current = _begin(context)
    while current.searches:
        pictures = _decoded(context, current)
        # A search that was tried before may be what killed its worker. It takes no other with it.
        alone = any(search.claim.attempts > 1 for search in current.searches)
        following = None if alone or time.monotonic() > until_s else _begin_ahead(context)
        try:
            _answer_all(context, current, pictures)
        except Exception:
            for search in following.searches if following else ():
                context.jobs.give_back(search.claim, burn_attempt=False)
            raise
        served += len(current.searches)
        if following is None or not following.searches:
            if time.monotonic() > until_s:
                break
            following = _begin(context)
        current = following
    return served


def _begin(context: Context) -> _Round:
    """Claim what waits, and have its pictures decoded."""
    began_s = time.monotonic()
    claims = context.jobs.claim_searches(limit=context.settings.search_batch)
    searches = [_Search(claim, asked=[_Asked(query) for query in claim.request.queries]) for claim in claims]
    for search in searches:
        _open(context, search)
    keeper = Keeper(context.jobs, context.heart, claims, lease_s=context.settings.search_lease_s)
    return _Round(began_s, searches, keeper, *_read(context, _alive(searches)))


def _begin_ahead(context: Context) -> _Round | None:
    """Begin the next round. What goes wrong there is no reason to leave the one in hand unanswered."""
    try:
        return _begin(context)
    except Exception:
        log.exception("the next searches could not be begun; those in hand are answered first")
        return None


def _answer_all(context: Context, current: _Round, pictures: Sequence[tuple[_Asked, Decoded]]) -> None:
    _embed(context, pictures)
    alive = _alive(current.searches)
    _look_up(context, alive)
    _search(context, alive)
    for search in current.searches:
        outcome = _outcome(search, 1000 * (time.monotonic() - current.began_s))
        if not context.jobs.finish_search(search.claim, outcome):
            log.warning("search %s was taken from this worker before it was answered", search.claim.job_id)


def _alive(searches: Sequence[_Search]) -> list[_Search]:
    return [search for search in searches if search.error is None]


def _open(context: Context, search: _Search) -> None:
    """Find the search's collection, and see that this worker's network made it."""
    try:
        if search.claim.attempts > context.settings.max_attempts:
            raise Quarantined
        search.collection = context.vectors.collection(search.claim.request.collection)
        model = search.collection.model
        if model and model.fingerprint != context.embedder.model.fingerprint:
            raise ModelMismatch
    except LookalikeError as error:
        search.error = error


def _decoded(context: Context, current: _Round) -> list[tuple[_Asked, Decoded]]:
    """Wait for the pictures of a round."""
    pictures: list[tuple[_Asked, Decoded]] = []
    for asked, copy in current.fetching:
        try:
            readable = result_of(copy, current.keeper.keep).uri
        except LookalikeError as error:
            asked.error = error
        else:
            current.decoding.append((asked, context.decoders.decode(readable)))
    for asked, future in current.decoding:
        try:
            pictures.append((asked, result_of(future, current.keeper.keep)))
        except LookalikeError as error:
            asked.error = error
    context.heart.beat()
    return pictures


def _embed(context: Context, pictures: Sequence[tuple[_Asked, Decoded]]) -> None:
    """Embed the pictures of all searches together."""
    if not pictures:
        return
    try:
        vectors = context.embedder.engine.embed(np.stack([decoded.pixels for _, decoded in pictures]))
    except ImageError as error:
        for asked, _ in pictures:
            asked.error = error
        return
    for (asked, _), vector, invalid in zip(pictures, vectors, invalid_rows(vectors), strict=True):
        if invalid:
            asked.error = EmbeddingInvalid()
        else:
            asked.vector = vector


def _read(
    context: Context, searches: Sequence[_Search]
) -> tuple[list[tuple[_Asked, Future[Fetched]]], list[tuple[_Asked, Future[Decoded]]]]:
    """Begin to decode all pictures; those that lie in an object store are only fetched, side by side.

    Waits for neither: while this round is on its way, the one before it is to be answered.
    """
    fetching: list[tuple[_Asked, Future[Fetched]]] = []
    decoding: list[tuple[_Asked, Future[Decoded]]] = []
    for asked in (asked for search in searches for asked in search.asked):
        try:
            uri = _picture(context, asked.query)
        except LookalikeError as error:
            asked.error = error
        else:
            if uri and context.remote.is_remote(uri):
                fetching.append((asked, context.remote.fetch(uri)))
            elif uri:
                decoding.append((asked, context.decoders.decode(uri)))
    return fetching, decoding


def _picture(context: Context, query: Query) -> str | None:
    """The URI of the picture to embed; None for a query that brings or names a vector."""
    if query.upload:
        return query_uri(query.upload.sha256)
    if query.path:
        return context.sources.roots.resolve_file(query.path)
    return None


def _look_up(context: Context, searches: Sequence[_Search]) -> None:
    """Take the vectors of queries that name a stored image, or bring their own."""
    wanted: dict[str, list[_Asked]] = defaultdict(list)
    for search in searches:
        for asked in search.asked:
            if asked.query.image_id:
                wanted[search.claim.request.collection].append(asked)
            elif asked.query.vector:
                _take_vector(asked, search.collection)
    for name, asking in wanted.items():
        ids = {str(asked.query.image_id) for asked in asking}
        try:
            vectors = context.vectors.vectors(name, sorted(ids))
        except LookalikeError as error:
            for asked in asking:
                asked.error = error
        else:
            for asked in asking:
                asked.vector = vectors.get(str(asked.query.image_id))
                asked.error = ImageNotFound() if asked.vector is None else None


def _take_vector(asked: _Asked, collection: Collection | None) -> None:
    vector = np.asarray(asked.query.vector, dtype=np.float32)
    model = collection.model if collection else None
    if model and len(vector) != model.dim:
        asked.error = InvalidParameter(f"The vector has {len(vector)} values, this collection's have {model.dim}.")
    elif not _NORMS[0] < np.linalg.norm(vector.astype(np.float64)) < _NORMS[1]:
        asked.error = InvalidParameter("The vector has to be finite, and neither all but zero nor of an absurd length.")
    else:
        asked.vector = vector


def _search(context: Context, searches: Sequence[_Search]) -> None:
    """Ask Milvus once for all queries with the same collection and filter."""
    groups: dict[tuple[str, str | None], list[_Search]] = defaultdict(list)
    for search in searches:
        if search.collection and search.collection.model:
            groups[search.claim.request.collection, search.claim.request.filter].append(search)
    for (name, condition), group in groups.items():
        ready = [
            (asked, search.claim.request.limit, asked.vector)
            for search in group
            for asked in search.asked
            if asked.vector is not None
        ]
        if not ready:
            continue
        matrix = np.stack([vector for _, _, vector in ready])
        most = max(limit for _, limit, _ in ready)
        try:
            answers = context.vectors.search(name, matrix, limit=most, filter=condition)
        except LookalikeError as error:
            for search in group:
                search.error = error
        else:
            for (asked, limit, _), found in zip(ready, answers, strict=True):
                asked.hits = found[:limit]


def _outcome(search: _Search, took_ms: float) -> dict[str, Any] | JobError:
    if search.error or not search.collection:
        error = search.error or LookalikeError()
        log.info("search %s failed: %s", search.claim.job_id, error.code)
        return JobError(code=error.code, message=error.message)
    result = SearchResult(
        collection=search.collection.name,
        metric=search.collection.metric,
        model=search.collection.model,
        took_ms=round(took_ms, 1),
        queries=tuple(_answer(asked, search.collection) for asked in search.asked),
    )
    return result.model_dump(mode="json")


def _answer(asked: _Asked, collection: Collection) -> QueryResult:
    query = asked.query.model_dump(mode="json", exclude_none=True)
    if asked.query.vector:
        query = {"vector": f"{len(asked.query.vector)} values"}  # Its sender has it; a result of many need not.
    if asked.error:
        return QueryResult(query=query, error=JobError(code=asked.error.code, message=asked.error.message))
    hits = tuple(
        Hit(
            rank=rank,
            id=found.image.id,
            uri=found.image.uri,
            name=found.image.name,
            distance=found.distance,
            score=score(found.distance, collection.metric),
            sha256=found.image.sha256,
            width=found.image.width,
            height=found.image.height,
            duplicate_of=found.image.duplicate_of,
            metadata=found.image.metadata,
        )
        for rank, found in enumerate(asked.hits, 1)
    )
    return QueryResult(query=query, hits=hits)
