"""The steps of every submit: the sender's limit, a repeat's answer, the checks, the record, the doorbell, a wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from flask import Response
from pydantic import JsonValue

from lookalike.errors import (
    CollectionNotFound,
    IdempotencyConflict,
    InvalidURL,
    LookalikeError,
    PayloadTooLarge,
    QueueFull,
    QueueUnavailable,
    RateLimited,
    RootNotAllowed,
    VectorStoreRejected,
    VectorStoreUnavailable,
)
from lookalike.jobstore import Idempotency, Lane
from lookalike.records import IngestRequest, JobKind, JobRecord, Record, Request
from lookalike_web.auth import caller, sender
from lookalike_web.keys import Right
from lookalike_web.models import ingest_into_shadows, with_fingerprint
from lookalike_web.openapi import Answer, Operation
from lookalike_web.parsing import Model, read_idempotency, read_json
from lookalike_web.permitting import check_permitted
from lookalike_web.presenting import job_response, job_url
from lookalike_web.services import services
from lookalike_web.sourcing import check_webhook
from lookalike_web.waiting import preferred_wait_s, wait_gate

#: A job's request as it is stored. Redis holds those of all waiting jobs, whose number is bounded: so are their bytes.
MAX_REQUEST_BYTES: Final = 4 << 20

ERRORS: Final = (IdempotencyConflict, PayloadTooLarge, RateLimited, QueueUnavailable, QueueFull, RootNotAllowed)

#: Request headers of every submit, for its declaration.
HEADERS: Final = {
    "Idempotency-Key": "Any text of your choice. The same key with the same request answers the job it made before.",
    "Prefer": "`wait=SECONDS` holds the answer until the job is final, for at most that long.",
}


ANSWERS: Final = {
    202: Answer(description="The job was accepted.", model=JobRecord),
    200: Answer(description="The job is final already.", model=JobRecord),
}


def declared(
    json: type[Record],
    *,
    tag: str,
    right: Right,
    example: JsonValue,
    errors: tuple[type[LookalikeError], ...] = (),
) -> Operation:
    """Declare a submit whose body is JSON and names a collection; `errors` are those that not all of them have."""
    of_all = (*ERRORS, InvalidURL, CollectionNotFound, VectorStoreUnavailable, VectorStoreRejected)
    return Operation(
        tag=tag, right=right, json=json, headers=HEADERS, answers=ANSWERS, errors=(*of_all, *errors), example=example
    )


def asked(model: type[Model]) -> Model:
    """Count a submit, and read its JSON body; its collection is the service's own where it names none."""
    admit()
    return read_json(model, defaults={"collection": services().settings.collection})


def admit(*, piece: bool = False) -> None:
    """Count a submit, or a piece of an upload, against its sender's limit, before its body is read.

    Raises `RateLimited` as a problem, and `QueueUnavailable`.
    """
    if throttle := services().throttle:
        throttle.admit(sender(), piece=piece)


def submit(
    kind: JobKind,
    content: Request,
    *,
    check: Callable[[], None] = lambda: None,
    wait_s: float | None = None,
) -> Response:
    """Create a job and answer it: 202, or 200 where it is final by the time of the answer.

    `check` looks at what the request names, and raises where that cannot be used; a repeated request is not checked
    again, since its job is there already. `wait_s` is the waiting time stated in the body; without one, that of the
    Prefer header counts.
    """
    record = _accept(kind, content, check)
    preferred = preferred_wait_s()
    headers = {"Location": job_url(record.id)}
    if preferred is not None and not wait_s:
        headers["Preference-Applied"] = f"wait={preferred}"

    def answer(record: JobRecord) -> Response:
        return job_response(record, status=200 if record.state.final else 202, headers=headers)

    return wait_gate().hold(record, answer, timeout_s=wait_s or preferred or 0)


def _accept(kind: JobKind, content: Request, check: Callable[[], None]) -> JobRecord:
    jobs, owner = services().jobs, caller().name
    idempotency = _owned(read_idempotency(kind, content, ignoring={"wait"}), owner)
    if idempotency and (known := jobs.find_idempotent(idempotency.key)):
        job_id, digest = known
        if digest != idempotency.digest:
            raise IdempotencyConflict
        return jobs.get(job_id)
    check_permitted(services(), content)
    check_webhook(services(), content.webhook)
    check()
    content = with_fingerprint(services(), content)
    size = len(content.model_dump_json(exclude_none=True).encode())
    if size > MAX_REQUEST_BYTES:
        raise PayloadTooLarge(
            f"A job's request may have at most {MAX_REQUEST_BYTES} bytes as JSON, and this one has {size}. "
            "Send long lists as a manifest, or split them."
        )
    record, created = jobs.create(kind, content, idempotency=idempotency, owner=owner)
    if created:
        services().doorbell.ring(Lane.SEARCH if kind is JobKind.SEARCH else Lane.INGEST)
    if isinstance(content, IngestRequest):
        ingest_into_shadows(services(), record, content)
    return record


def _owned(idempotency: Idempotency | None, owner: str | None) -> Idempotency | None:
    """Set an owner's idempotency keys off from those of others, by what neither a key nor a name has in it."""
    return replace(idempotency, key=f"{owner}\n{idempotency.key}") if idempotency and owner else idempotency
