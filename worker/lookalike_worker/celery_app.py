"""The composition root of a worker process: builds its parts, and a Celery app whose one task rings its lane.

The solo pool runs the task in the process that holds the network: no fork comes near gRPC or CUDA, and the network is
loaded once. What prefork would give - a hard time limit, a look at lost children - the heart and the leases do.
docs/decisions/0005-solo-pool.md has the figures.
"""

import logging
import os
import platform
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_ready
from celery.worker import state as celery_state

from lookalike.artifacts import Artifacts
from lookalike.broker import (
    TASK_NAMES,
    WORKER_SOCKET_TIMEOUT_S,
    Doorbell,
    celery_config,
    consumer_queues,
    model_queue,
)
from lookalike.decodepool import DecodePool
from lookalike.jobstore import Lane
from lookalike.jobstore.redis import RedisJobStore
from lookalike.listing import Limits, Lister
from lookalike.records import WorkerInfo
from lookalike.remote import Remote
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.vectorstore import VectorStore
from lookalike_worker.context import Context
from lookalike_worker.courier import Courier
from lookalike_worker.crashing import CrashPoints
from lookalike_worker.heart import Heart
from lookalike_worker.janitor import Janitor
from lookalike_worker.lanes import IngestLane, LaneRunner, SearchLane
from lookalike_worker.model import load_embedder
from lookalike_worker.sweeper import Sweeper
from lookalike_worker.warming import READY_S, warm_up

log = logging.getLogger(__name__)


def run_worker(settings: Settings, lane: Lane, name: str) -> int:
    """Run a worker until it is told to stop; returns its exit code. Raises `SetupError` before it consumes anything."""
    app = Celery("lookalike", set_as_current=True)
    app.conf.update(celery_config(settings, socket_timeout_s=WORKER_SOCKET_TIMEOUT_S))
    context = build_context(settings, lane, name, Doorbell.connect(settings))
    model = context.embedder.model.fingerprint
    app.conf.task_queues = consumer_queues(lane, model)
    runner: LaneRunner = SearchLane(context) if lane is Lane.SEARCH else IngestLane(context, stopping)
    app.task(name=TASK_NAMES[lane])(runner.ring)
    sweeper = Sweeper(context.jobs, context.doorbell, every_s=settings.sweep_s, model=model)
    janitor = Janitor(settings, context.jobs, context.vectors, context.sources.uploads)
    threads = (sweeper, janitor, Courier(context.jobs, settings))
    warming = warm_up(context, lane)
    warming.start()

    def begin(sender: Any, **_: Any) -> None:
        sender.timer.call_repeatedly(settings.heartbeat_s, context.heart.beat)
        warming.join(READY_S)
        context.heart.beat()
        for thread in threads:
            thread.start()

    worker_ready.connect(begin, weak=False)
    setup_logging.connect(_keep_logging, weak=False)
    try:
        worker = app.Worker(
            hostname=f"{name}@{platform.node()}",
            queues=[lane.value, model_queue(lane, model)],
            pool="solo",
            concurrency=1,
            without_gossip=True,
            without_mingle=True,
            loglevel=settings.log_level,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        for thread in threads:
            if thread.is_alive():
                thread.stop()
        runner.close()
        context.close()


def build_context(settings: Settings, lane: Lane, name: str, doorbell: Doorbell) -> Context:
    """Build a worker's parts; loads the network, which takes seconds."""
    jobs = RedisJobStore.connect(settings)
    embedder = load_embedder(settings)
    info = WorkerInfo(
        name=name,
        lane=lane.value,
        host=platform.node(),
        pid=os.getpid(),
        device=embedder.engine.device,
        engine=embedder.engine.name,
        precision=embedder.engine.precision,
        engine_reason=embedder.reason,
        model=embedder.model,
        started_at=jobs.now(),
    )
    log.info("%s runs %s on %s: %s", name, embedder.model.name, embedder.engine.device, embedder.reason)
    if not embedder.model.trained:
        log.warning("the network is untrained: it finds near-duplicates and knows no concepts")
    sources = Sources.from_settings(settings)
    remote = Remote.from_settings(settings)
    return Context(
        settings=settings,
        jobs=jobs,
        doorbell=doorbell,
        sources=sources,
        decoders=DecodePool(settings),
        embedder=embedder,
        vectors=VectorStore.connect(settings),
        heart=Heart(jobs, info, every_s=settings.heartbeat_s, limit_s=settings.task_limit_s),
        lister=Lister(sources.roots, sources.uploads, remote, jobs, limits=Limits.from_settings(settings)),
        remote=remote,
        artifacts=Artifacts.from_settings(settings),
        crash=CrashPoints(settings.crash_at),
    )


def stopping() -> bool:
    """Tell whether this process has been asked to end."""
    return celery_state.should_stop is not None or celery_state.should_terminate is not None


def _keep_logging(**_: Any) -> None:
    """Keep Celery from setting up logging: the process did."""
