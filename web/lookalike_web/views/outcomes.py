"""`/v1/jobs/{id}/failures` and `/figure.png`: what came of a job, beside its record."""

from collections.abc import Iterable
from itertools import chain
from typing import Literal
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from pydantic import Field

from lookalike import errors
from lookalike.records import FailurePage, JobKind, JobState, Record
from lookalike_web.errors import Problem
from lookalike_web.figures import draw, query_picture
from lookalike_web.ledger import CSV, NDJSON, csv_lines, ndjson_lines, pages
from lookalike_web.openapi import JSON, Answer, Operation, operation
from lookalike_web.presenting import json_response
from lookalike_web.services import services
from lookalike_web.views.jobs import JOB_ERRORS, known_id

blueprint = Blueprint("outcomes", __name__)

_MAX_PAGE = 1000


class FailuresQuery(Record):
    """Query string of `GET /v1/jobs/{job_id}/failures`."""

    format: Literal["ndjson", "csv", "json"] | None = None  #: Overrides the Accept header.
    cursor: str | None = None  #: `next_cursor` of the page before; asks for one page.
    limit: int | None = Field(None, ge=1, le=_MAX_PAGE)  #: Lines per page; asks for one page.


@blueprint.get("/v1/jobs/<job_id>/failures")
@operation(
    Operation(
        tag="jobs",
        query=FailuresQuery,
        answers={
            200: Answer(
                description="The ledger, a line per file that failed; or one page of it.",
                model=FailurePage,
                media=(NDJSON, CSV, JSON),
            )
        },
        errors=(*JOB_ERRORS, errors.InvalidParameter),
    )
)
def list_failures(query: FailuresQuery, job_id: str) -> Response:
    """Get the failures ledger of a job.

    NDJSON holds one object with `uri`, `code`, `message`, `stage`, `attempts`, `name` and `metadata` per line; CSV the
    same as columns, the metadata as JSON. Without `limit` and `cursor` that is the whole ledger, with them one page,
    whose successor stands in the headers `Link` and `X-Next-Cursor`. JSON is always one page.
    """
    job_id = known_id(job_id)
    paged = query.cursor is not None or query.limit is not None
    media = _media(query, paged=paged)
    if not paged and media != JSON:
        return _whole_ledger(job_id, media)
    page = services().jobs.failures(job_id, cursor=query.cursor, limit=query.limit or _MAX_PAGE)
    response = json_response(page) if media == JSON else _lines([page], media)
    return _headed(response, page, query)


def _media(query: FailuresQuery, *, paged: bool) -> str:
    """Choose what to write: a page is JSON unless another type is asked for, the whole ledger NDJSON."""
    if query.format is not None:
        return {"ndjson": NDJSON, "csv": CSV, "json": JSON}[query.format]
    order = (JSON, NDJSON, CSV) if paged else (NDJSON, CSV, JSON)
    return request.accept_mimetypes.best_match(order, default=order[0])


def _whole_ledger(job_id: str, media: str) -> Response:
    """Stream the ledger. Its first page is read before the answer begins, so that an unknown job is still a 404."""
    found = pages(services().jobs, job_id, page_lines=_MAX_PAGE)
    first = next(found)
    return _headed(_lines(chain((first,), found), media), first)


def _lines(found: Iterable[FailurePage], media: str) -> Response:
    return Response(csv_lines(found) if media == CSV else ndjson_lines(found), mimetype=media)


def _headed(response: Response, page: FailurePage, query: FailuresQuery | None = None) -> Response:
    """Say in headers what NDJSON and CSV have no place for."""
    if page.dropped:
        response.headers["X-Failures-Dropped"] = str(page.dropped)
    if query is not None and page.next_cursor is not None:
        following = {**query.model_dump(exclude_none=True), "cursor": page.next_cursor}
        response.headers["X-Next-Cursor"] = page.next_cursor
        response.headers["Link"] = f'<{request.path}?{urlencode(following)}>; rel="next"'
    return response


@blueprint.get("/v1/jobs/<job_id>/figure.png")
@operation(
    Operation(
        tag="jobs",
        answers={200: Answer(description="The picture.", media=("image/png",))},
        errors=(*JOB_ERRORS, errors.InvalidParameter),
    )
)
def get_figure(job_id: str) -> Response:
    """Draw a search: each query beside its hits, with their distances.

    Only searches that succeeded have a figure. Pictures that are gone by now are left blank.
    """
    record = services().jobs.get(known_id(job_id))
    if record.kind is not JobKind.SEARCH or record.state is not JobState.SUCCEEDED:
        raise errors.InvalidParameter("Only searches that succeeded have a figure.")
    return Response(draw(services(), record), mimetype="image/png")


@blueprint.get("/v1/jobs/<job_id>/queries/<int:number>/thumbnail")
@operation(
    Operation(
        tag="jobs",
        answers={200: Answer(description="The picture, small, as WebP.", media=("image/webp",))},
        errors=(*JOB_ERRORS, errors.FileMissing, errors.ImageError, errors.SourceUnavailable),
    )
)
def get_query_thumbnail(job_id: str, number: int) -> Response:
    """Get a small version of a picture that was searched with, counted from 0.

    It is there as long as the search is. A query by vector has none.
    """
    request = services().jobs.get(known_id(job_id)).request
    queries = request.get("queries", ())
    uri = query_picture(services(), request["collection"], queries[number]) if number < len(queries) else None
    if uri is None:
        raise Problem(errors.FileMissing("This search has no such picture, or not any more."), status=404)
    response = Response(services().thumbnail(uri).result(), mimetype="image/webp")
    response.headers["Cache-Control"] = "private, max-age=3600"
    return response
