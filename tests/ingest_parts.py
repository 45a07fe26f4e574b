"""What tests of the ingest lane share: a small network, a worker's parts, and pictures of chosen content."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.artifacts import Artifacts
from lookalike.broker import Doorbell
from lookalike.decodepool import DecodePool
from lookalike.errors import VectorStoreRejected
from lookalike.jobstore.redis import RedisJobStore
from lookalike.listing import Lister
from lookalike.records import FolderSource, IngestRequest, JobKind, JobRecord, ModelInfo, WorkerInfo
from lookalike.remote import Remote
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike_worker.context import Context
from lookalike_worker.heart import Heart
from lookalike_worker.lanes import IngestLane
from lookalike_worker.model import Embedder
from lookalike_worker.sweeper import sweep_once

MOODY: Final = (sys.executable, str(Path(__file__).with_name("integration") / "moody_decoder.py"))
MODEL: Final = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="a" * 64, dim=12)


@dataclass
class MeanColours:
    """A network that is small: the mean colours of a picture's quarters. Fails on pictures that are all white."""

    name: str = "means"
    device: str = "cpu"
    precision: str = "fp32"
    batch_images: int = 4
    seen: list[int] = field(default_factory=list)  #: The sizes of the batches it has embedded.
    before: Callable[[], None] = lambda: None  #: Called before each batch.

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.before()
        if (images == 255).all(axis=(1, 2, 3)).any():
            raise RuntimeError("white pictures are poison to this network")
        self.seen.append(len(images))
        quarters = images.reshape(len(images), 2, 112, 2, 112, 3).mean(axis=(2, 4))
        return quarters.reshape(len(images), 12).astype(np.float32) + 1


class PickyStore(VectorStore):
    """A vector store that refuses rows of a certain name for good."""

    def upsert(self, name: str, images: list[StoredImage], vectors: NDArray[np.float32]) -> None:
        if any(image.name == "refused.jpg" for image in images):
            raise VectorStoreRejected
        super().upsert(name, images, vectors)


class CountingPool(DecodePool):
    """A decode pool that remembers what it was asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[tuple[str, str]] = []

    def _submit(self, request: dict[str, Any], result: Any) -> Any:
        self.asked.append((request["task"], request["uri"].rpartition("/")[2]))
        return super()._submit(request, result)

    def take(self, task: str) -> list[str]:
        """The names of the files that were decoded or probed since the last look."""
        names = sorted(name for what, name in self.asked if what == task)
        self.asked = [entry for entry in self.asked if entry[0] != task]
        return names


def worker_info(jobs: RedisJobStore, model: ModelInfo = MODEL) -> WorkerInfo:
    """A worker that announces itself."""
    return WorkerInfo(
        name="worker-test",
        lane="ingest",
        host="h",
        pid=1,
        device="cpu",
        engine="means",
        precision="fp32",
        engine_reason="",
        model=model,
        started_at=jobs.now(),
    )


def make_context(settings: Settings, decoder: tuple[str, ...] = MOODY, model: ModelInfo = MODEL) -> Context:
    """Build a worker's parts, all real but the network."""
    jobs = RedisJobStore.connect(settings)
    sources, remote = Sources.from_settings(settings), Remote.from_settings(settings)
    return Context(
        settings=settings,
        jobs=jobs,
        doorbell=Doorbell.connect(settings),
        sources=sources,
        decoders=CountingPool(settings, command=decoder),
        embedder=Embedder(engine=MeanColours(), model=model, reason=""),
        vectors=PickyStore.connect(settings),
        heart=Heart(jobs, worker_info(jobs, model), every_s=0.1, limit_s=60),
        lister=Lister(sources.roots, sources.uploads, remote, jobs),
        remote=remote,
        artifacts=Artifacts.from_settings(settings),
    )


def engine_of(context: Context) -> MeanColours:
    """The network of a test's worker."""
    assert isinstance(context.embedder.engine, MeanColours)
    return context.embedder.engine


def pool_of(context: Context) -> CountingPool:
    """The decoders of a test's worker."""
    assert isinstance(context.decoders, CountingPool)
    return context.decoders


def submit(context: Context, collection: str, **fields: Any) -> str:
    """Accept an ingest of the whole root; returns its id."""
    request = IngestRequest(collection=collection, **{"source": FolderSource(path="."), **fields})
    return context.jobs.create(JobKind.INGEST, request)[0].id


def work_off(
    context: Context, job_id: str, *, rings: int = 60, lane: IngestLane | None = None, wait_s: float = 0.1
) -> JobRecord:
    """Ring the ingest lane until the job is final."""
    mine = lane or IngestLane(context, stopping=lambda: False)
    try:
        for _ in range(rings):
            mine.ring()
            sweep_once(context.jobs, context.doorbell)
            record = context.jobs.get(job_id)
            if record.state.final:
                return record
            context.jobs.wait(job_id, timeout_s=wait_s)
    finally:
        if lane is None:
            mine.close()
    raise AssertionError(f"not final: {record}")


def ingest(context: Context, collection: str, **fields: Any) -> JobRecord:
    """Ingest the whole root."""
    return work_off(context, submit(context, collection, **fields), wait_s=0)


def counts(record: JobRecord) -> dict[str, int]:
    """What a job counted, without what it counted none of."""
    fields = ("added", "changed", "moved", "duplicates", "unchanged", "failed", "removed")
    return {field: count for field in fields if (count := getattr(record.progress, field))}


def picture(seed: int) -> bytes:
    """A picture of its own content for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 250, (24, 24, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def draw(root: Path, **seeds: int) -> None:
    """Put pictures into a folder, by name and seed; `a__b` is `a/b`."""
    for name, seed in seeds.items():
        path = root.joinpath(*name.split("__")).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed))


def many(root: Path, files: int) -> None:
    """Put that many pictures into a folder: p00.png, p01.png..."""
    draw(root, **{f"p{number:02}": number for number in range(files)})


def after_batches(context: Context, batches: int, act: Callable[[], object]) -> None:
    """Do something once, before a batch that comes after this many."""
    left = iter(range(batches))

    def before() -> None:
        if next(left, None) is None:
            engine_of(context).before = lambda: None
            act()

    engine_of(context).before = before
