"""Comparing two models of a collection: the same stored images searched for with both."""

from collections.abc import Iterable, Sequence

from lookalike.client.connection import Call, Connection, submit_key
from lookalike.client.job import Job, wait_for
from lookalike.errors import CollectionNotFound, ImageNotFound
from lookalike.records import Hit, JobRecord, Record, SearchResult


class ComparedQuery(Record):
    """What either model finds for one image, closest first; nothing where it has no vector of it."""

    image_id: str  #: The stored image; of a picture that is not stored, what it is called.
    serving: tuple[Hit, ...]
    other: tuple[Hit, ...]
    overlap: float | None  #: Share of the hits that both find, 0 to 1; None where one of them finds nothing.


class Comparison(Record):
    """The hits of the model that serves a collection and of another one, side by side."""

    queries: tuple[ComparedQuery, ...]
    overlap: float | None  #: The mean over the queries: overlap@k, where k is the limit.


def compare(connection: Connection, name: str, model: str, image_ids: Iterable[str], limit: int) -> Comparison:
    """Search for stored images with both models; raises `ModelNotFound`, `JobFailed`."""
    ids = tuple(image_ids)
    jobs = [_search(connection, name, ids, limit, named) for named in (None, model)]
    wait_for(jobs, None, None)
    serving, other = (job.search_result() for job in jobs)
    return side_by_side(ids, serving, other)


def side_by_side(names: Sequence[str], serving: SearchResult, other: SearchResult) -> Comparison:
    """Compare two answers to the same search, a name per query: one of the model that serves, one of another."""
    queries = tuple(_compared(name, serving, other, number) for number, name in enumerate(names))
    told = [query.overlap for query in queries if query.overlap is not None]
    return Comparison(queries=queries, overlap=sum(told) / len(told) if told else None)


def _search(connection: Connection, name: str, ids: Sequence[str], limit: int, model: str | None) -> Job:
    body = {"collection": name, "queries": [{"image_id": image_id} for image_id in ids], "limit": limit}
    call = Call(
        method="POST",
        path="/v1/searches",
        json=body | ({"model": model} if model else {}),
        headers=submit_key(),
        about={CollectionNotFound: name, ImageNotFound: ids[0] if len(ids) == 1 else ""},
    )
    return Job(connection, connection.fetch(JobRecord, call))


def _compared(image_id: str, serving: SearchResult, other: SearchResult, number: int) -> ComparedQuery:
    left, right = serving.queries[number].hits, other.queries[number].hits
    both = {hit.id for hit in left} & {hit.id for hit in right}
    overlap = len(both) / max(len(left), len(right)) if left and right else None
    return ComparedQuery(image_id=image_id, serving=left, other=right, overlap=overlap)
