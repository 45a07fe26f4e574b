"""Engines: what runs the network. Pixels in, vectors out; an engine knows nothing of files, jobs or Milvus.

`choose` says which engine a machine gets; `torch_engine` and `openvino_engine` are the two there are. Neither is
imported here, because each pulls in a framework that takes seconds to import.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  #: (n, 224, 224, 3), RGB.
Vectors = NDArray[np.float32]  #: (n, dim), not normalised.


class Engine(Protocol):
    """A network ready to run. For one thread at a time."""

    @property
    def name(self) -> str:
        """`torch` or `openvino`."""

    @property
    def device(self) -> str:
        """Where it runs, with the product's name: `cpu (AMD EPYC)` or `cuda:0 (NVIDIA H100)`."""

    @property
    def precision(self) -> str:
        """The number format it computes in: `fp32`, `fp16`, `bf16` or `int8`."""

    @property
    def batch_images(self) -> int:
        """How many images at a time it runs best with; it takes any number."""

    def embed(self, images: Pixels) -> Vectors:
        """Embed a batch: (n, 224, 224, 3) RGB in, (n, dim) out, one row per image, not normalised.

        n may be 0 or any size. A row depends on its own image only, up to rounding. Raises `GPUOutOfMemory`.
        """


def invalid_rows(vectors: Vectors) -> NDArray[np.bool_]:
    """Mark the rows nothing can be compared with: those with a NaN or an infinity, and those of nothing but zeros."""
    return np.logical_not(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1), dtype=np.bool_)
