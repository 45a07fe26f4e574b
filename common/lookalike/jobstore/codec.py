"""How jobs are written down: between the strings a store keeps and the records it hands out."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from lookalike.errors import InvalidParameter
from lookalike.jobstore.base import IngestItem
from lookalike.records import Failure, IngestRequest, JobError, JobKind, JobRecord, JobState, Progress, SearchRequest

#: 128 bits in Crockford's base 32, of which the first digit has three.
_ULID: Final = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")


def request_json(request: IngestRequest | SearchRequest) -> str:
    """Write a request down, without the fields that say nothing."""
    return request.model_dump_json(exclude_none=True)


def items_json(items: Sequence[IngestItem]) -> str:
    """Write a chunk's files down, or the empty string where there are none."""
    return json.dumps([[item.uri, item.name] for item in items]) if items else ""


def items_of(text: str) -> tuple[IngestItem, ...]:
    """Read a chunk's files."""
    return tuple(IngestItem(uri=uri, name=name) for uri, name in json.loads(text))


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
        created_at=moment(fields["created_at"]),
        started_at=moment(fields["started_at"]) if "started_at" in fields else None,
        finished_at=moment(fields["finished_at"]) if "finished_at" in fields else None,
        cancel_requested=fields.get("cancel") == "1",
        progress=_progress(state, fields, samples),
        request=json.loads(fields["request"]),
        result=_json_or_none(fields.get("result")),
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
    )


def summary_of(job_id: str, fields: Mapping[str, str]) -> JobRecord:
    """Make the record of a job for a list: a page of whole results and requests could be of any size."""
    return shortened(record_of(job_id, {**fields, "result": ""}, ()))


def shortened(record: JobRecord) -> JobRecord:
    """Leave out of a record what grows with its job: its result, its queries, its uploaded files."""
    request = {name: value for name, value in record.request.items() if name != "queries"}
    if "source" in request:
        request["source"] = {name: value for name, value in request["source"].items() if name != "files"}
    return record.model_copy(update={"result": None, "request": request})


def _json_or_none(text: str | None) -> dict[str, Any] | None:
    return json.loads(text) if text else None


def _progress(state: JobState, fields: Mapping[str, str], samples: Sequence[str]) -> Progress:
    stored, unchanged, failed = (int(fields.get(name, 0)) for name in ("stored", "unchanged", "failed"))
    total = int(fields["total"]) if "total" in fields else None
    if fields["kind"] == JobKind.SEARCH:
        # Of a search that failed as a whole nothing is answered, and all queries are done with.
        return Progress(total=total, done=max(int(fields.get("answered", 0)), failed), failed=failed)
    done = stored + unchanged + failed
    rate = _rate(state, fields, samples, done)
    remaining = None if total is None or state.final else total - done
    return Progress(
        total=total,
        done=done,
        stored=stored,
        unchanged=unchanged,
        failed=failed,
        images_per_s=None if rate is None else round(rate, 1),
        eta_s=round(remaining / rate, 1) if rate and remaining is not None else None,
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
