"""The measures of evaluations, and the plane of a map. Pure functions on arrays."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.records import Interval, Metric

Reals = NDArray[np.float64]

_RESAMPLES: Final = 1_000
_CONFIDENCE: Final = (2.5, 97.5)  # Percentiles.
_BLOCK: Final = 1 << 22  # Numbers drawn at a time.
_OVERSAMPLED: Final = 10  # Halko, Martinsson and Tropp: 5 or 10 more directions than are wanted.
_POWER_ITERATIONS: Final = 12  # Two thin products each: clouds without a grain need more than the usual two.
_ROUNDING: Final = 1e-6


def likeness(queries: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> Reals:
    """Compare (q, dim) with (n, dim): (q, n), larger is closer; L2 is the negative squared distance."""
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.L2:
        products = 2 * left @ right.T
        return np.asarray(products - np.square(right).sum(axis=1) - np.square(left).sum(axis=1)[:, None])
    if metric is Metric.COSINE:
        return np.asarray(_of_length_one(left) @ _of_length_one(right).T, dtype=np.float64)
    return np.asarray(left @ right.T)


def recall_at(k: int, exact: Reals, found: Reals) -> float:
    """Return the share of a query's k nearest neighbours that were found.

    `exact` are the likenesses of its nearest neighbours, closest first, `found` those of the hits in their order. A hit
    as close as the k-th neighbour counts, whichever image it is: which of equals comes first is chance. Where there are
    fewer than k neighbours, all of them are the k.
    """
    k = min(k, len(exact))
    if k == 0:
        return 1.0
    least = exact[k - 1] - _ROUNDING * max(1.0, abs(exact[k - 1]))
    return min(1.0, float((found[:k] >= least).sum()) / k)


def average_precision(k: int, relevant: Sequence[bool], total: int) -> float:
    """Return AP@k of one query: 1 / min(m, k) * sum over i <= k of P(i) * rel(i).

    `relevant` says of each hit in turn whether it is relevant, `total` is m, how many relevant images there are besides
    the query; P(i) is the share of relevant ones among the first i hits. The mean over queries is mAP@k, as in Weyand
    et al., Google Landmarks Dataset v2, CVPR 2020, section 5.1 (there with k = 100).
    """
    marks = np.asarray(relevant[:k], dtype=np.float64)
    if total == 0:
        return 0.0
    precisions = np.cumsum(marks) / np.arange(1, len(marks) + 1)
    return float((precisions * marks).sum() / min(total, k))


def mean_interval(values: Sequence[float], seed: int) -> Interval:
    """Return the mean with its 95% percentile bootstrap interval (Efron, Annals of Statistics 7, 1979)."""
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    draw = np.random.default_rng(seed)
    rounds = max(1, _BLOCK // len(sample))
    means = np.concatenate(
        [
            sample[draw.integers(len(sample), size=(min(rounds, _RESAMPLES - first), len(sample)))].mean(axis=1)
            for first in range(0, _RESAMPLES, rounds)
        ]
    )
    low, high = np.percentile(means, _CONFIDENCE)
    return Interval(mean=round(float(sample.mean()), 6), low=round(float(low), 6), high=round(float(high), 6))


def plane(vectors: NDArray[np.float32], metric: Metric, seed: int) -> tuple[Reals, tuple[float, float]]:
    """Project (n, dim) onto the two principal components: (n, 2), and the share of the variance along each.

    Of COSINE the directions are compared, so lengths are made one. The components are found by randomised subspace
    iteration (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1), whose memory is that of the
    vectors. The sign of each is such that its largest weight is positive.
    """
    centred = _of_length_one(vectors).astype(np.float32) if metric is Metric.COSINE else vectors.astype(np.float32)
    centred = centred - centred.mean(axis=0, dtype=np.float64).astype(np.float32)
    size = min(2 + _OVERSAMPLED, *centred.shape)
    basis = np.random.default_rng(seed).standard_normal((centred.shape[1], size)).astype(np.float32)
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(centred.T @ np.linalg.qr(centred @ basis)[0])[0]
    basis = np.linalg.qr(centred @ basis)[0]
    _, lengths, components = np.linalg.svd(basis.T @ centred, full_matrices=False)
    signs = np.sign(components[np.arange(2), np.abs(components[:2]).argmax(axis=1)])
    points = (centred @ components[:2].T) * signs
    variance = float(np.square(centred, dtype=np.float64).sum()) or 1.0
    first, second = (float(length) ** 2 / variance for length in lengths[:2])
    return points.astype(np.float64), (first, second)


def _of_length_one(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths))
