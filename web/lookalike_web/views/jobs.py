"""`/v1/jobs`: what became of what was submitted."""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Literal

from flask import Blueprint, Response, request
from pydantic import Field

from lookalike import errors
from lookalike.records import FailurePage, JobKind, JobPage, JobRecord, JobState, Record
from lookalike_web.figures import draw
from lookalike_web.ledger import CSV, NDJSON, csv_lines, ndjson_lines, pages
from lookalike_web.openapi import JSON, Answer, Operation, operation
from lookalike_web.presenting import job_response, json_response, present_job
from lookalike_web.services import services
from lookalike_web.waiting import preferred_wait_s, wait_gate

blueprint = Blueprint("jobs", __name__)

#: Ids are part of keys in the store; what has another form was never given out.
_JOB_ID = re.compile("[0-9A-Za-z]{1,64}")
_JOB_ERRORS = (errors.JobNotFound, errors.JobExpired, errors.QueueUnavailable)
_MAX_PAGE = 1000


class JobsQuery(Record):
    """Query string of `GET /v1/jobs`."""

    cursor: str | None = None  #: `next_cursor` of the page before.
    limit: int = Field(50, ge=1, le=_MAX_PAGE)  #: Jobs per page.
    kind: JobKind | None = None  #: Only jobs of this kind.
    state: JobState | None = None  #: Only jobs in this state.


class JobQuery(Record):
    """Query string of `GET /v1/jobs/{job_id}`."""

    wait: float = Field(0.0, ge=0, allow_inf_nan=False)  #: Seconds the answer may be held back until the job is final.


class FailuresQuery(Record):
    """Query string of `GET /v1/jobs/{job_id}/failures`."""

    format: Literal["ndjson", "csv"] | None = None  #: Overrides the Accept header.
    cursor: str | None = None  #: `next_cursor` of the page before; asks for one page, as JSON.
    limit: int | None = Field(None, ge=1, le=_MAX_PAGE)  #: Lines per page; asks for one page, as JSON.


@blueprint.get("/v1/jobs")
@operation(
    Operation(
        tag="jobs",
        query=JobsQuery,
        answers={200: Answer(description="One page of jobs.", model=JobPage)},
        errors=(errors.QueueUnavailable, errors.InvalidParameter),
    )
)
def list_jobs(query: JobsQuery) -> Response:
    """List jobs, newest first.

    Results are left out; each job's own record has its result.
    """
    page = services().jobs.list_jobs(cursor=query.cursor, limit=query.limit, kind=query.kind, state=query.state)
    return json_response(page.model_copy(update={"jobs": tuple(map(present_job, page.jobs))}))


@blueprint.get("/v1/jobs/<job_id>")
@operation(
    Operation(
        tag="jobs",
        query=JobQuery,
        headers={"Prefer": "`wait=SECONDS` does what the parameter `wait` does."},
        answers={200: Answer(description="The job as it stands.", model=JobRecord)},
        errors=_JOB_ERRORS,
    )
)
def get_job(query: JobQuery, job_id: str) -> Response:
    """Get a job, at once or when it is final.

    `wait` is a preference: the answer comes sooner where the service is busy or stops. `Retry-After` then says when to
    ask again.
    """
    preferred = preferred_wait_s()
    record = wait_gate().wait(services().jobs.get(_known(job_id)), timeout_s=query.wait or preferred or 0)
    applied = preferred is not None and not query.wait
    return job_response(record, headers={"Preference-Applied": f"wait={preferred}"} if applied else None)


@blueprint.post("/v1/jobs/<job_id>/cancel")
@operation(
    Operation(
        tag="jobs",
        answers={202: Answer(description="The job as it stands; it stops soon, or is final.", model=JobRecord)},
        errors=_JOB_ERRORS,
    )
)
def cancel_job(job_id: str) -> Response:
    """Ask a job to stop.

    What it has stored stays stored. A job that is final stays as it is.
    """
    return job_response(services().jobs.cancel(_known(job_id)), status=202)


@blueprint.get("/v1/jobs/<job_id>/failures")
@operation(
    Operation(
        tag="jobs",
        query=FailuresQuery,
        answers={
            200: Answer(
                description="The ledger, a line per file that failed; or one page of it, as JSON.",
                model=FailurePage,
                media=(NDJSON, CSV, JSON),
            )
        },
        errors=(*_JOB_ERRORS, errors.InvalidParameter),
    )
)
def list_failures(query: FailuresQuery, job_id: str) -> Response:
    """Get the failures ledger of a job.

    NDJSON holds one object with `uri`, `code`, `message`, `stage` and `attempts` per line; CSV the same as columns.
    """
    wanted = {"ndjson": NDJSON, "csv": CSV}.get(query.format or "") or request.accept_mimetypes.best_match(
        (NDJSON, CSV, JSON), default=NDJSON
    )
    paged = query.cursor is not None or query.limit is not None
    if query.format is None and (paged or wanted == JSON):
        page = services().jobs.failures(_known(job_id), cursor=query.cursor, limit=query.limit or _MAX_PAGE)
        return json_response(page)
    if paged:
        raise errors.InvalidParameter(
            "`limit` and `cursor` ask for one page as JSON, and `format` for the whole ledger."
        )
    return _whole_ledger(_known(job_id), wanted)


def _whole_ledger(job_id: str, media: str) -> Response:
    """Stream the ledger. Its first page is read before the answer begins, so that an unknown job is still a 404."""
    found = pages(services().jobs, job_id, page_lines=_MAX_PAGE)
    first = next(found)
    every: Iterable[FailurePage] = chain((first,), found)
    response = Response(csv_lines(every) if media == CSV else ndjson_lines(every), mimetype=media)
    if first.dropped:
        response.headers["X-Failures-Dropped"] = str(first.dropped)
    return response


@blueprint.get("/v1/jobs/<job_id>/figure.png")
@operation(
    Operation(
        tag="jobs",
        answers={200: Answer(description="The picture.", media=("image/png",))},
        errors=(*_JOB_ERRORS, errors.InvalidParameter),
    )
)
def get_figure(job_id: str) -> Response:
    """Draw a search: each query beside its hits, with their distances.

    Only searches that succeeded have a figure. Pictures that are gone by now are left blank.
    """
    record = services().jobs.get(_known(job_id))
    if record.kind is not JobKind.SEARCH or record.state is not JobState.SUCCEEDED:
        raise errors.InvalidParameter("Only searches that succeeded have a figure.")
    return Response(draw(services(), record), mimetype="image/png")


def _known(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise errors.JobNotFound
    return job_id
