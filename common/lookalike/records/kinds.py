"""Which request and which result each kind of job has."""

from collections.abc import Mapping
from typing import Final

from lookalike.records.base import Record
from lookalike.records.jobs import JobKind
from lookalike.records.requests import IngestRequest, SearchRequest
from lookalike.records.steps import DeletionRequest, DeletionResult, StepRequest

Request = IngestRequest | SearchRequest | StepRequest

STEP_REQUESTS: Final[Mapping[JobKind, type[StepRequest]]] = {JobKind.DELETION: DeletionRequest}

STEP_RESULTS: Final[Mapping[JobKind, type[Record]]] = {JobKind.DELETION: DeletionResult}
