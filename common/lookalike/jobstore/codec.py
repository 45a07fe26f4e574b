"""How jobs are written down: between the strings a store keeps and the records it hands out."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from lookalike.errors import InvalidParameter
from lookalike.jobstore.base import Change, ChunkClaim, ChunkOutcome, IngestItem, Phase, PlanClaim, Planned, Step
from lookalike.records import (
    BulkSearchRequest,
    Failure,
    IngestRequest,
    JobError,
    JobKind,
    JobRecord,
    JobState,
    Priority,
    Progress,
    Request,
    SearchRequest,
    Stage,
    StageTimes,
    WaitingFor,
    WebhookState,
    WorkerInfo,
)

#: 128 bits in Crockford's base 32, of which the first digit has three.
_ULID: Final = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")
#: How far a claim moves a job back among its peers: shares of the workers are as the inverse.
STRIDES: Final = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}
SAMPLES: Final = 20  #: Of the counts, from which the rate is told.
#: How requests, chunks and ledgers name an upload. What only looks like one keeps a file longer than need be, no more.
_UPLOAD: Final = re.compile(r'"sha256": ?"([0-9a-f]{64})"|upload:([0-9a-f]{64})')
_FAILED_WITH: Final = "code:"  # Begins the field that counts the failures of one code.
_STAGES: Final = (Stage.READ, Stage.DECODE, Stage.EMBED, Stage.STORE)


def request_json(request: Request) -> str:
    """Write a request down, without the fields that say nothing."""
    return request.model_dump_json(exclude_none=True)


def first_fields(request: Request, owner: str | None = None) -> dict[str, str | int]:
    """What a job's hash holds from the first: its owner, and of its request what the scripts go by."""
    fields: dict[str, str | int] = {"webhook": request.webhook.url} if request.webhook else {}
    if owner is not None:
        fields["owner"] = owner
    if isinstance(request, IngestRequest | SearchRequest | BulkSearchRequest) and request.model is not None:
        fields["model"] = request.model
    if not isinstance(request, IngestRequest | SearchRequest):
        return fields | {"stride": STRIDES[Priority.NORMAL]}
    if isinstance(request, SearchRequest):
        return fields | {"total": len(request.queries)}
    return fields | {"stride": STRIDES[request.priority]} | ({"sync": "1"} if request.sync else {})


def first_record(
    job_id: str, kind: JobKind, request: str, fields: Mapping[str, str | int], *, created_ms: int, position: int | None
) -> JobRecord:
    """Make the record of a job as it is created, of its request as JSON and its `first_fields`."""
    first = {"kind": kind, "state": JobState.QUEUED, "created_at": created_ms, "version": 1, "request": request}
    told = {name: str(value) for name, value in {**first, **fields}.items()}
    return placed(record_of(job_id, told, ()), position)


def items_json(items: Sequence[IngestItem]) -> str:
    """Write a chunk's files down without the defaults at their ends, or the empty string where there are none."""
    return json.dumps([_parts(item) for item in items], separators=(",", ":")) if items else ""


def _parts(item: IngestItem) -> list[Any]:
    if item.metadata:
        return [item.uri, item.name, item.change, item.metadata]
    return [item.uri, item.name] if item.change is Change.ADDED else [item.uri, item.name, item.change]


def items_of(text: str) -> tuple[IngestItem, ...]:
    """Read a chunk's files."""
    return tuple(_item(*parts) for parts in json.loads(text))


def _item(uri: str, name: str, change: str = Change.ADDED, metadata: Mapping[str, Any] | None = None) -> IngestItem:
    return IngestItem(uri=uri, name=name, change=Change(change), metadata=dict(metadata or {}))


def uploads_in(text: str) -> Iterator[str]:
    """The SHA-256 of each upload that a request, a chunk or a ledger's line names."""
    return (first or second for first, second in _UPLOAD.findall(text))


