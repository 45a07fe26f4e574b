"""Another model for a collection: two workers of different models on one Redis and Milvus, and search all the while."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from ingest_parts import MODEL, after_batches, counts, draw, engine_of, many, work_off, worker_info
from ingest_parts import submit as submit_ingest
from lookalike.jobstore import Lane
from lookalike.records import (
    CollectionSource,
    IngestRequest,
    JobKind,
    JobRecord,
    JobState,
    ModelState,
    Query,
    SearchRequest,
    SearchResult,
)
from lookalike.roots import file_uri
from lookalike.vectorstore import physical_name
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane, SearchLane

Make = Callable[..., Context]
NEW = MODEL.model_copy(update={"name": "brightness", "fingerprint": "b" * 64, "dim": 3})
NAME = "changing"


def brightness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Another network: the mean colour of a picture."""
    return images.mean(axis=(1, 2)).astype(np.float32) + 1


@pytest.fixture
def workers(make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Context, Context]]:
    """A worker of each model, both of them live in both lanes; the old one's has stored twelve pictures."""
    old, new = make_worker(), make_worker(model=NEW)
    monkeypatch.setattr(engine_of(new), "embed", _noting(new))
    for context in (old, new):
        model = context.embedder.model
        for lane in Lane:
            info = worker_info(old.jobs, model).model_copy(update={"name": f"{model.name}-{lane}", "lane": lane.value})
            old.jobs.announce(info)
    many(image_root, 12)
    work_off(old, submit_ingest(old, NAME, metadata={"album": "spring"}))
    yield old, new
    if NAME in [record.name for record in old.vectors.collections()]:
        old.vectors.drop(NAME)


def _noting(context: Context) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    engine = engine_of(context)

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        engine.before()
        engine.seen.append(len(images))
        return brightness(images)

    return embed


def reembed(context: Context, **options: object) -> str:
    source = CollectionSource(collection=NAME, model=MODEL.fingerprint, **options)  # type: ignore[arg-type]
    context.vectors.add_model(NAME, NEW)
    request = IngestRequest(collection=NAME, source=source, model=NEW.fingerprint, sync=True)
    return context.jobs.create(JobKind.INGEST, request)[0].id


def ask(context: Context, image_root: Path, *, model: str | None = None) -> str:
    query = Query(path=str(image_root / "p00.png"))
    return context.jobs.create(JobKind.SEARCH, SearchRequest(collection=NAME, queries=(query,), model=model))[0].id


def answered(workers: tuple[Context, Context], job_id: str) -> SearchResult:
    """Ring both workers as a bell in a queue of theirs would, the wrong one first."""
    for context in (workers[1], workers[0], workers[1]):
        SearchLane(context).ring()
    record = workers[0].jobs.get(job_id)
    assert (record.state, record.error) == (JobState.SUCCEEDED, None)
    return SearchResult.model_validate(record.result)


def best(result: SearchResult) -> str:
    assert result.collection == NAME
    return result.queries[0].hits[0].name


def address() -> str:
    return physical_name(NAME, NEW.fingerprint)


def test_search_never_fails_while_another_model_is_filled_compared_switched_to_and_rolled_back(
    workers: tuple[Context, Context], image_root: Path
) -> None:
    old, new = workers
    job_id = reembed(old)
    lanes = [IngestLane(context, lambda: False) for context in workers]
    served = 0
    while not (record := old.jobs.get(job_id)).state.final:
        for lane in lanes:
            lane.ring()
        assert best(result := answered(workers, ask(old, image_root))) == "p00.png"
        assert result.model == MODEL
        served += 1
        assert served < 30
    assert (record.state, counts(record)) == (JobState.SUCCEEDED, {"added": 12})
    assert sum(engine_of(new).seen) >= 12
    rows = {where: old.vectors.matching(where, after=None, limit=20) for where in (NAME, address())}
    told = {where: [(row.id, row.uri, row.name, row.metadata) for row in found] for where, found in rows.items()}
    assert told[NAME] == told[address()]
    record_of = old.vectors.counted(old.vectors.collection(NAME))
    assert [(one.state, one.count) for one in record_of.models] == [(ModelState.SERVING, 12), (ModelState.SHADOW, 12)]

    aside = answered(workers, ask(old, image_root, model=NEW.fingerprint))
    assert (best(aside), aside.model) == ("p00.png", NEW)
    waiting = ask(old, image_root)
    old.vectors.switch(NAME, NEW.fingerprint)
    assert answered(workers, waiting).model == NEW, "asked before the switch, and answered by what serves after it"
    old.vectors.switch(NAME, MODEL.fingerprint)
    assert best(back := answered(workers, ask(old, image_root))) == "p00.png"
    assert back.model == MODEL
    for lane in lanes:
        lane.close()


