"""`/v1/deletions`: images out of their collection, all those that a filter matches."""

from flask import Blueprint, Response

from lookalike.errors import InvalidFilter
from lookalike.records import DeletionRequest, JobKind
from lookalike_web.keys import Right
from lookalike_web.openapi import operation
from lookalike_web.services import services
from lookalike_web.submitting import asked, declared, submit

blueprint = Blueprint("deletions", __name__)


@blueprint.post("/v1/deletions")
@operation(
    declared(
        DeletionRequest,
        tag="images",
        right=Right.INGEST,
        errors=(InvalidFilter,),
        example={"collection": "default", "filter": "album == 'spring'", "dry_run": True},
    )
)
def submit_deletion() -> Response:
    """Delete all images that a filter matches.

    The image files stay where they are. With `dry_run` nothing is deleted, and the result says how many would be.
    """
    wanted = asked(DeletionRequest)

    def check() -> None:
        services().vectors.count_matching(wanted.collection, wanted.filter)

    return submit(JobKind.DELETION, wanted, check=check)
