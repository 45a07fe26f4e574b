"""Requests: what an ingest or a search is asked for."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from lookalike.records.base import CollectionName, Metadata, ModelName, Record
from lookalike.records.sources import SYNCABLE, URL, AnySource, CollectionSource

Filter = Annotated[str, StringConstraints(min_length=1, max_length=4096)]  #: A Milvus expression over images' fields.


class Priority(StrEnum):
    """How large a share of the workers an ingest gets while others run. None starves."""

    LOW = "low"
    NORMAL = "normal"  #: Four times the share of `low`.
    HIGH = "high"  #: Four times the share of `normal`.


class Webhook(Record):
    """Where the job's record is sent once it is final. The delivery is signed; docs/http-api.md says how."""

    url: URL


class IngestRequest(Record):
    """Body of `POST /v1/ingests`."""

    collection: CollectionName = "default"
    source: AnySource
    metadata: Metadata = Field(default_factory=dict)  #: Stored with every image; a manifest's or archive's own wins.
    label_from_folder: bool = False  #: Store the name of the folder an image lies in as its metadata field `label`.
    checksum: bool = False  #: Tell changed files by their content instead of by size and time.
    sync: bool = False  #: Also remove what is gone from the source, and recognise what was moved within it.
    dry_run: bool = False  #: Store nothing: the progress says what would be done.
    priority: Priority = Priority.NORMAL
    model: ModelName | None = None  #: Which of the collection's models is to embed; the serving one where left out.
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _sync_has_a_place(self) -> Self:
        if self.sync and not isinstance(self.source, (*SYNCABLE, CollectionSource)):
            raise ValueError("sync compares a collection with a place: its source has to be a folder or a prefix")
        return self