def finished(workers: tuple[Context, Context], job_id: str) -> JobRecord:
    return work_off(workers[1], job_id)


def test_a_second_run_embeds_what_is_missing_removes_what_is_gone_and_switches(
    workers: tuple[Context, Context], image_root: Path
) -> None:
    old, new = workers
    finished(workers, reembed(old))
    embedded = sum(engine_of(new).seen)
    old.vectors.delete(NAME, [old.vectors.matching(NAME, after=None, limit=1)[0].id])
    draw(image_root, late=77)
    work_off(old, submit_ingest(old, NAME))
    record = finished(workers, reembed(old, switch=True))
    assert counts(record) == {"added": 2, "unchanged": 11}, "the one deleted came back with the ingest"
    assert sum(engine_of(new).seen) == embedded + 2
    collection = old.vectors.collection(NAME)
    assert (collection.model, old.vectors.count(NAME)) == (NEW, 13)
    assert best(answered(workers, ask(old, image_root))) == "p00.png"


def test_what_is_deleted_while_it_is_embedded_is_gone_with_both_models(
    workers: tuple[Context, Context], image_root: Path
) -> None:
    old, new = workers
    (row,) = [one for one in old.vectors.matching(NAME, after=None, limit=20) if one.name == "p00.png"]
    after_batches(new, 0, lambda: old.vectors.delete(NAME, [row.id]))
    record = finished(workers, reembed(old))
    assert counts(record) == {"added": 12, "removed": 1}
    assert row.id not in old.vectors.known(address(), [row.id])
    assert image_root


def test_files_that_are_gone_are_in_the_ledger_and_keep_the_old_model_serving(
    workers: tuple[Context, Context], image_root: Path
) -> None:
    old, _ = workers
    (image_root / "p03.png").unlink()
    record = finished(workers, reembed(old, switch=True))
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "reembedding_incomplete")
    assert [line.uri for line in old.jobs.failures(record.id).failures] == [file_uri(image_root / "p03.png")]
    assert old.vectors.collection(NAME).model == MODEL
    record = finished(workers, reembed(old, switch=True, allow_missing=True))
    assert (record.state, record.progress.failed) == (JobState.SUCCEEDED, 1)
    assert old.vectors.collection(NAME).model == NEW


def test_an_ingest_that_a_worker_of_another_model_claims_is_handed_over(
    workers: tuple[Context, Context], image_root: Path
) -> None:
    old, new = workers
    draw(image_root, late=78)
    job_id = submit_ingest(old, NAME)
    lane = IngestLane(new, lambda: False)
    for _ in range(3):
        lane.ring()
    lane.close()
    assert old.jobs.get(job_id).model == MODEL.fingerprint
    assert counts(work_off(old, job_id)) == {"added": 1, "unchanged": 12}
    assert old.vectors.count(NAME) == 13


def test_a_ring_for_work_of_others_is_passed_on_to_them_once(
    workers: tuple[Context, Context], image_root: Path, redis_url: str
) -> None:
    old, new = workers
    ask(old, image_root, model=MODEL.fingerprint)
    with redis.Redis.from_url(redis_url) as client:
        for _ in range(2):
            SearchLane(new).ring()
            assert client.llen(f"search.{MODEL.fingerprint[:12]}") == 1
