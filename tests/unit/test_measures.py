"""The measures of evaluations, against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lookalike.errors import InvalidParameter
from lookalike.records import EvaluationRequest, IndexKind, Metric
from lookalike.vectorstore.indexes import ServerKind, check_tuning, index_for, is_built, tuned
from lookalike_worker.measures import average_precision, likeness, mean_interval, plane, recall_at
from lookalike_worker.steps.sampling import ranks


@pytest.mark.parametrize(
    ("relevant", "total", "expected"),
    [
        ([True, False, True], 2, (1 + 2 / 3) / 2),
        ([False, True], 1, 1 / 2),
        ([False] * 10 + [True], 1, 0.0),  # Too late.
        ([True] * 10, 50, 1.0),  # No more than ten can be among ten.
        ([True, False], 4, 1 / 4),
        ([], 3, 0.0),
        ([False], 0, 0.0),
    ],
)
def test_average_precision_at_10_is_as_worked_out_by_hand(relevant: list[bool], total: int, expected: float) -> None:
    assert average_precision(10, relevant, total) == pytest.approx(expected)


def test_a_hit_as_close_as_the_kth_neighbour_counts_whichever_image_it_is() -> None:
    exact = np.array([0.9, 0.8, 0.8, 0.5])
    assert recall_at(2, exact, np.array([0.9, 0.8])) == 1
    assert recall_at(2, exact, np.array([0.9, 0.5])) == 0.5
    assert recall_at(1, exact, np.array([0.8, 0.9])) == 0, "the first hit only"
    assert recall_at(10, exact, np.array([0.9, 0.8, 0.8])) == 0.75, "of four there are"
    assert recall_at(10, exact, exact) == 1


@pytest.mark.parametrize("metric", list(Metric))
def test_likeness_is_the_metrics_with_larger_for_closer(metric: Metric) -> None:
    one, two = np.array([[3.0, 4.0]], np.float32), np.array([[6.0, 8.0], [-4.0, 3.0]], np.float32)
    expected = {Metric.COSINE: [1, 0], Metric.IP: [50, 0], Metric.L2: [-25, -50]}[metric]
    np.testing.assert_allclose(likeness(one, two, metric), [expected], atol=1e-12)


def test_the_interval_of_a_mean_holds_the_mean_and_narrows_with_the_sample() -> None:
    few, many = mean_interval([0.0, 1.0] * 10, 0), mean_interval([0.0, 1.0] * 1000, 0)
    assert few.low < few.mean == 0.5 < few.high
    # The standard error is 0.5 / sqrt(n), and 95% lie within 1.96 of them.
    assert few.high - few.low == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, rel=0.2)
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.2)
    assert mean_interval([0.0, 1.0] * 10, 0) == few


def test_the_plane_is_that_of_an_exact_decomposition() -> None:
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((300, 40)) * 5 * 0.8 ** np.arange(40)).astype(np.float32)
    points, shares = plane(vectors, Metric.L2, seed=0)
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * lengths[:2]), atol=0.05)
    np.testing.assert_allclose(shares, lengths[:2] ** 2 / (lengths**2).sum(), atol=1e-3)
    np.testing.assert_array_equal(plane(vectors, Metric.L2, seed=0)[0], points)


def test_images_that_are_all_alike_have_a_plane_of_one_point() -> None:
    points, shares = plane(np.ones((5, 8), np.float32), Metric.COSINE, seed=0)
    np.testing.assert_allclose(points, 0, atol=1e-6)
    assert np.isfinite(shares).all()


@given(rows=st.integers(1, 5000), wanted=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_sample_has_one_row_of_each_equal_stretch(rows: int, wanted: int, seed: int) -> None:
    chosen = ranks(rows, wanted, seed)
    assert len(set(chosen.tolist())) == min(rows, wanted)
    assert chosen.min() >= 0
    assert chosen.max() < rows
    if rows > wanted:
        assert (np.floor((chosen + 0.999) * wanted / rows).astype(int) >= np.arange(wanted)).all()
    np.testing.assert_array_equal(chosen, ranks(rows, wanted, seed))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "recall", "field": "album"},
        {"type": "labels", "alterations": ["blur"]},
        {"type": "robustness", "pass_mark": {"map_at_10": 0.5}},
        {"type": "recall", "pass_mark": {"recall_at_10": 1.5}},
        {"type": "labels", "field": "a == 1"},
    ],
)
def test_what_does_not_belong_to_an_evaluation_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationRequest.model_validate(fields)


def test_a_collections_own_parameters_take_the_place_of_the_index_own() -> None:
    spec = tuned(index_for(IndexKind.IVF_FLAT, 0, 8, ServerKind.MILVUS), {"nlist": 16}, {})
    assert (spec.build, spec.search) == ({"nlist": 16}, {"nprobe": 16})
    assert is_built({"index_type": "IVF_FLAT", "nlist": "16"}, spec)
    assert not is_built({"index_type": "IVF_FLAT", "nlist": "1024"}, spec)
    hnsw = tuned(index_for(IndexKind.HNSW, 0, 8, ServerKind.MILVUS), {}, {"ef": 40, "nprobe": 3})
    assert hnsw.search == {"ef": 40}
    exact = index_for(IndexKind.AUTO, 0, 8, ServerKind.LITE)
    assert tuned(exact, {"nlist": 9}, {"nprobe": 9}) == exact


@pytest.mark.parametrize(
    ("kind", "build", "search"),
    [
        (IndexKind.HNSW, {"nlist": 4}, {}),
        (IndexKind.HNSW, {"M": 3}, {}),
        (IndexKind.IVF_FLAT, {}, {"ef": 4}),
        (IndexKind.FLAT, {}, {"nprobe": 4}),
    ],
)
def test_a_parameter_that_an_index_does_not_have_is_refused(
    kind: IndexKind, build: dict[str, int], search: dict[str, int]
) -> None:
    with pytest.raises(InvalidParameter):
        check_tuning(index_for(kind, 0, 8, ServerKind.MILVUS), build, search)
