"""`/v1/jobs/{id}/cancel`, `/pause`, `/resume` and `/retry`: what can be asked of a job."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.jobstore import Lane
from lookalike.records import FailuresSource, IngestRequest, JobKind, JobRecord
from lookalike_web import submitting
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.presenting import job_response
from lookalike_web.services import services
from lookalike_web.sourcing import check_failures
from lookalike_web.submitting import submit
from lookalike_web.views.jobs import JOB_ERRORS, known_id

blueprint = Blueprint("controls", __name__)


@blueprint.post("/v1/jobs/<job_id>/cancel")
@operation(
    Operation(
        tag="jobs",
        answers={202: Answer(description="The job as it stands; it stops soon, or is final.", model=JobRecord)},
        errors=JOB_ERRORS,
    )
)
def cancel_job(job_id: str) -> Response:
    """Ask a job to stop.

    What it has stored stays stored. A job that is final stays as it is.
    """
    return job_response(services().jobs.cancel(known_id(job_id)), status=202)


@blueprint.post("/v1/jobs/<job_id>/pause")
@operation(
    Operation(
        tag="jobs",
        answers={202: Answer(description="The job as it stands; it stands still soon, or is final.", model=JobRecord)},
        errors=JOB_ERRORS,
    )
)
def pause_job(job_id: str) -> Response:
    """Ask a job to stand still.

    Its state stays, `paused` is true, and its work in hand is given back after the batch that is being embedded. It
    stands still through restarts, until it is resumed or cancelled. A job that is final stays as it is.
    """
    return job_response(services().jobs.pause(_lasting(job_id).id), status=202)


@blueprint.post("/v1/jobs/<job_id>/resume")
@operation(
    Operation(
        tag="jobs",
        answers={202: Answer(description="The job as it stands; its work goes on.", model=JobRecord)},
        errors=JOB_ERRORS,
    )
)
def resume_job(job_id: str) -> Response:
    """Let a paused job go on.

    A job that is not paused stays as it is.
    """
    record = services().jobs.resume(_lasting(job_id).id)
    if not record.state.final:
        # A ring for all it may have waiting; those that find nothing cost a look.
        services().doorbell.ring(Lane.INGEST, services().settings.lookahead_chunks + 1)
    return job_response(record, status=202)


@blueprint.post("/v1/jobs/<job_id>/retry")
@operation(
    Operation(
        tag="jobs",
        right=Right.INGEST,
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="A new job for the files that failed.", model=JobRecord),
            200: Answer(description="The new job is final already.", model=JobRecord),
        },
        errors=(*JOB_ERRORS, *submitting.ERRORS, errors.JobNotFinal, errors.InvalidRequest),
    )
)
def retry_job(job_id: str) -> Response:
    """Ingest the files that failed in a finished ingest once more.

    That is a new job with the collection, metadata and options of the old one; its source is the old one's ledger, as
    far as that was kept. Its webhook goes along only where the same key asks: another's is not to hear of this job.
    """
    submitting.admit()
    earlier = _ingest(job_id)
    options = IngestRequest.model_validate(earlier.request)
    source = FailuresSource(job_id=earlier.id)
    webhook = options.webhook if earlier.owner == caller().name else None
    wanted = options.model_copy(update={"source": source, "sync": False, "webhook": webhook})
    return submit(JobKind.INGEST, wanted, check=lambda: check_failures(services(), source))


def _lasting(job_id: str) -> JobRecord:
    record = services().jobs.get(known_id(job_id))
    if record.kind is JobKind.SEARCH:
        raise errors.InvalidRequest("A search cannot be paused.")
    return record


def _ingest(job_id: str) -> JobRecord:
    record = services().jobs.get(known_id(job_id))
    if record.kind is not JobKind.INGEST:
        raise errors.InvalidRequest("This is possible with ingests only, and this job is none.")
    return record
