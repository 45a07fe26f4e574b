"""Which request and which result each kind of job has."""

from collections.abc import Mapping
from typing import Final

from lookalike.records.base import Record
from lookalike.records.bulk import BulkSearchRequest, BulkSearchResult
from lookalike.records.duplicates import DuplicatesRequest, DuplicatesResult
from lookalike.records.evaluations import (
    EvaluationRequest,
    EvaluationResult,
    MapRequest,
    MapResult,
    ReindexRequest,
    ReindexResult,
)
from lookalike.records.exports import ExportRequest, ExportResult, ImportRequest, ImportResult
from lookalike.records.jobs import JobKind
from lookalike.records.requests import IngestRequest
from lookalike.records.searches import SearchRequest
from lookalike.records.steps import DeletionRequest, DeletionResult, StepRequest

Request = IngestRequest | SearchRequest | StepRequest

STEP_REQUESTS: Final[Mapping[JobKind, type[StepRequest]]] = {
    JobKind.DELETION: DeletionRequest,
    JobKind.DUPLICATES: DuplicatesRequest,
    JobKind.EVALUATION: EvaluationRequest,
    JobKind.MAP: MapRequest,
    JobKind.REINDEX: ReindexRequest,
    JobKind.EXPORT: ExportRequest,
    JobKind.IMPORT: ImportRequest,
    JobKind.BULK_SEARCH: BulkSearchRequest,
}

STEP_RESULTS: Final[Mapping[JobKind, type[Record]]] = {
    JobKind.DELETION: DeletionResult,
    JobKind.DUPLICATES: DuplicatesResult,
    JobKind.EVALUATION: EvaluationResult,
    JobKind.MAP: MapResult,
    JobKind.REINDEX: ReindexResult,
    JobKind.EXPORT: ExportResult,
    JobKind.IMPORT: ImportResult,
    JobKind.BULK_SEARCH: BulkSearchResult,
}
