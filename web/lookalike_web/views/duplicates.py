"""`/v1/duplicates`: images that are the same, in clusters, and all but one of each out of their collection."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import DuplicateLevel, DuplicatesRequest, JobKind, Metric
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import operation
from lookalike_web.services import services
from lookalike_web.submitting import asked, declared, submit

blueprint = Blueprint("duplicates", __name__)


@blueprint.post("/v1/duplicates")
@operation(
    declared(
        DuplicatesRequest,
        tag="images",
        right=Right.SEARCH,
        example={"collection": "default", "level": "picture", "delete": True, "dry_run": True},
    )
)
def submit_duplicates() -> Response:
    """Find images that are the same: by their bytes, by their picture, or by their vectors.

    The job leaves `clusters.jsonl`, `clusters.csv` and `sheet.png`. With `delete`, for which a key needs the right
    `ingest`, all images but the suggested keepers are taken out of the collection; the files stay where they are.
    """
    wanted = asked(DuplicatesRequest)
    if wanted.delete:
        caller().require(Right.INGEST)
    return submit(JobKind.DUPLICATES, wanted, check=lambda: _check(wanted))


def _check(wanted: DuplicatesRequest) -> None:
    metric = services().vectors.collection(wanted.collection).metric
    is_open = wanted.max_distance is None and wanted.min_score is None
    if wanted.level is DuplicateLevel.NEAR and is_open and metric is not Metric.COSINE:
        raise errors.InvalidParameter(
            f"What is near in a collection with the metric {metric.value} depends on its vectors. "
            "Give `max_distance` or `min_score`."
        )
