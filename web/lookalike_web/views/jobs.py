"""`/v1/jobs`: what became of what was submitted."""

import re

from flask import Blueprint, Response
from pydantic import Field

from lookalike import errors
from lookalike.records import JobKind, JobPage, JobRecord, JobState, Record
from lookalike_web.auth import caller
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.permitting import own
from lookalike_web.presenting import job_response, json_response, present_job
from lookalike_web.services import services
from lookalike_web.waiting import preferred_wait_s, wait_gate

blueprint = Blueprint("jobs", __name__)

#: What an address with a job's id in it may answer.
JOB_ERRORS = (errors.JobNotFound, errors.JobExpired, errors.QueueUnavailable)

#: Ids are part of keys in the store; what has another form was never given out.
_JOB_ID = re.compile("[0-9A-Za-z]{1,64}")
_MAX_PAGE = 1000


def known_id(job_id: str) -> str:
    """Return an id that may be of a job the caller may see; raises `JobNotFound` for another's, and any other text."""
    if not _JOB_ID.fullmatch(job_id):
        raise errors.JobNotFound
    if caller().owner_seen is not None:
        own(services().jobs.get(job_id))
    return job_id


class JobsQuery(Record):
    """Query string of `GET /v1/jobs`."""

    cursor: str | None = None  #: `next_cursor` of the page before.
    limit: int = Field(50, ge=1, le=_MAX_PAGE)  #: Jobs per page.
    kind: JobKind | None = None  #: Only jobs of this kind.
    state: JobState | None = None  #: Only jobs in this state.


class JobQuery(Record):
    """Query string of `GET /v1/jobs/{job_id}`."""

    wait: float = Field(0.0, ge=0, allow_inf_nan=False)  #: Seconds the answer may be held back until the job is final.


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

    A key with a name sees its own, one with the right `admin` all. Results are left out; each job's own record has its
    result.
    """
    page = services().jobs.list_jobs(
        cursor=query.cursor, limit=query.limit, kind=query.kind, state=query.state, owner=caller().owner_seen
    )
    return json_response(page.model_copy(update={"jobs": tuple(map(present_job, page.jobs))}))


@blueprint.get("/v1/jobs/<job_id>")
@operation(
    Operation(
        tag="jobs",
        query=JobQuery,
        headers={"Prefer": "`wait=SECONDS` does what the parameter `wait` does."},
        answers={200: Answer(description="The job as it stands.", model=JobRecord)},
        errors=JOB_ERRORS,
    )
)
def get_job(query: JobQuery, job_id: str) -> Response:
    """Get a job, at once or when it is final.

    `wait` is a preference: the answer comes sooner where the service is busy or stops. `Retry-After` then says when to
    ask again.
    """
    preferred = preferred_wait_s()
    applied = preferred is not None and not query.wait
    headers = {"Preference-Applied": f"wait={preferred}"} if applied else None
    return wait_gate().hold(
        services().jobs.get(known_id(job_id)),
        lambda record: job_response(record, headers=headers),
        timeout_s=query.wait or preferred or 0,
    )
