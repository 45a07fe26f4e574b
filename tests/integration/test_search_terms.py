"""Every way to ask, on real servers and decoders: regions, turned pictures, examples, and what is left out of hits."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest_parts import draw, engine_of, ingest
from lookalike.records import JobKind, JobRecord, SearchRequest
from lookalike.remote import Fetched
from lookalike.roots import image_id
from lookalike_worker.backgrounds import FEWEST_ROWS
from lookalike_worker.context import Context
from lookalike_worker.lanes import SearchLane

Make = Callable[..., Context]


def place(context: Context) -> str:
    """A collection of each test's own: they share a server."""
    return f"asked{image_id(str(context.settings.roots[0]))[:12]}"


def ask(context: Context, *queries: dict[str, Any], **terms: Any) -> str:
    request = SearchRequest.model_validate({"collection": place(context), "limit": 3, **terms, "queries": queries})
    return context.jobs.create(JobKind.SEARCH, request)[0].id


def answered(context: Context, *queries: dict[str, Any], **terms: Any) -> JobRecord:
    job_id = ask(context, *queries, **terms)
    SearchLane(context).ring()
    return context.jobs.get(job_id)


def hits(record: JobRecord, query: int = 0) -> list[dict[str, Any]]:
    assert record.result, record.error
    answer = record.result["queries"][query]
    assert not answer["error"], answer
    return list(answer["hits"])


def names(record: JobRecord) -> list[str]:
    return [hit["name"] for hit in hits(record)]


def colours(root: Path, **quarters: tuple[str, str, str, str]) -> None:
    """Draw pictures of four coloured quarters: upper left and right, lower left and right."""
    for name, four in quarters.items():
        picture = Image.new("RGB", (256, 256))
        for at, colour in zip(((0, 0), (128, 0), (0, 128), (128, 128)), four, strict=True):
            picture.paste(colour, (*at, at[0] + 128, at[1] + 128))
        picture.save(root / f"{name}.png")


@pytest.fixture
def context(make_worker: Make, image_root: Path) -> Context:
    """A worker whose collection holds pictures of four quarters, two of the same content, and plain ones."""
    colours(
        image_root,
        mixed=("red", "blue", "green", "black"),
        copy=("red", "blue", "green", "black"),
        red=("red",) * 4,
        blue=("blue",) * 4,
        green=("green",) * 4,
        purple=("fuchsia",) * 4,
    )
    context = make_worker()
    assert ingest(context, place(context), metadata={"kind": "drawn"}).progress.stored == 6
    engine_of(context).seen.clear()
    return context


def test_a_region_is_searched_with_as_if_it_were_the_picture(context: Context) -> None:
    box = [0.5, 0, 0.5, 0.5]
    by_path = answered(context, {"path": "mixed.png", "box": box}, limit=1)
    assert (names(by_path), hits(by_path)[0]["band"]) == (["blue.png"], "identical")
    stored = image_id(context.sources.roots.resolve_file("mixed.png"))
    assert names(answered(context, {"image_id": stored, "box": [0, 0.5, 0.5, 0.5]}, limit=1)) == ["green.png"]


