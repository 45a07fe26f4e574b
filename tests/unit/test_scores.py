"""Scores on synthetic truth: distributions whose tail is known say how many false matches a threshold lets through."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.records import Background, Band, Metric
from lookalike_worker.backgrounds import FEWEST_ROWS, measure

DIM = 64
FINGERPRINT = "a" * 64
Vectors = NDArray[np.float32]


def normal_vectors(rows: int, seed: int) -> Vectors:
    """Directions that have nothing in common, of lengths that vary little."""
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)


def background_of(vectors: Vectors, metric: Metric, *, rows: int) -> Background:
    names = [str(number) for number in range(len(vectors))]
    background = measure(vectors, names, metric, rows=rows, fingerprint=FINGERPRINT)
    assert background is not None
    return background


def share_of_cosines(at_least: float) -> float:
    """The share of random directions whose cosine is at least this: the integral of (1 - c^2)^((DIM - 3) / 2)."""
    cosines = np.linspace(-1, 1, 400_001)
    density = (1 - cosines**2) ** ((DIM - 3) / 2)
    return float(density[cosines >= at_least].sum() / density.sum())


def share_of_squares(at_most: float) -> float:
    """The share of pairs of normal vectors whose squared distance is at most this: chi-squared, of DIM degrees, twice.

    For an even number of degrees that is what a Poisson variable has beyond half of them.
    """
    rate = at_most / 4
    return 1 - sum(math.exp(-rate + k * math.log(rate) - math.lgamma(k + 1)) for k in range(DIM // 2))


@pytest.mark.parametrize("rows", [300, 2_000, 100_000])
@pytest.mark.parametrize(("metric", "share"), [(Metric.COSINE, share_of_cosines), (Metric.L2, share_of_squares)])
def test_a_threshold_lets_as_many_false_matches_through_as_it_says(
    metric: Metric, share: Callable[[float], float], rows: int
) -> None:
    samples = [normal_vectors(min(rows, 1_000), seed) for seed in range(5)]
    backgrounds = [background_of(vectors, metric, rows=rows) for vectors in samples]
    for expected in (0.1, 1.0, 10.0):
        distances = [background.threshold(expected).distance for background in backgrounds]
        # One sample of a few hundred may miss a rare tail by a factor of eight; together they show no bias.
        factors = [rows * share(distance) / expected for distance in distances]
        assert 1 / 2 < math.exp(float(np.mean(np.log(factors)))) < 2, factors
        assert 1 / 10 < min(factors) <= max(factors) < 10
        for background, distance in zip(backgrounds, distances, strict=True):
            assert background.false_matches(distance) == pytest.approx(expected, rel=1e-3), "and back again"


def test_a_percentile_is_the_share_of_random_pairs_that_are_farther() -> None:
    background = background_of(normal_vectors(1_000, seed=1), Metric.COSINE, rows=1_000)
    for cosine in (-0.2, 0.0, 0.1, 0.3):
        assert background.percentile(cosine) == pytest.approx(100 * (1 - share_of_cosines(cosine)), abs=0.5)
    assert background.percentile(-1.0) == 0.0
    assert 99.9999 < background.percentile(1.0) <= 100.0


@pytest.mark.parametrize("metric", list(Metric))
def test_what_is_closer_never_has_a_smaller_percentile(metric: Metric) -> None:
    background = background_of(normal_vectors(500, seed=2), metric, rows=50_000)
    first, last = sorted((background.distances[0], background.threshold(0.001).distance))
    distances = np.linspace(first, last, 2_000)
    percentiles = [background.percentile(float(distance)) for distance in distances]
    assert percentiles == sorted(percentiles, reverse=metric is Metric.L2)


def test_each_picture_having_a_near_duplicate_does_not_hide_near_duplicates() -> None:
    vectors = normal_vectors(1_000, seed=3)
    twins = vectors + 0.1 * normal_vectors(1_000, seed=4)
    background = background_of(np.concatenate([vectors, twins]), Metric.COSINE, rows=2_000)
    cosines = np.einsum("ij,ij->i", vectors, twins)
    cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(twins, axis=1)
    assert {background.band(float(cosine)) for cosine in cosines} == {Band.NEAR_DUPLICATE}
    strangers = [float(vectors[0] @ other / np.linalg.norm(vectors[0]) / np.linalg.norm(other)) for other in twins[1:]]
    assert Band.NEAR_DUPLICATE not in {background.band(cosine) for cosine in strangers}


def test_pairs_of_the_same_content_are_no_random_pairs() -> None:
    vectors = np.repeat(normal_vectors(100, seed=5), 10, axis=0)
    contents = [str(number // 10) for number in range(1_000)]
    background = measure(vectors, contents, Metric.COSINE, rows=1_000, fingerprint=FINGERPRINT)
    assert background is not None
    assert background.pairs == 100 * 99 // 2 * 100
    assert background.band(1.0) is Band.NEAR_DUPLICATE


def test_few_images_have_no_background() -> None:
    names = [str(number) for number in range(FEWEST_ROWS - 1)]
    few = normal_vectors(len(names), seed=6)
    assert measure(few, names, Metric.COSINE, rows=len(names), fingerprint=FINGERPRINT) is None
    alike = ["one content"] * 200
    assert measure(normal_vectors(200, seed=7), alike, Metric.L2, rows=200, fingerprint=FINGERPRINT) is None


def test_vectors_that_are_all_the_same_have_a_background_of_one_step() -> None:
    background = background_of(np.ones((80, DIM), np.float32), Metric.L2, rows=80)
    assert background.threshold(0.1).distance >= 0.0
    assert background.closer_share(100.0) == 1.0


def test_a_background_fits_into_a_collections_record() -> None:
    background = background_of(normal_vectors(1_000, seed=8), Metric.IP, rows=1_000_000)
    assert len(background.model_dump_json()) < 1_500, "of 8,192 bytes that a record may have"
    assert background.measured_at <= datetime.now(UTC)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_vectors_that_are_like_nothing_leave_the_background_readable(metric: Metric, scale: float) -> None:
    vectors = normal_vectors(200, seed=9)
    vectors[:3] *= scale
    background = measure(vectors, list(map(str, range(200))), metric, rows=1_000_000, fingerprint=FINGERPRINT)
    assert background
    assert background.sampled == 197
    assert Background.model_validate_json(background.model_dump_json()) == background
