"""`/v1/duplicates`: images that are the same, in clusters, and all but one of each out of their collection."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import DuplicateLevel, DuplicatesRequest, JobKind, JobRecord, Metric
from lookalike_web import submitting
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.services import services
from lookalike_web.sourcing import check_webhook
from lookalike_web.submitting import submit

blueprint = Blueprint("duplicates", __name__)


@blueprint.post("/v1/duplicates")
@operation(
    Operation(
        tag="images",
        right=Right.SEARCH,
        json=DuplicatesRequest,
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="The job was accepted.", model=JobRecord),
            200: Answer(description="The job is final already.", model=JobRecord),
        },
        errors=(
            *submitting.ERRORS,
            errors.InvalidURL,
            errors.CollectionNotFound,
            errors.VectorStoreUnavailable,
            errors.VectorStoreRejected,
        ),
        example={"collection": "default", "level": "picture", "delete": True, "dry_run": True},
    )
)
def submit_duplicates() -> Response:
    """Find images that are the same: by their bytes, by their picture, or by their vectors.

    The job leaves `clusters.jsonl`, `clusters.csv` and `sheet.png`. With `delete`, for which a key needs the right
    `ingest`, all images but the suggested keepers are taken out of the collection; the files stay where they are.
    """
    submitting.admit()
    wanted = read_json(DuplicatesRequest, defaults={"collection": services().settings.collection})
    if wanted.delete:
        caller().require(Right.INGEST)
    return submit(JobKind.DUPLICATES, wanted, check=lambda: _check(wanted))


def _check(wanted: DuplicatesRequest) -> None:
    check_webhook(services(), wanted.webhook)
    metric = services().vectors.collection(wanted.collection).metric
    is_open = wanted.max_distance is None and wanted.min_score is None
    if wanted.level is DuplicateLevel.NEAR and is_open and metric is not Metric.COSINE:
        raise errors.InvalidParameter(
            f"What is near in a collection with the metric {metric.value} depends on its vectors. "
            "Give `max_distance` or `min_score`."
        )
