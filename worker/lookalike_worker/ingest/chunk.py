"""A chunk on its way through a worker, and the pictures of it that have to be embedded."""

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import SourceUnavailable
from lookalike.jobstore import ChunkClaim
from lookalike.roots import image_id
from lookalike_worker.ingest.work import Facts, File, Work, Written


@dataclass(eq=False)
class Chunk:
    """A claimed chunk. It is handed from stage to stage; `work` and `is_cut` are for the stage that has it."""

    claim: ChunkClaim
    work: Work = field(init=False)
    ids: frozenset[str] = field(init=False)  #: Of its images.
    collection: str = ""  #: Its name, once it is bound.
    is_cut: bool = False  #: It was stopped before all of it was read and embedded.

    # Said by any stage, or by whoever keeps the claims, and heeded by all of them.
    error: Exception | None = None  #: Why it cannot be gone on with.
    is_cancelled: bool = False  #: Its job was asked to stop...
    is_paused: bool = False  #: ...or to stand still.
    is_lost: bool = False  #: Its claim lapsed, or its job is over: nothing of it may be written any more.
    kept_s: float = field(default_factory=time.monotonic)  #: When its claim was made or renewed.

    def __post_init__(self) -> None:
        self.work = Work(self.claim)
        self.ids = frozenset(image_id(item.uri) for item in self.claim.items)

    @property
    def is_void(self) -> bool:
        """Whether what was made of it is not written. While its source is away, what was embedded is."""
        return self.is_lost or not (self.error is None or isinstance(self.error, SourceUnavailable))

    def stop(self, error: Exception) -> None:
        """Say why it cannot be gone on with; the first reason counts."""
        self.error = self.error or error


@dataclass(eq=False)
class Picture:
    """One decoded file that waits for the network, and what became of it there."""

    chunk: Chunk
    file: File
    facts: Facts
    pixels: NDArray[np.uint8] | None  #: (224, 224, 3), RGB, or with tiles (1 + tiles, ...); None once they are used.
    followers: list["Picture"] = field(default_factory=list)  #: Of the same content, to be given its vector.
    written: Written | None = None  #: Its row, once it is embedded.

    @property
    def rows(self) -> int:
        """How many vectors the network makes of it."""
        return len(self.pixels) if self.pixels is not None and self.pixels.ndim == 4 else 1

    @property
    def content(self) -> tuple[str, str]:
        """What tells whether two pictures can share a vector: where they are stored, and their SHA-256."""
        return self.chunk.claim.request.collection, self.facts.sha256
