"""What a search may ask for, and which of what was found becomes hits; no server."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lookalike.records import Metric, Query, SearchRequest, Variant
from lookalike_worker.combining import NEGATIVE_WEIGHT, combined, turned
from lookalike_worker.selecting import Match, Rules, merged, selected

ID = "0" * 32


@pytest.mark.parametrize(
    "query",
    [
        {"path": "a", "url": "https://example.com/a.jpg"},
        {"negative": [{"path": "a"}]},
        {"vector": [1.0], "box": [0, 0, 1, 1]},
        {"positive": [{"path": "a"}], "box": [0, 0, 1, 1]},
        {"path": "a", "box": [0.5, 0, 0.6, 1]},
        {"path": "a", "box": [0, 0, 0, 1]},
        {"positive": [{"positive": [{"path": "a"}]}]},
        {"positive": [{"path": "a"}] * 40, "negative": [{"path": "b"}] * 40},
    ],
)
def test_a_query_that_means_nothing_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate(query)


def test_decimal_fractions_of_a_side_may_fill_it() -> None:
    assert Query(path="a", box=(0.7, 0.1, 0.3, 0.9)).box == (0.7, 0.1, 0.3, 0.9)


def test_an_upload_is_named_by_its_hash_alone_or_as_elsewhere() -> None:
    sha256 = "ab" * 32
    assert Query.model_validate({"upload": sha256}) == Query.model_validate({"upload": {"sha256": sha256}})


def test_only_single_pictures_are_turned() -> None:
    with pytest.raises(ValidationError, match="single pictures"):
        SearchRequest.model_validate({"queries": [{"vector": [1.0]}], "variants": ["mirror"]})


# --- Combining ------------------------------------------------------------------------------------------------------


def test_examples_count_by_direction_and_keep_their_usual_length() -> None:
    right, up = np.array([10.0, 0, 0], np.float32), np.array([0, 2.0, 0], np.float32)
    both = combined([right, up], [])
    assert both[0] == pytest.approx(both[1])
    assert np.linalg.norm(both) == pytest.approx(6.0)


def test_a_negative_example_pushes_away_and_never_turns_a_query_around() -> None:
    right, up = np.array([1.0, 0], np.float32), np.array([0, 1.0], np.float32)
    query = combined([right], [up])
    assert query[1] / query[0] == pytest.approx(-NEGATIVE_WEIGHT)
    assert combined([right], [right]) == pytest.approx(right), "a contradiction leaves what is wanted"


def test_a_turned_picture_is_the_picture_turned() -> None:
    square = np.array([[1, 2], [3, 4]], np.uint8)[:, :, None]
    ways = {variant: turned(square, variant)[:, :, 0].tolist() for variant in Variant}
    assert ways == {
        Variant.MIRROR: [[2, 1], [4, 3]],
        Variant.ROTATE90: [[3, 1], [4, 2]],
        Variant.ROTATE180: [[4, 3], [2, 1]],
        Variant.ROTATE270: [[2, 4], [1, 3]],
    }


# --- Selecting ------------------------------------------------------------------------------------------------------


def match(key: str, distance: float, **more: Any) -> Match:
    return Match(key=key, distance=distance, **more)


def keys(matches: list[Match]) -> str:
    return "".join(one.key for one in matches)


def test_what_several_vectors_found_counts_once_at_its_best_distance() -> None:
    first = [match("a", 0.9), match("b", 0.5)]
    second = [match("b", 0.8, variant=Variant.MIRROR), match("c", 0.7)]
    hits, more = merged([first, second], Metric.COSINE, asked_for=5)
    assert (keys(hits), [one.distance for one in hits], more) == ("abc", [0.9, 0.8, 0.7], False)
    assert hits[1].variant is Variant.MIRROR


def test_behind_the_end_of_a_list_that_goes_on_nothing_is_said() -> None:
    first, second = [match("a", 1.0), match("b", 2.0)], [match("c", 1.5), match("d", 9.0)]
    hits, more = merged([first, second], Metric.L2, asked_for=2)
    assert (keys(hits), more) == ("acb", True), "between b and d the first list may have others"


@pytest.mark.parametrize(
    ("metric", "distances", "rules", "expected"),
    [
        (Metric.COSINE, (0.9, 0.5, 0.1), {"max_distance": 0.5}, "ab"),
        (Metric.L2, (0.5, 1.0, 3.0), {"max_distance": 1.0}, "ab"),
        (Metric.IP, (9.0, 5.0, 1.0), {"max_distance": 5.0}, "ab"),
        (Metric.L2, (0.5, 1.0, 3.0), {"min_score": 0.4}, "ab"),
        (Metric.COSINE, (0.9, 0.5, 0.1), {"min_score": 0.6}, "a"),
    ],
)
def test_a_bound_keeps_what_is_at_least_as_close_whatever_the_metric(
    metric: Metric, distances: tuple[float, ...], rules: dict[str, Any], expected: str
) -> None:
    found = [match(key, distance) for key, distance in zip("abc", distances, strict=True)]
    hits, is_over = selected(found, Rules(metric=metric, **rules), needed=5)
    assert (keys(hits), is_over) == (expected, True)


def test_itself_the_same_content_and_the_same_group_are_no_hits_again() -> None:
    found = [
        match("a", 1.0, sha256="x", group=1),
        match("b", 0.9, sha256="y", group=1),
        match("c", 0.8, sha256="x", group=2),
        match("d", 0.7, sha256="", group=None),
        match("e", 0.6, sha256="", group=["l"]),
    ]
    assert keys(selected(found, Rules(metric=Metric.COSINE, own_ids=frozenset("a")), needed=9)[0]) == "bcde"
    assert keys(selected(found, Rules(metric=Metric.COSINE, own_contents=frozenset("x")), needed=9)[0]) == "bde"
    assert keys(selected(found, Rules(metric=Metric.COSINE, distinct=True), needed=9)[0]) == "abde"
    assert keys(selected(found, Rules(metric=Metric.COSINE, grouped=True), needed=9)[0]) == "acde"
