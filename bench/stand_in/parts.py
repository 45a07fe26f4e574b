"""What stands in for the dear parts: the network, the codec, and on request the vector store and the chunks' work."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.jobstore import ChunkClaim, ChunkOutcome
from lookalike.records import Collection, ModelInfo
from lookalike.vectorstore import Found, RowState, StoredImage, VectorStore
from lookalike_worker.context import Context
from lookalike_worker.ingest.pipeline import Desk
from lookalike_worker.model import Embedder
from stand_in.vector import DIM, STRIDE

MODEL: Final = ModelInfo(name="stand-in", weights="none", trained=False, fingerprint="5ca1e" + "0" * 59, dim=DIM)


@dataclass(frozen=True)
class SampleBytes:
    """A network that returns sixteen of an image's bytes, so that different images have different vectors."""

    name: str = "stand-in"
    device: str = "cpu"
    precision: str = "fp32"
    batch_images: int = 32
    image_s: float = 0.0  #: What an image takes, all of it asleep.

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.image_s * len(images))
        return images.reshape(len(images), -1)[:, ::STRIDE].astype(np.float32) - 127.5


def embedder(*, image_s: float = 0.0) -> Embedder:
    return Embedder(engine=SampleBytes(image_s=image_s), model=MODEL, reason="a stand-in, for benchmarks")


class NullStore(VectorStore):
    """A vector store that takes everything and keeps nothing: it holds no image, or `full`, each that is asked for."""

    full: RowState | None = None

    def bind(self, name: str, model: ModelInfo) -> Collection:
        return Collection(name=name, model=model)

    def collections(self) -> list[Collection]:
        return []

    def collection(self, name: str) -> Collection:
        return Collection(name=name, model=MODEL)

    def recent(self, name: str) -> Collection:
        return self.collection(name)

    def search(
        self,
        name: str,
        vectors: NDArray[np.float32],
        *,
        limit: int,
        filter: str | None = None,
        params: Mapping[str, int] | None = None,
        consistency: str | None = None,
    ) -> list[list[Found]]:
        return [[] for _ in vectors]

    def count(self, name: str) -> int:
        return 0 if self.full is None else 1

    def states(self, name: str, ids: Sequence[str], *, settled: bool = False) -> dict[str, RowState]:
        return {} if self.full is None else dict.fromkeys(ids, self.full)

    def known(self, name: str, ids: Sequence[str], *, settled: bool = True) -> dict[str, StoredImage]:
        return {}

    def same_content(self, name: str, sha256s: Sequence[str]) -> dict[str, StoredImage]:
        return {}

    def upsert(self, name: str, images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> None:
        assert len(images) == len(vectors)

    def outgrown(self, name: str) -> str | None:
        return None


class NullPipeline:
    """A consumer of chunks that accounts for them as they are."""

    def __init__(self, context: Context, desk: Desk, stopping: Callable[[], bool]) -> None:
        self._jobs = context.jobs
        self._desk = desk

    def run(self, claim: ChunkClaim) -> None:
        waiting: ChunkClaim | None = claim
        while waiting:
            self._desk.report(waiting, self._jobs.account(waiting, ChunkOutcome(added=len(waiting.items))))
            waiting = self._desk.claim()

    def close(self) -> None:
        pass


def state_of(facts: Mapping[str, Any]) -> RowState:
    """Describe a file as it would be stored."""
    return RowState(size=facts["size"], mtime_ns=facts["mtime_ns"], etag="", job="", sha256="0" * 64, metadata={})
