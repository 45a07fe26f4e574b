"""The figure of a finished search: fetches the pictures, and leaves the drawing to `lookalike.figure`."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from lookalike.errors import LookalikeError
from lookalike.figure import MAX_HITS, MAX_ROWS, FigureHit, FigureRow, draw_figure
from lookalike.records import Hit, JobRecord, QueryResult, SearchResult
from lookalike_web.services import Services
from lookalike_web.sourcing import upload_place

Thumbnails = Mapping[str, Future[bytes]]

_THREADS = 8  #: Pictures that are waited for at a time; those that are elsewhere have to be fetched.


def draw(services: Services, record: JobRecord) -> bytes:
    """Draw a succeeded search as PNG. A picture that cannot be read any more is left blank."""
    result = SearchResult.model_validate(record.result)
    shown = result.queries[:MAX_ROWS]
    sources = [query_picture(services, result.collection, answer.query) for answer in shown]
    hits = {hit.uri for answer in shown for hit in answer.hits[:MAX_HITS]}
    thumbnails = _request(services, {*hits, *filter(None, sources)})
    rows = [_row(answer, source, thumbnails) for answer, source in zip(shown, sources, strict=True)]
    return draw_figure(rows, title=_title(result))


def query_picture(services: Services, collection: str, query: Mapping[str, Any]) -> str | None:
    """Return the URI of the picture that was searched with, None where there was none or it is gone."""
    if examples := query.get("positive"):
        return query_picture(services, collection, examples[0])
    try:
        if upload := query.get("upload"):
            return upload_place(services, upload["sha256"])
        if url := query.get("url"):
            return services.remote.check_url(url)
        if path := query.get("path"):
            return services.roots.resolve_file(path)
        if image_id := query.get("image_id"):
            return services.vectors.get(collection, image_id).uri
    except LookalikeError:
        pass  # It was there when it was searched with.
    return None


def _title(result: SearchResult) -> str:
    untrained = ", untrained network" if result.model and not result.model.trained else ""
    return f"{result.collection}: {result.metric.value} distances, {result.took_ms:.0f} ms{untrained}"


def _request(services: Services, uris: Iterable[str]) -> Thumbnails:
    with ThreadPoolExecutor(_THREADS) as threads:
        return {uri: threads.submit(lambda uri: services.thumbnail(uri).result(), uri) for uri in uris}


def _row(answer: QueryResult, source: str | None, thumbnails: Thumbnails) -> FigureRow:
    hits = [
        FigureHit(f"{_found(hit)}\n{hit.name or _name(hit.uri)}", _picture(thumbnails, hit.uri), hit.box)
        for hit in answer.hits[:MAX_HITS]
    ]
    shown = (answer.query.get("positive") or [answer.query])[0]  # As `query_picture` chooses it.
    return FigureRow(_label(answer), _picture(thumbnails, source), hits, shown.get("box"))


def _found(hit: Hit) -> str:
    """Return how near a hit is and, where the query was turned to be it, how."""
    return f"{hit.distance:.4f}" + (f", {hit.variant}" if hit.variant else "")


def _label(answer: QueryResult) -> str:
    query = answer.query
    name = (query.get("upload") or {}).get("name") or _name(
        query.get("path") or query.get("url") or query.get("image_id") or "query"
    )
    return f"{name}\n{answer.error.code}" if answer.error else name


def _name(uri: str) -> str:
    return PurePosixPath(unquote(uri)).name


def _picture(thumbnails: Thumbnails, uri: str | None) -> bytes | None:
    if uri is None:
        return None
    try:
        return thumbnails[uri].result()
    except LookalikeError:  # It is gone, broken, or where it is cannot be reached.
        return None
