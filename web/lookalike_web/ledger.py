"""The failures ledger as a stream: page by page from the store, line by line to the client."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Final

from lookalike.jobstore import JobStore
from lookalike.records import Failure, FailurePage

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"

#: A spreadsheet would take a cell that begins with one of these for a formula.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


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
            writer.writerow(_cell(value) for value in failure.model_dump(mode="json").values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
