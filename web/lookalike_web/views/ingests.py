"""`/v1/ingests`: from a place the service can read itself, or with files that come with the request."""

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from lookalike import errors
from lookalike.records import (
    ArchiveSource,
    CollectionName,
    IngestRequest,
    JobKind,
    JobRecord,
    Metadata,
    Priority,
    Record,
    Source,
    UploadSource,
    Webhook,
)
from lookalike_web import submitting
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import ARCHIVE_PART, IMAGE_PART, is_multipart, read_files, read_form, read_json
from lookalike_web.services import services
from lookalike_web.source_forms import any_of, folder_by_default
from lookalike_web.sourcing import check_ingest
from lookalike_web.submitting import submit
from lookalike_web.uploading import keep

blueprint = Blueprint("ingests", __name__)


def _refuse_model(value: object) -> None:
    if value is not None:
        raise ValueError(
            "an ingest is embedded by the model that serves the collection, and by those it is filled with"
        )


class JSONIngest(IngestRequest):
    """Body of `POST /v1/ingests` as JSON."""

    model: Annotated[SkipJsonSchema[None], BeforeValidator(_refuse_model)] = None
    #: Where the images are. Without a `type` it is a folder.
    source: Annotated[Source, Field(json_schema_extra=any_of)]


class IngestForm(Record):
    """Fields of `POST /v1/ingests` as multipart."""

    collection: CollectionName = "default"
    metadata: Metadata = Field(default_factory=dict)  #: A JSON object, stored with every image of the request.
    label_from_folder: bool = False  #: Store the name of the folder an image lies in as its metadata field `label`.
    checksum: bool = False  #: Tell changed files by their content instead of by size and time.
    dry_run: bool = False  #: Store nothing: the progress says what would be done. The upload is kept for a while.
    priority: Priority = Priority.NORMAL
    webhook: Webhook | None = None  #: A JSON object.


@blueprint.post("/v1/ingests")
@operation(
    Operation(
        tag="ingests",
        right=Right.INGEST,
        json=JSONIngest,
        form=IngestForm,
        files=(IMAGE_PART, ARCHIVE_PART),
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="The job was accepted.", model=JobRecord),
            200: Answer(description="The job is final already.", model=JobRecord),
        },
        errors=(
            *submitting.ERRORS,
            errors.InvalidPath,
            errors.InvalidURL,
            errors.InvalidParameter,
            errors.URLIngestDisabled,
            errors.FolderNotFound,
            errors.UploadNotFound,
            errors.JobNotFound,
            errors.JobExpired,
            errors.JobNotFinal,
            errors.TooManyItems,
            errors.ImageError,
            errors.InsufficientStorage,
            errors.SourceUnavailable,
        ),
        example={
            "collection": "default",
            "source": {"type": "folder", "path": "photos/2024", "include": ["*.jpg"]},
            "metadata": {"album": "spring"},
        },
    )
)
def submit_ingest() -> Response:
    """Ingest a folder, uploads, an archive, a manifest, addresses, objects, or what failed before.

    As JSON, `source` names where the images are. As multipart, each part `image` is one picture, or one part `archive`
    is a zip or tar of pictures. The collection is created where it does not exist. Images that cannot be used do not
    fail the job: they are counted in `progress.failed` and listed under /failures.
    """
    submitting.admit()
    wanted = _uploaded() if is_multipart() else _named()
    return submit(JobKind.INGEST, wanted, check=lambda: check_ingest(services(), wanted))


def _named() -> IngestRequest:
    defaults = {"collection": services().settings.collection}
    wanted = read_json(JSONIngest, defaults=defaults, prepare=folder_by_default)
    return IngestRequest(**dict(wanted))


def _uploaded() -> IngestRequest:
    settings = services().settings
    form = read_form(IngestForm, defaults={"collection": settings.collection}, json_fields={"metadata", "webhook"})
    part, files = read_files(
        (IMAGE_PART, ARCHIVE_PART), at_most=settings.max_upload_images, limit_name="LOOKALIKE_MAX_UPLOAD_IMAGES"
    )
    kept = keep(services().uploads, files, area="images")
    source: Any = UploadSource(files=kept) if part == IMAGE_PART else ArchiveSource(upload=kept[0])
    return IngestRequest(**dict(form), source=source)
