"""Made-up embeddings, and what an exact search finds among them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

BLOCK: Final = 1_000  #: Rows made at once; row n is the same whatever is made before and after it.
_SEED: Final = 20_261_123
_CLUSTERS: Final = 1_000
_LATENT: Final = 48  #: What a vector depends on; estimates for embeddings of photographs are in the tens.
_SPREAD: Final = 0.6  #: Of a cluster's members, with centres of deviation 1.
_DUPLICATES: Final = 0.05  #: Share of rows that are a crop or a re-encoding of an earlier row of their block.
_NEAR: Final = 0.03  #: How far such a one is from its original.


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The closest rows to each query, closest first."""

    rows: NDArray[np.int64]  #: (nq, k)
    cosines: Vectors  #: (nq, k)


class Mixture:
    """Vectors of `dim` values, of length 1."""

    def __init__(self, dim: int) -> None:
        random = np.random.default_rng(_SEED)
        self.dim = dim
        self._centres = random.standard_normal((_CLUSTERS, _LATENT), dtype=np.float32)
        self._weights = random.standard_normal((_LATENT, dim), dtype=np.float32)
        shares = 1.0 / np.arange(1, _CLUSTERS + 1)  # A few subjects are in many pictures, most in few.
        self._shares = shares / shares.sum()

    def block(self, number: int) -> Vectors:
        """Rows `number * BLOCK` and up, (BLOCK, dim)."""
        return self._project(self._latent(number, BLOCK))

    def queries(self, count: int) -> Vectors:
        """Vectors that are not stored: half of other pictures, half of near-duplicates of pictures in block 0."""
        others = self._latent(-1, count - count // 2)
        random = np.random.default_rng((_SEED, 7))
        near = self._latent(0, BLOCK)[: count // 2]
        near += _NEAR * random.standard_normal(near.shape, dtype=np.float32)
        mixed = np.concatenate([others, near])
        return self._project(mixed[random.permutation(count)])

    def neighbours(self, queries: Vectors, rows: int, k: int) -> Neighbours:
        """Compare each query with each of the first `rows` rows, a block at a time."""
        best = np.full((len(queries), k), -np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        for start, block in self.blocks(0, rows):
            cosines = np.concatenate([best, queries @ block.T], axis=1)
            numbers = np.concatenate(
                [found, np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))], axis=1
            )
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(cosines, order, axis=1)
            found = np.take_along_axis(numbers, order, axis=1)
        return Neighbours(rows=found, cosines=best)

    def blocks(self, first: int, end: int) -> Iterator[tuple[int, Vectors]]:
        """Rows from `first`, the start of a block, to `end`, with the number of each block's first row."""
        for start in range(first, end, BLOCK):
            yield start, self.block(start // BLOCK)[: end - start]

    def _latent(self, number: int, count: int) -> Vectors:
        random = np.random.default_rng((_SEED, 1, number + 1))
        clusters = random.choice(_CLUSTERS, count, p=self._shares)
        latent = self._centres[clusters] + _SPREAD * random.standard_normal((count, _LATENT), dtype=np.float32)
        copies = np.flatnonzero(random.random(count) < _DUPLICATES)
        copies = copies[copies > 0]
        noise = _NEAR * random.standard_normal((len(copies), _LATENT), dtype=np.float32)
        latent[copies] = latent[(copies * random.random(len(copies))).astype(int)] + noise
        return np.asarray(latent, dtype=np.float32)

    def _project(self, latent: Vectors) -> Vectors:
        vectors = np.maximum(latent @ self._weights, 0)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def recall(truth: Neighbours, found: list[list[tuple[int, float]]], k: int) -> float:
    """Share of the true k closest that are among the k found; a row as close as the true k-th counts as one of them."""
    hits = 0
    for rows, cosines, answer in zip(truth.rows, truth.cosines, found, strict=True):
        right = set(rows[:k].tolist())
        hits += sum(row in right or cosine >= cosines[k - 1] - 1e-6 for row, cosine in answer[:k])
    return hits / (k * len(found))
