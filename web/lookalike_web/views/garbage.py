"""`/v1/gc`: what nothing needs any more."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.garbage import collect
from lookalike.records import Garbage, Record
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.presenting import json_response
from lookalike_web.services import services

blueprint = Blueprint("garbage", __name__)


class GarbageRequest(Record):
    """Body of `POST /v1/gc`."""

    dry_run: bool = True  #: Remove nothing, only say what would go.


@blueprint.post("/v1/gc")
@operation(
    Operation(
        tag="service",
        right=Right.ADMIN,
        json=GarbageRequest,
        answers={200: Answer(description="What was removed, or would be.", model=Garbage)},
        errors=(errors.QueueUnavailable, errors.VectorStoreUnavailable, errors.VectorStoreRejected),
        example={"dry_run": True},
    )
)
def collect_garbage() -> Response:
    """Remove uploads that no image and no job refers to, uploads that were never finished, and old copies of files.

    The workers do the same from time to time by themselves. Nothing younger than LOOKALIKE_UPLOAD_TTL_S goes.
    """
    wanted = read_json(GarbageRequest)
    parts = services()
    found = collect(parts.settings, parts.jobs, parts.vectors, parts.uploads, dry_run=wanted.dry_run)
    return json_response(found)
