"""Models by the names that requests give them, and what an ingest means for those that are being filled."""

import logging
from collections.abc import Iterable
from typing import Final

from lookalike import errors
from lookalike.jobstore import Idempotency, Lane
from lookalike.records import (
    BulkSearchRequest,
    Collection,
    IngestRequest,
    JobKind,
    JobRecord,
    ModelInfo,
    ModelState,
    Request,
    SearchRequest,
)
from lookalike_web.services import Services

log = logging.getLogger(__name__)

_SHORTEST_FINGERPRINT: Final = 8


def model_of_collection(record: Collection, wanted: str) -> ModelInfo:
    """Find one of a collection's models; raises `ModelNotFound`, and `InvalidParameter` for a name that two have."""
    there = [one.model for one in record.models] or ([record.model] if record.model else [])
    found = _named(there, wanted)
    if found is None:
        raise errors.ModelNotFound
    return found


def model_to_fill(services: Services, record: Collection, wanted: str) -> ModelInfo:
    """Find the model that a collection is to be embedded with; raises `ModelNotLive` and `InvalidParameter`.

    Of a model that the collection has vectors of already no worker need be live: the job waits for one.
    """
    live = [worker.model for worker in services.jobs.workers() if worker.lane == Lane.INGEST.value]
    found = _named([*(one.model for one in record.models), *live], wanted)
    if found is None:
        raise errors.ModelNotLive
    return found


def with_fingerprint(services: Services, wanted: Request) -> Request:
    """Name the model of a search by its fingerprint, and that of a new collection; raises as `model_of_collection`.

    A bulk search keeps to one model to its end, whichever comes to serve the collection meanwhile.
    """
    if isinstance(wanted, BulkSearchRequest):
        record = services.vectors.collection(wanted.collection)
        info = record.model if wanted.model is None else model_of_collection(record, wanted.model)
        return wanted.model_copy(update={"model": info and info.fingerprint})
    if isinstance(wanted, SearchRequest) and wanted.model is not None:
        model = model_of_collection(services.vectors.collection(wanted.collection), wanted.model)
        return wanted.model_copy(update={"model": model.fingerprint})
    if isinstance(wanted, IngestRequest) and wanted.model is None:
        return wanted.model_copy(update={"model": _model_of_new(services, wanted.collection)})
    return wanted


def _model_of_new(services: Services, name: str) -> str | None:
    """The model that a collection without one is to be made with, where workers of several are live.

    It is that of the worker that has been live for longest: those with another are there to change collections to it.
    """
    workers = [worker for worker in services.jobs.workers() if worker.lane == Lane.INGEST.value]
    if len({worker.model.fingerprint for worker in workers}) < 2:
        return None
    try:
        if services.vectors.collection(name).model is not None:
            return None
    except errors.CollectionNotFound:
        log.debug("the collection %s is new", name)
    except errors.LookalikeError as error:
        log.warning("the first worker to store an image decides about the model of %s: %s", name, error)
        return None
    return min(workers, key=lambda worker: worker.started_at).model.fingerprint


def _named(models: Iterable[ModelInfo], wanted: str) -> ModelInfo | None:
    is_prefix = len(wanted) >= _SHORTEST_FINGERPRINT
    found = {
        model.fingerprint: model
        for model in reversed(list(models))
        if model.name == wanted or (is_prefix and model.fingerprint.startswith(wanted))
    }
    if len(found) > 1:
        first = ", ".join(fingerprint[:12] for fingerprint in sorted(found))
        raise errors.InvalidParameter(f"Several models go by `{wanted}`: name one by its fingerprint ({first}).")
    return next(iter(found.values()), None)


def ingest_into_shadows(services: Services, record: JobRecord, wanted: IngestRequest) -> None:
    """Have what an ingest brings embedded with the models that its collection is being filled with, too.

    Each in a job of its own, which a repeated request does not make again. Where one cannot be made, the ingest itself
    is none the worse: the next re-embedding finds what is missing.
    """
    if wanted.dry_run or wanted.model is not None:
        return
    try:
        # A collection is only ever filled while workers of two models are live, and asking Milvus takes longer.
        if len({worker.model.fingerprint for worker in services.jobs.workers()}) < 2:
            return
        models = services.vectors.collection(wanted.collection).models
        for model in (one.model for one in models if one.state is ModelState.SHADOW):
            also = wanted.model_copy(update={"model": model.fingerprint, "webhook": None})
            key = Idempotency(key=f"shadow\n{record.id}\n{model.fingerprint}", digest=model.fingerprint)
            _, created = services.jobs.create(JobKind.INGEST, also, idempotency=key, owner=record.owner)
            if created:
                services.doorbell.ring(Lane.INGEST)
    except errors.CollectionNotFound:
        return
    except errors.LookalikeError as error:
        log.warning("ingest %s goes to the model that serves alone: %s", record.id, error)
