"""Bulk searches: every image of a source is a query, and the answers are files."""

from typing import Annotated

from pydantic import Field

from lookalike.records.base import Record
from lookalike.records.collections import ModelInfo
from lookalike.records.metrics import Metric
from lookalike.records.results import BackgroundInfo
from lookalike.records.searches import HitTerms
from lookalike.records.sources import (
    ArchiveSource,
    FolderSource,
    ManifestSource,
    ObjectsSource,
    UploadSource,
    URLsSource,
)
from lookalike.records.steps import StepRequest

QuerySource = Annotated[
    FolderSource | UploadSource | ArchiveSource | ManifestSource | URLsSource | ObjectsSource,
    Field(discriminator="type"),
]


class BulkSearchRequest(HitTerms, StepRequest):
    """Body of `POST /v1/bulk-searches`."""

    source: QuerySource
    sheets: int = Field(4, ge=0, le=100)  #: Contact sheets at most, of 24 queries each; the files have all queries.


class BulkSearchResult(Record):
    """Result of a bulk search. The answers themselves are its files."""

    collection: str
    metric: Metric
    model: ModelInfo | None  #: Null while the collection is empty.
    background: BackgroundInfo | None = None  #: What `percentile` and `band` were told by.
    queries: int = Field(ge=0)  #: All of them: lines of `results.jsonl`.
    failed: int = Field(ge=0)  #: Those of them that have an `error` instead of hits.
    without_hits: int = Field(ge=0)  #: Those of them that were answered, and nothing was found.
    hits: int = Field(ge=0)
    sheets: int = Field(ge=0)  #: Contact sheets drawn.
    not_on_sheets: int = Field(ge=0)  #: Answered queries for which there was no room on them.
