"""What the demo says of its search: the truth, whatever came out."""

from pathlib import Path

from lookalike.demo import Copy, verdict
from lookalike.gallery import Alteration
from lookalike.records import Hit, JobError, Metric, QueryResult, SearchResult


def hit(rank: int, name: str) -> Hit:
    return Hit(
        rank=rank,
        id=f"{rank:032x}",
        uri=f"file:///gallery/{name}",
        name=name,
        distance=0.9,
        score=0.9,
        width=1,
        height=1,
    )


def result(*answers: QueryResult) -> SearchResult:
    return SearchResult(collection="gallery", metric=Metric.COSINE, model=None, queries=answers)


CROPPED = Copy(Path("dots-001 crop.jpg"), Alteration.CROP, "dots-001.jpg")
MIRRORED = Copy(Path("rings-002 mirror.jpg"), Alteration.MIRROR, "rings-002.jpg")


def test_the_demo_says_when_every_copy_found_its_original() -> None:
    answers = result(
        QueryResult(query={}, hits=(hit(1, "dots-001.jpg"), hit(2, "dots-009.jpg"))),
        QueryResult(query={}, hits=(hit(1, "rings-002.jpg"),)),
    )
    assert verdict([CROPPED, MIRRORED], answers) == "Each of the 2 altered copies found its original first."


def test_the_demo_names_the_copies_that_did_not() -> None:
    answers = result(
        QueryResult(query={}, hits=(hit(1, "dots-001.jpg"),)),
        QueryResult(query={}, hits=(hit(1, "rings-009.jpg"), hit(2, "rings-002.jpg"))),
    )
    said = verdict([CROPPED, MIRRORED], answers)
    assert said == "1 of 2 altered copies found their original first; not so: rings-002.jpg (mirrored)."


def test_a_query_that_failed_found_nothing() -> None:
    failed = QueryResult(query={}, error=JobError(code="image_corrupt", message="The image's data is broken."))
    said = verdict([CROPPED], result(failed))
    assert said.startswith("0 of 1")
