"""What an ingest comes to, put together from the jobs it was made of."""

from collections.abc import Iterable, Sequence

from lookalike.records import Failure, IngestResult, JobRecord, ModelInfo, Progress, Record


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
    stored = sum(part.stored for part in parts)
    unchanged = sum(part.unchanged for part in parts)
    failed = sum(part.failed for part in parts) + unsent
    done = stored + unchanged + failed
    images_per_s = done / elapsed_s if done and elapsed_s > 0 else None
    return Progress(
        total=total,
        done=done,
        stored=stored,
        unchanged=unchanged,
        failed=failed,
        images_per_s=images_per_s,
        eta_s=(total - done) / images_per_s if total is not None and images_per_s else None,
    )


def _elapsed_s(records: Sequence[JobRecord]) -> float:
    ends = [record.finished_at for record in records if record.finished_at]
    starts = [record.started_at or record.created_at for record in records]
    return (max(ends) - min(starts)).total_seconds() if ends else 0.0
