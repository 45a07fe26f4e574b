"""Batches that fit: where the memory runs out, an engine goes on with half as many images at a time.

Another program may have taken the memory for a while, so after many batches that fitted the next larger size is tried
again. The size outlives a chunk: it is kept as long as the process.
"""

import logging
from typing import Final

import numpy as np

from lookalike.errors import GPUOutOfMemory
from lookalike_worker.engines import Engine, Pixels, Vectors

log = logging.getLogger(__name__)

#: Batches that have to fit in a row before the double is tried: a try that fails costs about one of them.
GROW_AFTER: Final = 64

#: The errors of torch and OpenVINO are told by their words: torch raises a bare RuntimeError where a CPU's memory ends,
#: and OpenVINO one for everything. On CUDA it is torch.OutOfMemoryError, whose name is looked at, so that this module
#: imports neither.
_WORDS: Final = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "failed to allocate",
    "defaultcpuallocator",
)


def out_of_memory(error: Exception) -> bool:
    """Tell whether an engine failed for want of memory, whatever framework says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def fitting_batch(free_bytes: int, bytes_per_image: float, *, least: int, most: int) -> int:
    """Return the largest batch, from the least by doubling, for half of the free memory: a worker is seldom alone."""
    batch = least
    while 2 * batch <= most and 2 * batch * bytes_per_image <= free_bytes / 2:
        batch *= 2
    return batch


class Halving:
    """An engine that halves its batches instead of running out of memory."""

    def __init__(self, engine: Engine, *, grow_after: int = GROW_AFTER) -> None:
        self._engine = engine
        self._grow_after = grow_after
        self._most = engine.batch_images
        self._fitted = 0  # Batches in a row, at the reduced size.
        self.limit = self._most  #: Images at a time, for now.

    @property
    def name(self) -> str:
        """See `Engine`."""
        return self._engine.name

    @property
    def device(self) -> str:
        """See `Engine`."""
        return self._engine.device

    @property
    def precision(self) -> str:
        """See `Engine`."""
        return self._engine.precision

    @property
    def batch_images(self) -> int:
        """How many images at a time it runs best with, with the memory there is."""
        return self.limit

    def embed(self, images: Pixels) -> Vectors:
        """Embed a batch; see `Engine`. Raises `GPUOutOfMemory` where not even one image fits."""
        rows: list[Vectors] = []
        begin = 0
        while begin < len(images):
            batch = images[begin : begin + self.limit]
            try:
                rows.append(self._engine.embed(batch))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._make_smaller(len(batch), error)
            else:
                begin += len(batch)
                self._maybe_grow(len(batch))
        return np.concatenate(rows) if rows else self._engine.embed(images)

    def _make_smaller(self, failed: int, error: Exception) -> None:
        self._fitted = 0
        if failed == 1:
            raise GPUOutOfMemory from error
        self.limit = failed // 2
        log.warning("the memory of %s is too small: going on with batches of %d", self.device, self.limit)

    def _maybe_grow(self, images: int) -> None:
        if self.limit == self._most or images < self.limit:
            return
        self._fitted += 1
        if self._fitted >= self._grow_after:
            self._fitted = 0
            self.limit = min(2 * self.limit, self._most)
            log.info("trying batches of %d on %s again", self.limit, self.device)
