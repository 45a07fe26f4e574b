"""`/v1/deletions`: images out of their collection, all those that a filter matches."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import DeletionRequest, JobKind, JobRecord
from lookalike_web import submitting
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.services import services
from lookalike_web.sourcing import check_webhook
from lookalike_web.submitting import submit

blueprint = Blueprint("deletions", __name__)


@blueprint.post("/v1/deletions")
@operation(
    Operation(
        tag="images",
        right=Right.INGEST,
        json=DeletionRequest,
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="The job was accepted.", model=JobRecord),
            200: Answer(description="The job is final already.", model=JobRecord),
        },
        errors=(
            *submitting.ERRORS,
            errors.InvalidFilter,
            errors.InvalidURL,
            errors.CollectionNotFound,
            errors.VectorStoreUnavailable,
            errors.VectorStoreRejected,
        ),
        example={"collection": "default", "filter": "album == 'spring'", "dry_run": True},
    )
)
def submit_deletion() -> Response:
    """Delete all images that a filter matches.

    The image files stay where they are. With `dry_run` nothing is deleted, and the result says how many would be.
    """
    submitting.admit()
    wanted = read_json(DeletionRequest, defaults={"collection": services().settings.collection})
    return submit(JobKind.DELETION, wanted, check=lambda: _check(wanted))


def _check(wanted: DeletionRequest) -> None:
    check_webhook(services(), wanted.webhook)
    services().vectors.count_matching(wanted.collection, wanted.filter)
