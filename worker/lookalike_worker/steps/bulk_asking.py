"""Queries of a bulk search: read like a chunk of an ingest, answered like searches that share their calls."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from lookalike.decodepool import Decoded
from lookalike.errors import EmbeddingInvalid, ImageError, LookalikeError, Quarantined
from lookalike.jobstore import ChunkClaim, IngestItem, SearchClaim, StepClaim
from lookalike.listing import Listed
from lookalike.records import (
    BulkSearchRequest,
    Failure,
    HitTerms,
    IngestRequest,
    JobError,
    Query,
    QueryResult,
    SearchRequest,
    Stage,
    UploadedFile,
)
from lookalike.roots import FILE_SCHEME, file_path, image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike_worker.answering import answer
from lookalike_worker.asking import Asked, Search
from lookalike_worker.combining import turned
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.ingest.ledger import failure_of
from lookalike_worker.ingest.reading import Reader
from lookalike_worker.ingest.work import File, Work
from lookalike_worker.routing import aim_search

#: What one call to Milvus may return: its rows are held at once, a kilobyte or so each with their metadata.
MOST_HITS: Final = 10_000
MOST_QUERIES: Final = 64  #: Of one call.
#: Where images are left out of the hits, more are looked at, if only at their contents.
_LOOKED_AT: Final = 1_000

Keep = Callable[[], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One query with its answer; where it failed, that has an error, and there is a line for the ledger."""

    result: QueryResult
    name: str
    uri: str
    failure: Failure | None = None


@dataclass
class _Reading(Work):
    """What has become of the queries that are read together."""

    failed: dict[File, Failure] = field(default_factory=dict)

    def fail(self, file: File, error: LookalikeError, stage: Stage) -> None:
        attempts = self.claim.attempts + file.attempts - 1
        self.failed[file] = failure_of(file.item, error, stage, attempts=attempts)


def listing_of(request: BulkSearchRequest) -> IngestRequest:
    """Return the ingest that lists what the search reads its queries from."""
    return IngestRequest(collection=request.collection, source=request.source)


def answer_all(
    context: Context, claim: StepClaim, request: BulkSearchRequest, found: Sequence[Listed], keep: Keep
) -> list[Answered]:
    """Answer queries, in their order. What is wrong with one of them is its own; anything else raises."""
    reading = _Reading(
        ChunkClaim(
            job_id=claim.job_id,
            token=claim.token,
            attempts=claim.attempts,
            number=0,
            request=listing_of(request),
            items=(),
        )
    )
    files = [File(_item(listed), image_id(listed.uri)) for listed in found]
    readable = []
    for file, listed in zip(files, found, strict=True):
        if listed.error:
            reading.fail(file, listed.error, Stage.LIST)
        else:
            readable.append(file)
    asked = _embedded(context, request, reading, readable, keep)
    for some in _in_batches(asked.values(), _queries_per_call(request)):
        keep()
        _search(context, claim, request, some)
    return [_answered(file, asked.get(file), reading.failed.get(file)) for file in files]


def set_aside(claim: StepClaim, listed: Listed) -> Answered:
    """Give a query up that workers died on."""
    file = File(_item(listed), image_id(listed.uri))
    return _answered(file, None, failure_of(file.item, Quarantined(), Stage.EMBED, attempts=claim.attempts))


def _item(listed: Listed) -> IngestItem:
    return IngestItem(uri=listed.uri, name=listed.name, metadata=listed.metadata)


def _embedded(
    context: Context, request: BulkSearchRequest, reading: _Reading, files: Sequence[File], keep: Keep
) -> dict[File, Asked]:
    """Decode and embed; while the network is at some, decoders are at the next."""
    reader = Reader(context, reading, keep)
    asked: dict[File, Asked] = {}
    turns = 1 + len(set(request.variants))
    size = max(1, context.embedder.engine.batch_images // turns)
    for some in _in_batches(reader.decoded(reader.fetched(files)), size):
        keep()
        asked |= _embed(context, request, reading, some)
    return asked


def _embed(
    context: Context, request: BulkSearchRequest, reading: _Reading, some: Sequence[tuple[File, Decoded]]
) -> dict[File, Asked]:
    turns = (None, *dict.fromkeys(request.variants))
    pixels = [turned(decoded.pixels, turn) for _, decoded in some for turn in turns]
    try:
        vectors = context.embedder.engine.embed(np.stack(pixels))
    except ImageError as error:
        if len(some) == 1:
            reading.fail(some[0][0], error, Stage.EMBED)
            return {}
        # One of them is at fault, and not known yet.
        return {file: one for pair in some for file, one in _embed(context, request, reading, [pair]).items()}
    bad = invalid_rows(vectors)
    asked = {}
    for number, (file, decoded) in enumerate(some):
        span = slice(number * len(turns), (number + 1) * len(turns))
        if bad[span].any():
            reading.fail(file, EmbeddingInvalid(), Stage.EMBED)
            continue
        one = Asked.of(_query(file.item.uri))
        one.parts[0].uris, one.parts[0].sha256 = (file.item.uri,), decoded.sha256
        one.parts[0].vectors = one.vectors = list(vectors[span])
        asked[file] = one
    return asked


def _in_batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(things)
    while some := list(islice(rest, size)):
        yield some


def _query(uri: str) -> Query:
    """Name a listed image as a search would."""
    if uri.startswith(FILE_SCHEME):
        return Query(path=str(file_path(uri)))
    if uri.startswith(UPLOAD_SCHEME):
        return Query(upload=UploadedFile(sha256=uri.removeprefix(UPLOAD_SCHEME)))
    return Query(url=uri)


def _queries_per_call(request: BulkSearchRequest) -> int:
    is_picky = request.distinct or request.exclude_self or request.group_by is not None
    rows = max(request.limit, _LOOKED_AT) if is_picky else request.limit
    return max(1, min(MOST_QUERIES, MOST_HITS // rows // (1 + len(set(request.variants)))))


def _search(context: Context, claim: StepClaim, request: BulkSearchRequest, asked: Sequence[Asked]) -> None:
    terms: dict[str, Any] = {name: getattr(request, name) for name in HitTerms.model_fields}
    wanted = SearchRequest(queries=tuple(one.query for one in asked), **terms)
    collection, aimed = aim_search(
        context, SearchClaim(job_id=claim.job_id, token=claim.token, attempts=claim.attempts, request=wanted)
    )
    search = Search(aimed, list(asked), collection)
    answer(context, [search])
    if search.error:
        raise search.error


def _answered(file: File, asked: Asked | None, failure: Failure | None) -> Answered:
    item = file.item
    query = {"uri": item.uri, "name": item.name, **({"metadata": item.metadata} if item.metadata else {})}
    if failure:
        result = QueryResult(query=query, error=JobError(code=failure.code, message=failure.message))
    elif asked and asked.answer:
        result = asked.answer.model_copy(update={"query": query, "next_offset": None})
    else:
        result = QueryResult(query=query)  # Of a collection without images.
    return Answered(result=result, name=item.name, uri=item.uri, failure=failure)


def failures_of(answered: Iterable[Answered]) -> Iterator[Failure]:
    """Yield the lines for the ledger."""
    return (one.failure for one in answered if one.failure)
