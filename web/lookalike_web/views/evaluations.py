"""`/v1/evaluations`, `/v1/maps` and the reindexing of a collection: how good a collection is, and making it better."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import (
    EvaluationRequest,
    JobKind,
    JobRecord,
    MapRequest,
    Reindexing,
    ReindexRequest,
    StepRequest,
)
from lookalike_web import submitting
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.services import services
from lookalike_web.sourcing import check_webhook
from lookalike_web.submitting import submit

blueprint = Blueprint("evaluations", __name__)

_ANSWERS = {
    202: Answer(description="The job was accepted.", model=JobRecord),
    200: Answer(description="The job is final already.", model=JobRecord),
}
_ERRORS = (
    *submitting.ERRORS,
    errors.InvalidURL,
    errors.CollectionNotFound,
    errors.VectorStoreUnavailable,
    errors.VectorStoreRejected,
)


@blueprint.post("/v1/evaluations")
@operation(
    Operation(
        tag="collections",
        right=Right.INGEST,
        json=EvaluationRequest,
        headers=submitting.HEADERS,
        answers=_ANSWERS,
        errors=_ERRORS,
        example={"collection": "default", "type": "recall", "sample": 100},
    )
)
def submit_evaluation() -> Response:
    """Measure how well a collection is searched.

    `recall` compares the index with exact search, `labels` asks whether images of one label find each other, and
    `robustness` whether altered copies find their originals. The whole report is the job's file `report.json`.
    """
    submitting.admit()
    wanted = read_json(EvaluationRequest, defaults={"collection": services().settings.collection})
    return submit(JobKind.EVALUATION, wanted, check=lambda: _check(wanted))


@blueprint.post("/v1/maps")
@operation(
    Operation(
        tag="collections",
        right=Right.SEARCH,
        json=MapRequest,
        headers=submitting.HEADERS,
        answers=_ANSWERS,
        errors=_ERRORS,
        example={"collection": "default", "limit": 1000},
    )
)
def submit_map() -> Response:
    """Draw a map of a collection.

    The job's file `map.json` has a point for each image of a sample, in the plane of their two principal components.
    """
    submitting.admit()
    wanted = read_json(MapRequest, defaults={"collection": services().settings.collection})
    return submit(JobKind.MAP, wanted, check=lambda: _check(wanted))


@blueprint.post("/v1/collections/<name>/reindex")
@operation(
    Operation(
        tag="collections",
        right=Right.ADMIN,
        json=Reindexing,
        headers=submitting.HEADERS,
        answers=_ANSWERS,
        errors=(*_ERRORS, errors.InvalidParameter),
        example={"search": {"ef": 256}},
    )
)
def submit_reindex(name: str) -> Response:
    """Give a collection another index, or other search parameters.

    Search parameters are changed at once. While an index is built, searches wait some seconds and are then answered; a
    collection that is too large for that is refused, unless `offline` allows that they fail until it is done.
    """
    submitting.admit()
    caller().require_collection(name)
    services().vectors.collection(name)
    wanted = ReindexRequest(collection=name, **read_json(Reindexing).model_dump())

    def check() -> None:
        services().vectors.check_reindex(
            name, index=wanted.index, build=wanted.build, search=wanted.search, offline=wanted.offline
        )

    return submit(JobKind.REINDEX, wanted, check=check)


def _check(wanted: StepRequest) -> None:
    check_webhook(services(), wanted.webhook)
    services().vectors.collection(wanted.collection)
