"""`/v1/collections`: named sets of images with one model, metric and index."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import Collection, CollectionRequest, Record
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.presenting import json_response
from lookalike_web.services import services

blueprint = Blueprint("collections", __name__)

_STORE_ERRORS = (errors.VectorStoreUnavailable, errors.VectorStoreRejected)


class CollectionList(Record):
    """All collections, by name."""

    collections: tuple[Collection, ...]


@blueprint.get("/v1/collections")
@operation(
    Operation(
        tag="collections",
        right=Right.SEARCH,
        answers={200: Answer(description="All collections, by name.", model=CollectionList)},
        errors=_STORE_ERRORS,
    )
)
def list_collections() -> Response:
    """List the collections that the key is for."""
    found = tuple(one for one in services().vectors.collections() if caller().reaches(one.name))
    return json_response(CollectionList(collections=found))


@blueprint.post("/v1/collections")
@operation(
    Operation(
        tag="collections",
        right=Right.INGEST,
        json=CollectionRequest,
        answers={201: Answer(description="The collection was created.", model=Collection)},
        errors=(*_STORE_ERRORS, errors.CollectionExists),
        example={"name": "spring", "metric": "COSINE", "index": "AUTO"},
    )
)
def create_collection() -> Response:
    """Create an empty collection.

    An ingest creates a missing one by itself; this is for choosing its metric and index. Its model is bound by the
    first image stored.
    """
    wanted = read_json(CollectionRequest)
    caller().require_collection(wanted.name)
    created = services().vectors.create(wanted)
    return json_response(created, status=201, headers={"Location": f"/v1/collections/{created.name}"})


@blueprint.get("/v1/collections/<name>")
@operation(
    Operation(
        tag="collections",
        right=Right.SEARCH,
        answers={200: Answer(description="The collection with its count.", model=Collection)},
        errors=(*_STORE_ERRORS, errors.CollectionNotFound),
    )
)
def get_collection(name: str) -> Response:
    """Get a collection and the number of its images."""
    caller().require_collection(name)
    vectors = services().vectors
    collection = vectors.collection(name)
    if collection.models:
        collection = vectors.counted(collection)
    facts = vectors.index_of(name)
    found = {"count": vectors.count(name), "index_chosen": facts and facts.chosen}
    return json_response(collection.model_copy(update=found))


@blueprint.delete("/v1/collections/<name>")
@operation(
    Operation(
        tag="collections",
        right=Right.ADMIN,
        answers={204: Answer(description="The collection is gone.", media=())},
        errors=(*_STORE_ERRORS, errors.CollectionNotFound),
    )
)
def delete_collection(name: str) -> Response:
    """Delete a collection with all its vectors.

    The image files stay where they are.
    """
    caller().require_collection(name)
    services().vectors.drop(name)
    return Response(status=204)
