"""The last step of every submit: the record first, then the doorbell, then perhaps a wait."""

from typing import Final

from flask import Response

from lookalike.errors import IdempotencyConflict, QueueFull, QueueUnavailable
from lookalike.jobstore import Lane
from lookalike.records import IngestRequest, JobKind, SearchRequest
from lookalike_web.parsing import read_idempotency
from lookalike_web.presenting import job_response, job_url
from lookalike_web.services import services
from lookalike_web.waiting import preferred_wait_s, wait_gate

LANES: Final = {JobKind.INGEST: Lane.INGEST, JobKind.SEARCH: Lane.SEARCH}

ERRORS: Final = (IdempotencyConflict, QueueUnavailable, QueueFull)

#: Request headers of every submit, for its declaration.
HEADERS: Final = {
    "Idempotency-Key": "Any text of your choice. The same key with the same request answers the job it made before.",
    "Prefer": "`wait=SECONDS` holds the answer until the job is final, for at most that long.",
}


def submit(kind: JobKind, content: IngestRequest | SearchRequest, *, wait_s: float | None = None) -> Response:
    """Create a job and answer it: 202, or 200 where it is final by the time of the answer.

    `wait_s` is the waiting time stated in the body; without one, that of the Prefer header counts.
    """
    idempotency = read_idempotency(kind, content, ignoring={"wait"})
    record, created = services().jobs.create(kind, content, idempotency=idempotency)
    if created:
        services().doorbell.ring(LANES[kind])
    preferred = preferred_wait_s()
    record = wait_gate().wait(record, timeout_s=wait_s or preferred or 0)
    headers = {"Location": job_url(record.id)}
    if preferred is not None and not wait_s:
        headers["Preference-Applied"] = f"wait={preferred}"
    return job_response(record, status=200 if record.state.final else 202, headers=headers)
