"""Probes and facts: `/healthz`, `/readyz`, `/v1/info`."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

from flask import Blueprint, Response

from lookalike import errors
from lookalike.jobstore import Lane
from lookalike.records import ModelInfo, Record
from lookalike_web.errors import NotReady, Problem
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.presenting import json_response
from lookalike_web.services import Services, services

blueprint = Blueprint("health", __name__)


class Health(Record):
    """Sign of life of the process that answered."""

    status: Literal["ok"] = "ok"


class Check(Record):
    """One thing the service needs."""

    ok: bool
    detail: str  #: What was found, or what to do.


class Readiness(Record):
    """All the things the service needs, by name."""

    status: Literal["ready"] = "ready"
    checks: dict[str, Check]


class WorkerFacts(Record):
    """A live worker, without what an outsider has no use for."""

    name: str
    lane: str
    device: str
    engine: str
    precision: str
    engine_reason: str  #: Why this engine and precision were chosen.
    model: ModelInfo


class LimitFacts(Record):
    """What one request may ask for."""

    max_wait_s: float
    max_upload_bytes: int
    max_upload_images: int
    max_file_bytes: int
    max_pixels: int
    max_queries: int
    max_limit: int
    max_waiting_jobs: int
    max_urls: int
    max_archive_bytes: int
    rate_limit: int  #: Submits a minute; 0 is no limit.
    event_stream_s: float


class Info(Record):
    """What this service is and can do."""

    version: str
    models: tuple[ModelInfo, ...]  #: Of the live workers; one where all is well.
    trained: bool | None  #: False while a worker's network is untrained; null while no worker is live.
    workers: tuple[WorkerFacts, ...]
    default_collection: str
    roots: int  #: How many folders the service may read; 0 takes uploads only.
    object_roots: int  #: How many prefixes of object stores it may read.
    url_ingest: bool  #: Whether it fetches addresses.
    webhooks: bool  #: Whether it calls webhooks.
    api_key_required: bool
    limits: LimitFacts


@blueprint.get("/healthz")
@operation(Operation(tag="service", answers={200: Answer(description="The process answers.", model=Health)}))
def healthz() -> Response:
    """Tell that this process answers.

    It asks nothing else, so that a missing server does not get the front end restarted.
    """
    return json_response(Health())


@blueprint.get("/readyz")
@operation(
    Operation(
        tag="service",
        answers={200: Answer(description="Everything is there.", model=Readiness)},
        errors=(NotReady,),
    )
)
def readyz() -> Response:
    """Tell whether jobs can be done: Redis, Milvus and a live worker per lane.

    Where something is missing, the problem's member `checks` says what.
    """
    checks = _checks(services())
    missing = [name for name, check in checks.items() if not check.ok]
    if missing:
        members = {"checks": {name: check.model_dump() for name, check in checks.items()}}
        raise Problem(NotReady(f"Not ready: {', '.join(missing)}. `checks` says what to do."), members=members)
    return json_response(Readiness(checks=checks))


@blueprint.get("/v1/info")
@operation(
    Operation(
        tag="service",
        answers={200: Answer(description="Version, workers, models and limits.", model=Info)},
        errors=(errors.QueueUnavailable,),
    )
)
def get_info() -> Response:
    """Get the version, the live workers with their model and device, and the limits."""
    settings = services().settings
    workers = services().jobs.workers()
    models = tuple({worker.model.fingerprint: worker.model for worker in workers}.values())
    info = Info(
        version=version("lookalike"),
        models=models,
        trained=all(model.trained for model in models) if models else None,
        workers=tuple(WorkerFacts(**worker.model_dump(include=set(WorkerFacts.model_fields))) for worker in workers),
        default_collection=settings.collection,
        roots=len(settings.roots),
        object_roots=len(settings.object_roots),
        url_ingest=settings.url_ingest,
        webhooks=settings.webhook_secret is not None,
        api_key_required=bool(settings.api_keys or settings.keys_file),
        limits=LimitFacts(**settings.model_dump(include=set(LimitFacts.model_fields))),
    )
    return json_response(info)


def _checks(parts: Services) -> dict[str, Check]:
    checks = {"redis": _check(parts.jobs.ping), "milvus": _check(parts.vectors.ping)}
    lanes: list[str] = [worker.lane for worker in parts.jobs.workers()] if checks["redis"].ok else []
    for lane in Lane:
        live = lanes.count(lane.value)
        detail = f"{live} live" if live else "No live worker of this lane has announced itself; start one."
        checks[f"worker_{lane.value}"] = Check(ok=live > 0, detail=detail)
    return checks


def _check(ask: Callable[[], object]) -> Check:
    try:
        ask()
    except errors.LookalikeError as error:
        return Check(ok=False, detail=error.message)
    return Check(ok=True, detail="answers")
