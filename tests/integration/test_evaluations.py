"""Evaluations, maps and reindexing on a real job store, a real vector store and real decoders, on synthetic truth."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pymilvus import MilvusClient

from ingest_parts import MODEL, submit, work_off
from lookalike.records import (
    CollectionRequest,
    EvaluationRequest,
    IndexKind,
    JobKind,
    JobRecord,
    JobState,
    MapRequest,
    ReindexRequest,
    StepRequest,
)
from lookalike.vectorstore import StoredImage, physical_name
from lookalike_worker.context import Context

NAME = "measured"
DIM = MODEL.dim

Make = Callable[..., Context]


@pytest.fixture
def context(make_worker: Make) -> Iterator[Context]:
    context = make_worker(decode_timeout_s=20.0)
    yield context
    if NAME in [record.name for record in context.vectors.collections()]:
        context.vectors.drop(NAME)


def rows(count: int, **metadata: Any) -> list[StoredImage]:
    return [
        StoredImage(
            id=f"{number:032x}",
            uri=f"file:///made/up/{number}.jpg",
            name=f"{number}.jpg",
            sha256=f"{number:064x}",
            size=1,
            mtime_ns=1,
            width=4,
            height=3,
            metadata={key: values[number] for key, values in metadata.items() if values[number] is not None},
        )
        for number in range(count)
    ]


def fill(context: Context, index: IndexKind, vectors: NDArray[np.float32], **metadata: Any) -> None:
    context.vectors.create(CollectionRequest(name=NAME, index=index))
    context.vectors.bind(NAME, MODEL)
    context.vectors.upsert(NAME, rows(len(vectors), **metadata), vectors)


def run(context: Context, kind: JobKind, request: StepRequest) -> JobRecord:
    return work_off(context, context.jobs.create(kind, request)[0].id)


def evaluate(context: Context, **fields: Any) -> JobRecord:
    request = EvaluationRequest.model_validate({"collection": NAME, **fields})
    record = run(context, JobKind.EVALUATION, request)
    assert record.state is JobState.SUCCEEDED, record.error
    return record


def file(context: Context, record: JobRecord, name: str) -> bytes:
    return b"".join(context.artifacts.read(record.id, name))


def direct_recall(context: Context, vectors: NDArray[np.float32], k: int, nprobe: int) -> float:
    """Recall@k as anybody would compute it with Milvus' own client and a matrix product."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    truth = np.argsort(-cosines, axis=1)[:, :k]
    client = MilvusClient(context.settings.milvus_uri, dedicated=True)
    try:
        answers = client.search(
            physical_name(NAME, MODEL.fingerprint),
            data=list(vectors),
            limit=k + 1,
            search_params={"metric_type": "COSINE", "params": {"nprobe": nprobe}},
        )
    finally:
        client.close()
    shares = []
    for query, (hits, neighbours) in enumerate(zip(answers, truth, strict=True)):
        found = [int(hit["id"], 16) for hit in hits if int(hit["id"], 16) != query][:k]
        shares.append(len(set(found) & set(neighbours.tolist())) / k)
    return float(np.mean(shares))


def test_a_poor_index_has_the_recall_that_a_direct_computation_gives_and_a_better_setting_is_suggested(
    context: Context,
) -> None:
    vectors = np.random.default_rng(3).standard_normal((400, DIM)).astype(np.float32)
    fill(context, IndexKind.IVF_FLAT, vectors)
    record = evaluate(context, type="recall", sample=400, grid=[1, 4], pass_mark={"recall_at_10": 0.999})
    report = (record.result or {})["recall"]
    points = {point["params"]["nprobe"]: point for point in report["points"]}
    assert list(points) == [1, 4, 64]
    for nprobe in (1, 4):
        for k in (1, 10):
            expected = direct_recall(context, vectors, k, nprobe)
            assert points[nprobe][f"recall_at_{k}"] == pytest.approx(expected, abs=0.003)
    assert points[1]["recall_at_10"] < 0.6, "the index was to be poor"
    assert points[64]["default"]
    assert report["suggested"] == {"nprobe": 64}
    assert (record.progress.done, record.progress.total) == (400 + 3 * 400, 400 + 3 * 400)
    assert json.loads(file(context, record, "report.json"))["recall"] == report
    assert [one.name for one in context.artifacts.of(record.id)] == ["report.json"]

    changed = run(context, JobKind.REINDEX, ReindexRequest(collection=NAME, search={"nprobe": 1}))
    assert (changed.result or {})["search"] == {"nprobe": 1}
    assert not (changed.result or {})["rebuilt"]
    judged = evaluate(context, type="recall", sample=50, grid=[1], pass_mark={"recall_at_10": 0.9})
    assert not (judged.result or {})["passed"]
    assert (judged.result or {})["missed"]["recall_at_10"] < 0.6


