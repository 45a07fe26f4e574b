"""What an ingest comes to, put together from the jobs it was made of."""

from collections.abc import Iterable, Sequence
from typing import Final

from lookalike.records import Failure, IngestResult, JobRecord, ModelInfo, Progress, Record, StageTimes

#: Counts of a job's progress that add up over several jobs.
_COUNTS: Final = ("stored", "added", "changed", "moved", "duplicates", "unchanged", "failed", "removed")


class IngestSummary(Record):
    """The outcome of an ingest: one job for a folder that the service reads, several for uploads."""

    collection: str | None = None  #: Null where no job was needed.
    model: ModelInfo | None = None  #: Null where no file was there to embed.
    progress: Progress  #: Over all jobs, and the files that could not be sent.
    failures: tuple[Failure, ...] = ()  #: Files that could not be used, each with a code and a sentence.
    jobs: tuple[JobRecord, ...] = ()


def summarise(records: Sequence[JobRecord], ledger: Sequence[Failure], *, unsent: int = 0) -> IngestSummary:
    """Put the final records of an ingest's jobs together; `unsent` files of the ledger belong to no job."""
    results = [IngestResult.model_validate(record.result, extra="ignore") for record in records if record.result]
    parts = [record.progress for record in records]
    return IngestSummary(
        collection=next((record.request.get("collection") for record in records), None),
        model=next((result.model for result in results if result.model), None),
        progress=combined(
            parts, unsent=unsent, total=sum(part.done for part in parts) + unsent, elapsed_s=_elapsed_s(records)
        ),
        failures=tuple(ledger),
        jobs=tuple(records),
    )


def combined(parts: Iterable[Progress], *, unsent: int, total: int | None, elapsed_s: float) -> Progress:
    """Add up the progress of several jobs; `unsent` files failed before they reached one."""
    parts = list(parts)
    sums = {name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
    sums["failed"] += unsent
    done = sums["stored"] + sums["unchanged"] + sums["failed"]
    images_per_s = done / elapsed_s if done and elapsed_s > 0 else None
    stages = [part.stages for part in parts if part.stages]
    return Progress(
        **sums,
        total=total,
        done=done,
        images_per_s=images_per_s,
        eta_s=(total - done) / images_per_s if total is not None and images_per_s else None,
        position=min((part.position for part in parts if part.position is not None), default=None),
        stages=StageTimes(**{name: sum(getattr(one, name) for one in stages) for name in StageTimes.model_fields})
        if stages
        else None,
    )


def _elapsed_s(records: Sequence[JobRecord]) -> float:
    ends = [record.finished_at for record in records if record.finished_at]
    starts = [record.started_at or record.created_at for record in records]
    return (max(ends) - min(starts)).total_seconds() if ends else 0.0
