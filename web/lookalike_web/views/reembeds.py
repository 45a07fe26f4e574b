"""`/v1/reembeds`, and a collection's models: fill one beside the one that serves, switch, roll back, drop."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import (
    Collection,
    CollectionSource,
    IngestRequest,
    JobKind,
    ReembedRequest,
    SwitchRequest,
)
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.models import model_of_collection, model_to_fill
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.presenting import json_response
from lookalike_web.services import services
from lookalike_web.submitting import asked, declared, submit

blueprint = Blueprint("reembeds", __name__)

_STORE_ERRORS = (
    errors.CollectionNotFound,
    errors.ModelInUse,
    errors.ModelNotFound,
    errors.InvalidParameter,
    errors.VectorStoreUnavailable,
    errors.VectorStoreRejected,
)


@blueprint.post("/v1/reembeds")
@operation(
    declared(
        ReembedRequest,
        tag="collections",
        right=Right.INGEST,
        errors=(*_STORE_ERRORS, errors.Forbidden, errors.InvalidRequest, errors.ModelNotLive, errors.TooManyItems),
        example={"collection": "default", "model": "resnet18"},
    )
)
def submit_reembed() -> Response:
    """Embed the images of a collection with another model, while the one that made it serves on.

    The job is an ingest, done by the workers that have that model; with `switch` it ends with that model serving the
    collection, which takes a key with the right `admin`. Done again, it embeds what is missing only.
    """
    wanted = asked(ReembedRequest)
    caller().require_collection(wanted.collection)
    if wanted.switch:
        caller().require(Right.ADMIN)
    record = services().vectors.collection(wanted.collection)
    if record.model is None:
        raise errors.InvalidRequest("This collection has no images yet, so there is nothing to embed again.")
    model = model_to_fill(services(), record, wanted.model)
    source = CollectionSource(
        collection=record.name,
        model=record.model.fingerprint,
        switch=wanted.switch,
        allow_missing=wanted.allow_missing,
    )
    ingest = IngestRequest(
        collection=record.name,
        source=source,
        model=model.fingerprint,
        sync=True,
        priority=wanted.priority,
        webhook=wanted.webhook,
    )

    def prepare() -> None:
        services().vectors.add_model(ingest.collection, model)

    return submit(JobKind.INGEST, ingest, check=prepare)


@blueprint.post("/v1/collections/<name>/switch")
@operation(
    Operation(
        tag="collections",
        right=Right.ADMIN,
        json=SwitchRequest,
        answers={200: Answer(description="The collection, served by the model.", model=Collection)},
        errors=(*_STORE_ERRORS, errors.ReembeddingIncomplete),
        example={"model": "resnet18"},
    )
)
def switch_model(name: str) -> Response:
    """Have another of its models serve a collection, at once: the one it was embedded with, or the one before.

    The model that served is kept, retired, and can be switched back to. Nothing is embedded; that is done by a
    re-embedding with `switch`.
    """
    caller().require_collection(name)
    wanted = read_json(SwitchRequest)
    vectors = services().vectors
    model = model_of_collection(vectors.collection(name), wanted.model)
    return json_response(vectors.counted(vectors.switch(name, model.fingerprint, force=wanted.force)))


@blueprint.delete("/v1/collections/<name>/models/<model>")
@operation(
    Operation(
        tag="collections",
        right=Right.ADMIN,
        answers={204: Answer(description="The collection has no vectors of this model any more.", media=())},
        errors=_STORE_ERRORS,
    )
)
def drop_model(name: str, model: str) -> Response:
    """Delete a collection's vectors of a model that does not serve it.

    A re-embedding that still runs fails. The image files stay where they are.
    """
    caller().require_collection(name)
    vectors = services().vectors
    found = model_of_collection(vectors.collection(name), model)
    vectors.drop_model(name, found.fingerprint)
    return Response(status=204)