def planned_counts(claim: PlanClaim, items: Sequence[IngestItem], planned: Planned) -> dict[str, int]:
    """What a planned chunk adds to a job's counts; zeros left out."""
    counts = {
        "added": planned.added,
        "changed": planned.changed,
        "moved": planned.moved,
        "unchanged": planned.unchanged,
    }
    listed = sum(item.change is not Change.REMOVED for item in items) + sum(counts.values()) + len(planned.failures)
    counts |= {"removed": planned.removed, "listed": listed, **_failure_counts(planned.failures)}
    counts["foreseen"] = planned.foreseen
    if claim.phase is Phase.PRUNE:
        counts["total"] = listed  # The listing had ended: what it did not know of makes the total larger.
    return _told(counts)


def outcome_counts(claim: ChunkClaim, outcome: ChunkOutcome) -> dict[str, int]:
    """What a chunk's outcome adds to a job's counts; zeros left out."""
    removals = {item.uri for item in claim.items if item.change is Change.REMOVED}
    # A removal is no part of the total until it fails, and then counts as any failed file does.
    unlisted = sum(failure.uri in removals for failure in outcome.failures) if removals else 0
    names = ("added", "changed", "moved", "duplicates", "unchanged", "removed")
    return _told(
        {name: getattr(outcome, name) for name in names}
        | {f"{stage}_ms": outcome.stage_ms.get(stage, 0) for stage in _STAGES}
        | {"listed": unlisted, "total": unlisted}
        | _failure_counts(outcome.failures)
    )


def step_counts(step: Step) -> dict[str, int]:
    """What a step adds to a job's counts; zeros left out."""
    return _told({"processed": step.processed, **_failure_counts(step.failures)})


def _failure_counts(failures: Sequence[Failure]) -> dict[str, int]:
    by_code = Counter(_FAILED_WITH + failure.code for failure in failures)
    return {"failed": len(failures), **by_code}


