"""The failures ledger as a stream: page by page from the store, line by line to the client."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Final

from lookalike.jobstore import JobStore
from lookalike.records import Failure, FailurePage
from lookalike.spreadsheet import cell

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"


def pages(jobs: JobStore, job_id: str, *, page_lines: int) -> Iterator[FailurePage]:
    """Read a ledger to its end, as it stands when each page is read."""
    page = jobs.failures(job_id, limit=page_lines)
    yield page
    while page.next_cursor is not None:
        page = jobs.failures(job_id, cursor=page.next_cursor, limit=page_lines)
        yield page


def ndjson_lines(found: Iterable[FailurePage]) -> Iterator[str]:
    """Write a page at a time, an object per line."""
    for page in found:
        yield "".join(f"{failure.model_dump_json()}\n" for failure in page.failures)


def csv_lines(found: Iterable[FailurePage]) -> Iterator[str]:
    """Write a page at a time, after a line of column names."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(Failure.model_fields)
    for page in found:
        for failure in page.failures:
            writer.writerow(cell(value) for value in failure.model_dump(mode="json").values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
