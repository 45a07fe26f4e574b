"""Exports and imports: collections as files, and files as collections."""

from enum import StrEnum
from typing import Final, Self

from pydantic import Field, model_validator

from lookalike.records.base import Record
from lookalike.records.collections import ModelInfo
from lookalike.records.requests import Filter
from lookalike.records.sources import ServerPath, UploadedFile
from lookalike.records.steps import StepRequest

HEADER_FILE: Final = "collection.json"  #: What an export says of itself.
VECTORS_FILE: Final = "vectors.npy"
IMAGES_FILE: Final = "images.jsonl"
TABLE_SUFFIX: Final = ".parquet"


def is_export_file(name: str) -> bool:
    """Tell whether a file can be one of an export, by its name."""
    return name in {HEADER_FILE, VECTORS_FILE, IMAGES_FILE} or name.endswith(TABLE_SUFFIX)


class ExportFormat(StrEnum):
    """What the files of an export are."""

    PARQUET = "parquet"  #: A series of files that pandas, DuckDB and the like read as one table.
    NPY = "npy"  #: All vectors as one matrix for numpy, and a line of JSON for each of its rows.


class ExportRequest(StepRequest):
    """Body of `POST /v1/exports`."""

    format: ExportFormat = ExportFormat.PARQUET
    filter: Filter | None = None  #: A Milvus expression; only the images it matches are exported.


class ExportResult(Record):
    """Result of an export; its files are those of the job."""

    collection: str
    format: ExportFormat
    images: int = Field(ge=0)
    model: ModelInfo | None  #: Null where no image was ever stored.


class ImportRequest(StepRequest):
    """Body of `POST /v1/imports`: where the files of an export are, in exactly one of three ways."""

    job_id: str | None = Field(None, pattern="^[0-9A-Za-z]{1,64}$")  #: An export of this service, while it is kept.
    path: ServerPath | None = None  #: A folder or file, relative to a root, or absolute under one.
    uploads: tuple[UploadedFile, ...] = ()  #: Files that were uploaded before, under the names they were exported with.

    @model_validator(mode="after")
    def _exactly_one_place(self) -> Self:
        if sum((self.job_id is not None, self.path is not None, bool(self.uploads))) != 1:
            raise ValueError("name exactly one of: job_id, path, uploads")
        return self


class ImportResult(Record):
    """Result of an import."""

    collection: str
    images: int = Field(ge=0)  #: Rows that were read.
    stored: int = Field(ge=0)
    failed: int = Field(ge=0)  #: Rows that could not be used; the ledger says why.
    model: ModelInfo | None  #: Null where the export has none, and no images.
