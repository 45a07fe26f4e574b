"""Remote sources, and what an ingest waits for: a source, the job store, the vector store."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest_parts import after_batches, counts, engine_of, ingest, many, picture, submit, work_off
from lookalike.errors import MissingExtra, QueueUnavailable, SourceUnavailable, URLHTTPError
from lookalike.jobstore import PlanClaim
from lookalike.listing import Lister
from lookalike.records import JobError, JobState, URLsSource, WaitingFor
from lookalike.remote import Fetched
from lookalike.roots import file_uri, image_id
from lookalike_worker import keeping, lanes
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane
from ports import free_port
from redis_server import start_redis, valkey_binary

Make = Callable[..., Context]

pytestmark = pytest.mark.usefixtures("keen_keepers")


# --- What holds a job up --------------------------------------------------------------------------------------------


class Addresses:
    """A remote whose answers are chosen: by URI, the bytes and the tag, or an error."""

    def __init__(self, folder: Path, answers: dict[str, tuple[bytes, str] | Exception]) -> None:
        self.folder = folder
        self.answers = answers
        self.fetched: list[str] = []

    def is_remote(self, uri: str) -> bool:
        return uri.startswith("https:")

    def check_url(self, url: str) -> str:
        return url

    def close(self) -> None:
        pass

    def fetch(self, uri: str, *, etag: str = "", mtime_ns: int = 0) -> Future[Fetched]:
        future: Future[Fetched] = Future()
        answer = self.answers[uri]
        if isinstance(answer, Exception):
            future.set_exception(answer)
            return future
        content, tag = answer
        if etag and etag == tag:
            future.set_result(Fetched(uri="", size=0, mtime_ns=mtime_ns, etag=tag, not_modified=True))
            return future
        self.fetched.append(uri)
        place = self.folder / f"{image_id(uri)}.png"
        place.write_bytes(content)
        future.set_result(Fetched(uri=file_uri(place), size=len(content), mtime_ns=7, etag=tag))
        return future


def with_addresses(context: Context, root: Path, answers: dict[str, Any]) -> tuple[Context, Addresses]:
    """A worker whose remote files are these; their copies lie in the root, where the decoders may read."""
    remote = Addresses(root, answers)
    lister = Lister(context.sources.roots, context.sources.uploads, remote, context.jobs)  # type: ignore[arg-type]
    return replace(context, remote=remote, lister=lister), remote  # type: ignore[arg-type]


A, B = "https://example.org/a.png", "https://example.org/b.png"


def test_a_remote_file_is_fetched_again_only_when_its_server_says_it_changed(
    make_worker: Make, image_root: Path
) -> None:
    answers: dict[str, Any] = {A: (picture(1), '"one"'), B: (picture(2), '"two"')}
    context, remote = with_addresses(make_worker(), image_root, answers)
    source = URLsSource(urls=(A, B))
    assert counts(ingest(context, "remote", source=source)) == {"added": 2}
    stored = context.vectors.known("remote", [image_id(A)])[image_id(A)]
    assert (stored.uri, stored.etag, stored.mtime_ns) == (A, '"one"', 7)
    remote.fetched.clear()

    answers[B] = (picture(3), '"three"')
    assert counts(ingest(context, "remote", source=source)) == {"unchanged": 1, "changed": 1}
    assert remote.fetched == [B]

    answers[A] = (picture(1), '"another tag, the same picture"')
    assert counts(ingest(context, "remote", source=source)) == {"unchanged": 2}
    assert context.vectors.known("remote", [image_id(A)])[image_id(A)].etag == '"another tag, the same picture"'


def test_a_store_that_is_slow_to_say_what_is_there_does_not_cost_the_lease(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(image_root, 8)
    context = make_worker(lease_s=0.5)
    ingest(context, "slow")
    for path in sorted(image_root.glob("*.png")):
        path.rename(path.with_name(f"moved-{path.name}"))
    exists, lapsed = context.lister.exists, []

    def slow(uri: str) -> bool:
        time.sleep(0.1)
        lapsed.append(context.jobs.sweep().lapsed)
        return exists(uri)

    monkeypatch.setattr(context.lister, "exists", slow)
    assert counts(ingest(context, "slow", sync=True)) == {"moved": 8}
    assert sum(lapsed) == 0


def test_an_address_that_fails_costs_itself(make_worker: Make, image_root: Path) -> None:
    answers: dict[str, Any] = {A: URLHTTPError(), B: (picture(2), "")}
    context, _ = with_addresses(make_worker(), image_root, answers)
    record = ingest(context, "refused", source=URLsSource(urls=(A, B)))
    assert counts(record) == {"added": 1, "failed": 1}
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.code, failure.stage) == ("url_http_error", "read")


def test_what_is_not_installed_ends_the_job_with_its_own_sentence(make_worker: Make, image_root: Path) -> None:
    context, _ = with_addresses(make_worker(), image_root, {A: MissingExtra("Install lookalike[s3].")})
    record = ingest(context, "extras", source=URLsSource(urls=(A,)))
    assert record.error == JobError(code="missing_extra", message="Install lookalike[s3].")


def test_a_source_that_is_away_is_waited_for_without_burning_attempts(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_PAUSE_S", 0.0)
    answers: dict[str, Any] = {A: (picture(1), ""), B: SourceUnavailable()}
    context, _ = with_addresses(make_worker(), image_root, answers)
    job_id = submit(context, "away", source=URLsSource(urls=(A, B)))
    lane = IngestLane(context, stopping=lambda: False)
    for _ in range(context.settings.max_attempts + 3):
        lane.ring()
        context.jobs.sweep()
    held = context.jobs.get(job_id)
    assert (held.state, held.waiting_for) == (JobState.RUNNING, WaitingFor.SOURCE)
    answers[B] = (picture(2), "")
    record = work_off(context, job_id, lane=lane)
    assert (counts(record), record.waiting_for) == ({"added": 2}, None)
    lane.close()


def test_a_chunk_outlasts_a_job_store_that_is_away_for_less_than_its_lease(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_EVERY_S", 0.05)
    many(image_root, 8)
    context = make_worker(lease_s=30)
    job_id = submit(context, "outage")
    lane = IngestLane(context, stopping=lambda: False)
    lane.ring()
    gone = threading.Event()
    account, renew = context.jobs.account, context.jobs.renew

    def unless_gone(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if gone.is_set():
                raise QueueUnavailable
            return call(*args, **kwargs)

        return guarded

    monkeypatch.setattr(context.jobs, "account", unless_gone(account))
    monkeypatch.setattr(context.jobs, "renew", unless_gone(renew))
    gone.set()
    threading.Timer(0.5, gone.clear).start()
    lane.ring()
    assert counts(context.jobs.get(job_id)) == {"added": 8}
    assert sum(engine_of(context).seen) == 8
    lane.close()


@pytest.mark.parametrize("at", ["plan", "chunk"])
def test_work_goes_on_within_seconds_of_a_redis_that_was_restarted(
    make_worker: Make, image_root: Path, tmp_path: Path, at: str
) -> None:
    """And not only once its lease has lapsed: that is a minute here."""
    many(image_root, 24)
    port, data = free_port(), tmp_path / "redis"
    data.mkdir()
    with ExitStack() as server:
        url = server.enter_context(start_redis(valkey_binary(), data, port=port))
        context = make_worker(redis_url=SecretStr(url), lease_s=60, lookahead_chunks=1)
        job_id = submit(context, f"restarted_{at}")
        began: list[float] = []

        def restart() -> None:
            server.close()
            began.append(time.monotonic())
            threading.Timer(1.0, lambda: server.enter_context(start_redis(valkey_binary(), data, port=port))).start()

        if at == "chunk":
            after_batches(context, 1, restart)
            worker = context
        else:
            worker = replace(context, crash=At("after_plan_chunk", restart))  # type: ignore[arg-type]
        lane = IngestLane(worker, stopping=lambda: False)
        for _ in range(40):
            lane.ring()
            if began and time.monotonic() - began[0] > 1.5:
                context.jobs.sweep()
                if context.jobs.get(job_id).state.final:
                    break
        took_s = time.monotonic() - began[0]
        assert counts(context.jobs.get(job_id)) == {"added": 24}
        assert took_s < 60
        assert sum(engine_of(context).seen) == 24
        lane.close()


class At:
    """Crash points that do something else, once."""

    def __init__(self, point: str, act: Callable[[], None]) -> None:
        self.point: str | None = point
        self.act = act

    def reach(self, point: str) -> None:
        if point == self.point:
            self.point = None
            self.act()


def test_a_planner_that_is_cut_off_from_the_collection_waits(make_worker: Make, image_root: Path) -> None:
    many(image_root, 2)
    context = make_worker(milvus_uri="http://127.0.0.1:1")
    job_id = submit(context, "cutoff")
    IngestLane(context, stopping=lambda: False).ring()
    assert context.jobs.get(job_id).waiting_for is WaitingFor.VECTOR_STORE
    context.jobs.sweep()
    claim = context.jobs.claim_ingest()
    assert claim is None or (isinstance(claim, PlanClaim) and claim.attempts == 1)


def test_a_worker_that_alone_is_cut_off_leaves_the_work_to_the_others(make_worker: Make, image_root: Path) -> None:
    many(image_root, 2)
    healthy, cut_off = make_worker(), make_worker(milvus_uri="http://127.0.0.1:1")
    job_id = submit(healthy, "shared")
    lonely = IngestLane(cut_off, stopping=lambda: False)
    lonely.ring()
    healthy.jobs.sweep()
    lonely.ring()
    assert healthy.jobs.get(job_id).waiting_for is WaitingFor.VECTOR_STORE
    # The work is to be had again soon, and the cut-off worker takes none of it however often it is rung.
    record = work_off(healthy, job_id)
    lonely.ring()
    assert (record.state, record.progress.stored) == (JobState.SUCCEEDED, 2)
    other = submit(healthy, "shared")
    lonely.ring()
    assert healthy.jobs.get(other).state is JobState.QUEUED
    lonely.close()
