"""Routing: work to the workers that have the model for it, and to that model's vectors.

Workers of several models listen to the same lanes. What is claimed by one that has not the model for it is handed over,
and is from then on for those that have it. A ring that finds nothing but work of others is passed on to them.
"""

import logging
from dataclasses import replace

from lookalike.errors import ModelMismatch, ModelNotFound
from lookalike.jobstore import ChunkClaim, Claim, Lane, PlanClaim, SearchClaim
from lookalike.records import Collection
from lookalike.vectorstore import parted, physical_name
from lookalike_worker.context import Context

log = logging.getLogger(__name__)


def own_model(context: Context) -> str:
    """The fingerprint of this worker's model."""
    return context.embedder.model.fingerprint


def aim_ingest(claim: PlanClaim | ChunkClaim) -> PlanClaim | ChunkClaim:
    """Have an ingest that names a model read and write that model's vectors, by their address."""
    request = claim.request
    if request.model is None:
        return claim
    address = physical_name(request.collection, request.model)
    return replace(claim, request=request.model_copy(update={"collection": address}))


def name_of(claim: PlanClaim | ChunkClaim) -> str:
    """The name of an ingest's collection, whichever of its models the claim is aimed at."""
    return parted(claim.request.collection)[0]


def aim_search(context: Context, claim: SearchClaim) -> tuple[Collection, SearchClaim]:
    """Find a search's collection, with the model that is to answer, and have the claim name that model's vectors.

    Raises as `collection_of`.
    """
    request = claim.request
    record = collection_of(context, request.collection, request.model)
    if record.model is None:
        return record, claim
    # The name might stand for another model's vectors by the time they are searched.
    address = physical_name(request.collection, record.model.fingerprint)
    return record, replace(claim, request=request.model_copy(update={"collection": address}))


def collection_of(context: Context, name: str, wanted: str | None) -> Collection:
    """Find a collection with the model that is to answer, the `wanted` one or that which serves; None while empty.

    Raises `ModelMismatch` where this worker has another, and `ModelNotFound` where the collection has no such model.
    """
    own = own_model(context)
    record = context.vectors.recent(name)
    if record.model is None or record.models or record.model.fingerprint != own:
        record = context.vectors.collection(name)  # What is remembered is enough for the plain case only.
    if record.model is None:
        return record
    if (wanted or record.model.fingerprint) != own:
        raise ModelMismatch
    models = (record.model, *(one.model for one in record.models))
    info = next((model for model in models if model.fingerprint == own), None)
    if info is None:
        raise ModelNotFound
    return record.model_copy(update={"model": info})


def hand_over(context: Context, lane: Lane, claim: Claim, name: str) -> bool:
    """Give work on a collection to the workers that have its model; False where there are none, nor will be.

    A collection with several models is being changed from one to another: its work waits for the workers.
    """
    record = context.vectors.collection(name)
    if record.model is None:
        return False
    wanted = record.model.fingerprint
    live = {worker.model.fingerprint for worker in context.jobs.workers() if worker.lane == lane.value}
    if wanted not in live and not record.models:
        return False
    log.info("job %s is for the workers with the model %s", claim.job_id, wanted[:12])
    context.jobs.give_back(claim, burn_attempt=False, model=wanted)
    context.doorbell.ring(lane)
    return True


def pass_on_rings(context: Context, lane: Lane) -> None:
    """Ring the workers of other models for whom work waits: their ring may be the one that woke this worker."""
    for model in context.jobs.others_waiting(lane, model=own_model(context)):
        context.doorbell.pass_on(lane, model)
