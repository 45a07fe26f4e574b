"""Requests of the jobs that are done in steps, and their results."""

from pydantic import Field

from lookalike.records.base import CollectionName, Record
from lookalike.records.requests import Filter, Webhook


class StepRequest(Record):
    """What the requests of all these jobs have."""

    collection: CollectionName = "default"
    webhook: Webhook | None = None


class DeletionRequest(StepRequest):
    """Body of `POST /v1/deletions`."""

    filter: Filter  #: A Milvus expression; what it matches is deleted. The image files stay where they are.
    dry_run: bool = False  #: Delete nothing: the result says what would be.


class DeletionResult(Record):
    """Result of a deletion."""

    collection: str
    dry_run: bool
    matched: int = Field(ge=0)  #: Images that the filter matched.
    deleted: int = Field(ge=0)  #: Those of them that were deleted; none in a dry run.
