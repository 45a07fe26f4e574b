"""A whole service in this process for tests of its clients.

The real front end behind a real socket, and a worker that does every job at once without a model. What a name contains
decides what becomes of it: `bad` is an image that cannot be used, `poison` fails the whole job.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server

from fakes import Web, build_web
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, PlanClaim, SearchClaim
from lookalike.listing import Lister
from lookalike.records import (
    Failure,
    FailuresSource,
    Hit,
    IngestResult,
    JobError,
    Metric,
    ModelInfo,
    Query,
    QueryResult,
    SearchResult,
    Stage,
    WorkerInfo,
)

CHUNK_IMAGES = 8
LANES = ("ingest", "search")


class Worker:
    """Does the jobs of a front end in a thread; while `idle` is set, it leaves them waiting."""

    def __init__(self, web: Web, *, trained: bool = True) -> None:
        self.web = web
        self.model = ModelInfo(name="none", weights="made up", trained=trained, fingerprint="ab" * 16, dim=2)
        self.idle = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        for lane in LANES:
            self.web.jobs.announce(
                WorkerInfo(
                    name=f"worker-{lane}-1",
                    lane=lane,
                    host="here",
                    pid=1,
                    device="cpu",
                    engine="none",
                    precision="fp32",
                    engine_reason="a stand-in",
                    model=self.model,
                    started_at=datetime.now(UTC),
                )
            )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            if self.idle.is_set():
                continue
            for search in self.web.jobs.claim_searches(limit=8):
                self._search(search)
            claim = self.web.jobs.claim_ingest()
            if isinstance(claim, PlanClaim):
                self._plan(claim)
            elif isinstance(claim, ChunkClaim):
                self._chunk(claim)

    def _plan(self, claim: PlanClaim) -> None:
        items = self._items(claim)
        if any("poison" in item.name for item in items):
            self.web.jobs.fail(claim, JobError(code="model_mismatch", message="It has another model."))
            return
        for start in range(0, len(items), CHUNK_IMAGES):
            self.web.jobs.add_chunk(claim, items[start : start + CHUNK_IMAGES], cursor=str(start))
        self.web.jobs.end_plan(claim, finished=True)

    def _items(self, claim: PlanClaim) -> list[IngestItem]:
        parts = self.web.services
        lister = Lister(parts.roots, parts.uploads, parts.remote, self.web.jobs)
        listed = lister.list(claim.request, after=claim.cursor, keep=lambda: None)
        # What failed before is mended by the time it is tried again.
        mended = isinstance(claim.request.source, FailuresSource)
        return [
            IngestItem(uri=file.uri, name="mended" if mended else file.name, metadata=file.metadata) for file in listed
        ]

    def _chunk(self, claim: ChunkClaim) -> None:
        collection = claim.request.collection
        stored = self.web.vectors.images.get(collection, {})
        uris = {image.uri for image in stored.values()}
        bad = [item for item in claim.items if "bad" in item.name]
        new = [item for item in claim.items if item not in bad and item.uri not in uris]
        for item in new:
            self.web.vectors.store(collection, item.uri, label=item.name)
        failures = tuple(
            Failure(uri=item.uri, code="image_corrupt", message="The image's data is broken.", stage=Stage.DECODE)
            for item in bad
        )
        outcome = ChunkOutcome(
            added=len(new),
            unchanged=len(claim.items) - len(new) - len(bad),
            failures=failures,
            stage_ms={Stage.DECODE: 900 * len(new)},
        )
        result = IngestResult(collection=collection, model=self.model)
        self.web.jobs.account(claim, outcome, result=result.model_dump(mode="json"))

    def _search(self, claim: SearchClaim) -> None:
        images = self.web.vectors.images.get(claim.request.collection, {})
        answers = []
        for query in claim.request.queries:
            label = query.upload.name if query.upload else ""
            error = JobError(code="image_corrupt", message="Broken.") if "bad" in label else None
            answers.append(
                QueryResult(
                    query=query.model_dump(mode="json", exclude_none=True),
                    error=error,
                    hits=() if error else tuple(self._hits(query, label, list(images.values())))[: claim.request.limit],
                )
            )
        result = SearchResult(
            collection=claim.request.collection,
            metric=Metric.COSINE,
            model=self.model if images else None,
            took_ms=1.0,
            queries=tuple(answers),
        )
        self.web.jobs.finish_search(claim, result.model_dump(mode="json"))

    def _hits(self, query: Query, label: str, images: list[Any]) -> Iterator[Hit]:
        """Rank the images: the one of the query's own name or id first, then the others by name."""
        images.sort(key=lambda image: (Path(image.name).name != label and image.id != query.image_id, image.name))
        for rank, image in enumerate(images, 1):
            yield Hit(
                rank=rank,
                id=image.id,
                uri=image.uri,
                name=image.name,
                distance=1.0 / rank,
                score=1.0 / rank,
                width=image.width,
                height=image.height,
                metadata=image.metadata,
            )


class Service:
    """The front end on a port of its own, with its worker."""

    def __init__(self, web: Web, *, trained: bool = True) -> None:
        self.web = web
        self.worker = Worker(web, trained=trained)
        self._server: BaseWSGIServer | None = None
        self._port = 0
        self.start_http()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start_http(self) -> None:
        self._server = make_server("127.0.0.1", self._port, self.web.client.application, threaded=True)
        self._port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop_http(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextmanager
def running_service(folder: Path, *, trained: bool = True, **settings: Any) -> Iterator[Service]:
    """Run a service whose root is `folder`/root."""
    folder.mkdir(exist_ok=True)
    web = build_web(folder, **settings)
    service = Service(web, trained=trained)
    service.worker.start()
    try:
        yield service
    finally:
        service.worker.stop()
        service.stop_http()
        web.close()
