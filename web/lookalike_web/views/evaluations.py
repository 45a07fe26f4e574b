"""`/v1/evaluations`, `/v1/maps` and the reindexing of a collection: how good a collection is, and making it better."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import (
    EvaluationRequest,
    JobKind,
    MapRequest,
    Reindexing,
    ReindexRequest,
    StepRequest,
)
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import operation
from lookalike_web.parsing import read_json
from lookalike_web.services import services
from lookalike_web.submitting import admit, asked, declared, submit

blueprint = Blueprint("evaluations", __name__)


@blueprint.post("/v1/evaluations")
@operation(
    declared(
        EvaluationRequest,
        tag="collections",
        right=Right.INGEST,
        example={"collection": "default", "type": "recall", "sample": 100},
    )
)
def submit_evaluation() -> Response:
    """Measure how well a collection is searched.

    `recall` compares the index with exact search, `labels` asks whether images of one label find each other, and
    `robustness` whether altered copies find their originals. The whole report is the job's file `report.json`.
    """
    wanted = asked(EvaluationRequest)
    return submit(JobKind.EVALUATION, wanted, check=lambda: _check(wanted))


@blueprint.post("/v1/maps")
@operation(
    declared(
        MapRequest,
        tag="collections",
        right=Right.SEARCH,
        example={"collection": "default", "limit": 1000},
    )
)
def submit_map() -> Response:
    """Draw a map of a collection.

    The job's file `map.json` has a point for each image of a sample, in the plane of their two principal components.
    """
    wanted = asked(MapRequest)
    return submit(JobKind.MAP, wanted, check=lambda: _check(wanted))


@blueprint.post("/v1/collections/<name>/reindex")
@operation(
    declared(
        Reindexing,
        tag="collections",
        right=Right.ADMIN,
        errors=(errors.InvalidParameter,),
        example={"search": {"ef": 256}},
    )
)
def submit_reindex(name: str) -> Response:
    """Give a collection another index, or other search parameters.

    Search parameters are changed at once. While an index is built, searches wait some seconds and are then answered; a
    collection that is too large for that is refused, unless `offline` allows that they fail until it is done.
    """
    admit()
    caller().require_collection(name)
    services().vectors.collection(name)
    wanted = ReindexRequest(collection=name, **read_json(Reindexing).model_dump())

    def check() -> None:
        services().vectors.check_reindex(
            name, index=wanted.index, build=wanted.build, search=wanted.search, offline=wanted.offline
        )

    return submit(JobKind.REINDEX, wanted, check=check)


def _check(wanted: StepRequest) -> None:
    services().vectors.collection(wanted.collection)