def test_a_turned_picture_finds_its_original_and_says_how_it_was_turned(context: Context, image_root: Path) -> None:
    Image.open(image_root / "mixed.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image_root / "turned.png")
    plain = hits(answered(context, {"path": "turned.png"}, limit=1))[0]
    turned = hits(answered(context, {"path": "turned.png"}, limit=6, variants=["rotate90", "mirror"]))
    assert plain["band"] != "identical"
    assert (turned[0]["variant"], turned[0]["band"]) == ("mirror", "identical")
    assert len({hit["id"] for hit in turned}) == len(turned) == 6, "and each image is there once"
    assert engine_of(context).seen == [1, 3]


def test_examples_find_what_is_like_the_positive_and_unlike_the_negative_ones(context: Context) -> None:
    both = [{"path": "red.png"}, {"path": "blue.png"}]
    assert names(answered(context, {"positive": both}, limit=1)) == ["purple.png"]
    away = answered(context, {"positive": [{"path": "purple.png"}], "negative": [{"path": "red.png"}]}, limit=6)
    order = names(away)
    assert order.index("blue.png") < order.index("red.png")
    assert engine_of(context).seen == [2, 2]


def test_what_is_left_out_is_made_up_for_by_others(context: Context) -> None:
    query = {"path": "mixed.png"}
    assert sorted(names(answered(context, query, limit=2))) == ["copy.png", "mixed.png"]
    assert names(answered(context, query, limit=1, exclude_self=True)) == ["copy.png"]
    distinct = answered(context, query, limit=5, distinct=True)
    assert len({hit["sha256"] for hit in hits(distinct)}) == 5
    assert answered(context, query, limit=6, distinct=True).result["queries"][0]["next_offset"] is None  # type: ignore[index]
    grouped = hits(answered(context, query, limit=5, group_by="kind"))
    assert [hit["group"] for hit in grouped] == ["drawn"]
    assert [hit["group"] for hit in hits(answered(context, query, limit=5, group_by="width"))] == [256]


def test_pages_put_together_are_the_whole(context: Context) -> None:
    query = {"path": "mixed.png"}
    for more in ({}, {"exclude_self": True}):
        whole = [hit["id"] for hit in hits(answered(context, query, limit=6, **more))]
        pages, offset = [], 0
        while offset is not None:
            record = answered(context, query, limit=2, offset=offset, **more)
            pages += [hit["id"] for hit in hits(record)]
            assert record.result
            offset = record.result["queries"][0]["next_offset"]
        assert pages == whole


def test_a_bound_and_strong_consistency_are_heeded(context: Context) -> None:
    query = {"path": "red.png"}
    everything = hits(answered(context, query, limit=6, consistency="strong"))
    third = everything[2]["distance"]
    close = sum(hit["distance"] >= third for hit in everything)
    assert 3 <= close < 6
    assert len(hits(answered(context, query, limit=6, max_distance=third))) == close
    assert len(hits(answered(context, query, limit=6, min_score=everything[0]["score"]))) == 1


def test_a_parameter_that_the_index_has_not_fails_only_its_own_searches(context: Context) -> None:
    wrong, right = ask(context, {"path": "red.png"}, params={"ef": 100}), ask(context, {"path": "red.png"})
    SearchLane(context).ring()
    error = context.jobs.get(wrong).error
    assert error
    assert error.code == "invalid_parameter"
    assert "nprobe" in error.message
    assert names(context.jobs.get(right))[0] == "red.png"
    assert names(answered(context, {"path": "red.png"}, params={"nprobe": 8}))[0] == "red.png"


class SlowWeb:
    """The web, where one picture takes its time."""

    def __init__(self, copy: str) -> None:
        self.copy = copy
        self.asked: Future[Fetched] = Future()

    def check_url(self, url: str) -> str:
        return url

    def is_remote(self, uri: str) -> bool:
        return uri.startswith("https:")

    def fetch(self, _: str, *, patient: bool) -> Future[Fetched]:
        assert not patient
        return self.asked

    def arrive(self) -> None:
        if not self.asked.done():
            self.asked.set_result(Fetched(uri=self.copy, size=0, mtime_ns=0, etag=""))


def test_a_picture_that_takes_its_time_on_the_web_keeps_nobody_else_waiting(context: Context) -> None:
    web: Any = SlowWeb(context.sources.roots.resolve_file("blue.png"))
    slow = ask(context, {"url": "https://example.com/blue.png"}, limit=1)
    quick = ask(context, {"path": "red.png"}, limit=1)
    engine_of(context).before = web.arrive  # Only once the other one is with the network.
    SearchLane(replace(context, remote=web)).ring()
    assert [names(context.jobs.get(job_id)) for job_id in (quick, slow)] == [["red.png"], ["blue.png"]]
    assert engine_of(context).seen == [1, 1]


def test_hits_are_rated_by_the_background_that_an_ingest_leaves(make_worker: Make, image_root: Path) -> None:
    draw(image_root, **{f"p{number:02}": number for number in range(FEWEST_ROWS + 4)})
    context = make_worker()
    assert ingest(context, place(context)).progress.stored == FEWEST_ROWS + 4
    record = answered(context, {"path": "p00.png"}, limit=FEWEST_ROWS + 4)
    assert record.result
    assert record.result["background"]["rows"] == FEWEST_ROWS + 4
    bands = [hit["band"] for hit in hits(record)]
    percentiles = np.array([hit["percentile"] for hit in hits(record)])
    assert (bands[0], bands[-1]) == ("identical", "weak")
    assert (np.diff(percentiles) <= 0).all()
    thresholds = [one["distance"] for one in record.result["background"]["thresholds"]]
    assert thresholds == sorted(thresholds, reverse=True), "the fewer false matches, the closer"