def _told(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """Write failures down, a line each."""
    return [failure.model_dump_json() for failure in failures]


def cursor_position(cursor: str | None) -> int:
    """Read the cursor of a ledger page; raises `InvalidParameter`."""
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise InvalidParameter("The cursor is not one that a page of this ledger gave.")
    return int(cursor)


def job_cursor(cursor: str | None) -> str | None:
    """Check the cursor of a page of jobs, which is the id of the last one on it; raises `InvalidParameter`."""
    if cursor is not None and not _ULID.fullmatch(cursor):
        raise InvalidParameter("The cursor is not one that a page of jobs gave.")
    return cursor


def moment(milliseconds: str | int) -> datetime:
    """Turn the store's milliseconds into a time with its zone."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def record_of(job_id: str, fields: Mapping[str, str], samples: Sequence[str]) -> JobRecord:
    """Make the record of a job from its fields and the "milliseconds:done" samples of its last chunks."""
    state = JobState(fields["state"])
    return JobRecord(
        id=job_id,
        kind=JobKind(fields["kind"]),
        state=state,
        owner=fields.get("owner"),
        model=fields.get("model"),
        created_at=moment(fields["created_at"]),
        started_at=moment(fields["started_at"]) if "started_at" in fields else None,
        finished_at=moment(fields["finished_at"]) if "finished_at" in fields else None,
        cancel_requested=fields.get("cancel") == "1",
        paused=fields.get("paused") == "1",
        waiting_for=_waiting_for(state, fields),
        version=int(fields.get("version", 0)),
        progress=_progress(state, fields, samples),
        request=json.loads(fields["request"]),
        result=_json_or_none(fields.get("result")),
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
        failure_counts={
            name.removeprefix(_FAILED_WITH): int(fields[name])
            for name in sorted(fields)
            if name.startswith(_FAILED_WITH)
        },
        failures_dropped=int(fields.get("dropped", 0)),
        webhook=_webhook(fields),
    )


def placed(record: JobRecord, position: int | None) -> JobRecord:
    """Say in a queued job's record how many come before it."""
    return record.model_copy(update={"progress": record.progress.model_copy(update={"position": position})})


def without_workers(record: JobRecord, workers: Sequence[WorkerInfo]) -> JobRecord:
    """Say in a job's record where it waits for a model that no live worker of its lane has."""
    if record.model is None or record.state.final:
        return record
    lane = "search" if record.kind is JobKind.SEARCH else "ingest"
    if any(worker.lane == lane and worker.model.fingerprint == record.model for worker in workers):
        return record
    return record.model_copy(update={"waiting_for": WaitingFor.MODEL})


def _waiting_for(state: JobState, fields: Mapping[str, str]) -> WaitingFor | None:
    return WaitingFor(fields["waiting_for"]) if state is JobState.RUNNING and "waiting_for" in fields else None


def _webhook(fields: Mapping[str, str]) -> WebhookState | None:
    if "webhook" not in fields:
        return None
    state = fields.get("webhook_state", "waiting")
    told = {"state": state, "attempts": fields.get("webhook_attempts", 0), "error": fields.get("webhook_error")}
    return WebhookState.model_validate(told)


def summary_of(job_id: str, fields: Mapping[str, str]) -> JobRecord:
    """Make the record of a job for a list: a page of whole results and requests could be of any size."""
    return shortened(record_of(job_id, {**fields, "result": ""}, ()))


def shortened(record: JobRecord) -> JobRecord:
    """Leave out of a record what grows with its job: its result, its queries, its uploaded files and addresses."""
    request = {name: value for name, value in record.request.items() if name not in {"queries", "uploads"}}
    if "source" in request:
        request["source"] = {name: value for name, value in request["source"].items() if name not in {"files", "urls"}}
    return record.model_copy(update={"result": None, "request": request})


def _json_or_none(text: str | None) -> dict[str, Any] | None:
    return json.loads(text) if text else None


def _progress(state: JobState, fields: Mapping[str, str], samples: Sequence[str]) -> Progress:
    names = ("added", "changed", "moved", "duplicates", "unchanged", "failed", "removed")
    counts = {name: int(fields.get(name, 0)) for name in names}
    total = int(fields["total"]) if "total" in fields else None
    if fields["kind"] == JobKind.SEARCH:
        # Of a search that failed as a whole nothing is answered, and all queries are done with.
        failed = counts["failed"]
        return Progress(total=total, done=max(int(fields.get("answered", 0)), failed), failed=failed)
    if JobKind(fields["kind"]).in_steps:
        done = int(fields.get("processed", 0)) + counts["failed"]
        rate = _rate(state, fields, samples, done)
        return Progress(
            total=total,
            done=done,
            failed=counts["failed"],
            images_per_s=None if rate is None else round(rate, 1),
            eta_s=None if state.final or total is None or not rate else round(max(0, total - done) / rate, 1),
        )
    stored = counts["added"] + counts["changed"] + counts["moved"]
    done = stored + counts["unchanged"] + counts["failed"]
    rate = _rate(state, fields, samples, done)
    # Before the listing has ended, what was foreseen has to do; a folder that grew beyond it cannot be told of.
    expected = int(fields.get("foreseen", 0)) if total is None else total
    remaining = None if state.final or (total is None and expected <= done) else max(0, expected - done)
    return Progress(
        total=total,
        done=done,
        stored=stored,
        **counts,
        images_per_s=None if rate is None else round(rate, 1),
        eta_s=round(remaining / rate, 1) if rate and remaining is not None else None,
        stages=StageTimes(**{f"{stage}_s": int(fields.get(f"{stage}_ms", 0)) / 1000 for stage in _STAGES}),
    )


def _rate(state: JobState, fields: Mapping[str, str], samples: Sequence[str], done: int) -> float | None:
    """Files per second: over the whole job once it is final, over the last chunks before."""
    if "started_at" not in fields:
        return None
    points = [(int(when), int(count)) for when, count in (sample.split(":") for sample in samples)]
    if state.final:
        first, last = (int(fields["started_at"]), 0), (int(fields["finished_at"]), done)
    elif len(points) < 2:
        first, last = (int(fields["started_at"]), 0), points[-1] if points else (0, 0)
    else:
        first, last = points[0], points[-1]
    elapsed_ms = last[0] - first[0]
    return 1000 * (last[1] - first[1]) / elapsed_ms if elapsed_ms > 0 and last[1] > first[1] else None
