"""What the tests of the job stores share: short limits, requests, and the first steps of a job."""

from collections.abc import Callable
from dataclasses import replace

from lookalike.jobstore import ChunkClaim, IngestItem, JobStore, Limits, PlanClaim, Receipt
from lookalike.records import (
    Failure,
    FolderSource,
    IngestRequest,
    JobError,
    JobKind,
    JobRecord,
    Query,
    SearchRequest,
    Stage,
)

LIMITS = Limits(
    lease_s=0.5,
    search_lease_s=0.5,
    max_attempts=3,
    lookahead_chunks=4,
    max_waiting_jobs=50,
    max_waiting_bytes=64 << 20,
    max_failures=5,
    max_failures_bytes=1 << 20,
    result_ttl_s=60,
    tombstone_ttl_s=60,
    heartbeat_ttl_s=0.5,
)
LASTING = replace(LIMITS, lease_s=60, search_lease_s=60)
PAST_LEASE_S = 0.65
FOLDER = IngestRequest(source=FolderSource(path="photos"))
Make = Callable[[Limits], JobStore]
PROBLEM = JobError(code="quarantined", message="It died.")


def search_of(queries: int = 1) -> SearchRequest:
    return SearchRequest(queries=tuple(Query(image_id=f"{number:032x}") for number in range(queries)))


def items(*names: str) -> list[IngestItem]:
    return [IngestItem(uri=f"file:///photos/{name}", name=name) for name in names]


def failure(name: str = "bad.jpg") -> Failure:
    return Failure(uri=f"file:///photos/{name}", code="image_corrupt", message="Broken.", stage=Stage.DECODE)


def submit(store: JobStore, request: IngestRequest = FOLDER) -> JobRecord:
    return store.create(JobKind.INGEST, request)[0]


def claim_plan(store: JobStore) -> PlanClaim:
    claim = store.claim_ingest()
    assert isinstance(claim, PlanClaim)
    return claim


def claim_chunk(store: JobStore) -> ChunkClaim:
    claim = store.claim_ingest()
    assert isinstance(claim, ChunkClaim)
    return claim


def planned(store: JobStore, *chunks: list[IngestItem], request: IngestRequest = FOLDER) -> JobRecord:
    """A job whose listing is finished, with these chunks waiting."""
    job = submit(store, request)
    plan = claim_plan(store)
    for number, chunk in enumerate(chunks):
        assert store.add_chunk(plan, chunk, cursor=str(number)) is not None
    assert store.end_plan(plan, finished=True) is (Receipt.ACCEPTED if chunks else Receipt.FINISHED)
    return job


def answer(queries: int = 1) -> dict[str, object]:
    return {"queries": [{"error": None} for _ in range(queries)]}