def test_the_exact_index_of_milvus_lite_says_so_and_another_can_be_had(context: Context) -> None:
    vectors = np.random.default_rng(3).standard_normal((60, DIM)).astype(np.float32)
    fill(context, IndexKind.AUTO, vectors)
    report = (evaluate(context, type="recall", sample=20).result or {})["recall"]
    assert report["exact"]
    assert [(point["params"], point["recall_at_100"]) for point in report["points"]] == [({}, 1.0)]
    facts = context.vectors.index_of(NAME)
    assert facts
    assert "exact" in facts.chosen.reason

    wanted = ReindexRequest(collection=NAME, index=IndexKind.HNSW, build={"M": 8}, search={"ef": 40})
    done = run(context, JobKind.REINDEX, wanted)
    assert done.state is JobState.SUCCEEDED, done.error
    assert (done.result or {})["rebuilt"]
    assert (done.result or {})["params"] == {"M": 8, "efConstruction": 128}
    again = run(context, JobKind.REINDEX, wanted)
    assert not (again.result or {})["rebuilt"]
    kept = context.vectors.collection(NAME)
    assert (kept.index, kept.build, kept.search) == (IndexKind.HNSW, {"M": 8}, {"ef": 40})
    found = context.vectors.search(NAME, vectors[:5], limit=1)
    assert [hits[0].image.id for hits in found] == [f"{number:032x}" for number in range(5)]


def test_labels_are_scored_as_worked_out_by_hand(context: Context) -> None:
    # On a circle, in this order: a a b b a, then one without a label and one alone with its own.
    angles = np.array([0.0, 0.1, 0.25, 0.45, 0.7, 2.0, 3.0])
    vectors = np.zeros((7, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    fill(context, IndexKind.FLAT, vectors, label=["a", "a", "b", "b", "a", None, "c"])
    record = evaluate(context, type="labels", sample=7)
    report = (record.result or {})["labels"]
    # Hits of each query, closest first, without itself: 0: a b b a; 1: a b b a; 2: a b a a; 3: b a a a; 4: b b a a.
    aps = [(1 + 2 / 4) / 2, (1 + 2 / 4) / 2, 1 / 2, 1.0, (1 / 3 + 2 / 4) / 2]
    assert report["map_at_10"]["mean"] == pytest.approx(np.mean(aps), abs=1e-5)
    assert report["precision_at_1"]["mean"] == pytest.approx(3 / 5)
    assert (report["queries"], report["unlabelled"], report["alone"]) == (5, 1, 1)
    table = {row["label"]: (row["images"], row["queries"], row["map_at_10"]) for row in report["labels"]}
    assert table["b"] == (2, 2, pytest.approx(0.75))
    assert table["a"] == (3, 3, pytest.approx((0.75 + 0.75 + 5 / 12) / 3, abs=1e-5))
    assert report["worst"][0] == f"{4:032x}"
    assert b"no picture" in file(context, record, "report.html"), "there are no files behind made-up rows"


def draw(root: Path, count: int) -> None:
    """Pictures of four colours each, a quarter of them mirror-symmetric by chance of nothing."""
    rng = np.random.default_rng(5)
    for number in range(count):
        quarters = rng.integers(0, 250, (2, 2, 3), dtype=np.uint8)
        picture = Image.fromarray(quarters).resize((120, 120), Image.Resampling.NEAREST)
        target = io.BytesIO()
        picture.save(target, "PNG")
        (root / f"{number}.png").write_bytes(target.getvalue())


def test_altered_copies_find_their_originals_where_the_network_can_tell_and_the_pass_mark_judges(
    context: Context, image_root: Path
) -> None:
    draw(image_root, 24)
    work_off(context, submit(context, NAME))
    (image_root / "7.png").unlink()
    record = evaluate(
        context,
        type="robustness",
        alterations=["crop_50", "rescale_50", "blur", "mirror"],
        pass_mark={"rescale_50": 1.0, "recall_at_1": 0.9},
    )
    report = (record.result or {})["robustness"]
    scores = {one["alteration"]: one["recall_at_1"]["mean"] for one in report["alterations"]}
    # Mean colours of the quarters stay what they are, but for a mirror, which swaps them.
    assert scores["crop_50"] == scores["rescale_50"] == scores["blur"] == 1
    assert scores["mirror"] < 0.5
    assert record.failure_counts == {"file_missing": 1}
    assert (record.progress.done, record.progress.failed, report["images"]) == (24, 1, 23)
    result = record.result or {}
    assert (result["passed"], list(result["missed"])) == (False, ["recall_at_1"])
    page = file(context, record, "report.html").decode()
    assert page.count("<section>") > 5
    assert "data:image/webp;base64," in page
    assert "<script" not in page


def test_a_map_shows_what_lies_together_together(context: Context) -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(DIM)[:2] * 5
    vectors = np.concatenate([centre + 0.1 * rng.standard_normal((30, DIM)) for centre in centres])
    fill(context, IndexKind.FLAT, vectors.astype(np.float32))
    record = run(context, JobKind.MAP, MapRequest(collection=NAME, limit=50))
    assert record.state is JobState.SUCCEEDED, record.error
    drawn = json.loads(file(context, record, "map.json"))
    assert len(drawn["points"]) == 50
    sides = {int(point["id"], 16) < 30: np.sign(point["x"]) for point in drawn["points"]}
    assert all(np.sign(point["x"]) == sides[int(point["id"], 16) < 30] for point in drawn["points"])
    assert sides[True] != sides[False]
    assert drawn["explained"][0] > 0.9
    assert (record.result or {})["rows"] == 60


def test_an_evaluation_of_next_to_nothing_fails_with_a_sentence(context: Context) -> None:
    context.vectors.create(CollectionRequest(name=NAME))
    record = run(context, JobKind.EVALUATION, EvaluationRequest.model_validate({"collection": NAME, "type": "recall"}))
    assert record.error
    assert record.error.code == "invalid_parameter"
