"""`/v1/ingests`: a folder the service can read itself, or images that come with the request."""

from flask import Blueprint, Response
from pydantic import Field

from lookalike import errors
from lookalike.records import (
    CollectionName,
    FolderSource,
    IngestRequest,
    JobKind,
    JobRecord,
    Metadata,
    Record,
    UploadSource,
)
from lookalike.vectorstore import check_metadata
from lookalike_web import submitting
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import is_multipart, read_form, read_images, read_json
from lookalike_web.services import services
from lookalike_web.submitting import submit
from lookalike_web.uploading import keep

blueprint = Blueprint("ingests", __name__)


class FolderIngest(IngestRequest):
    """Body of `POST /v1/ingests` as JSON."""

    source: FolderSource  # Uploads come as multipart, where their bytes are.


class IngestForm(Record):
    """Fields of `POST /v1/ingests` as multipart."""

    collection: CollectionName = "default"
    metadata: Metadata = Field(default_factory=dict)  #: A JSON object, stored with every image of the request.


@blueprint.post("/v1/ingests")
@operation(
    Operation(
        tag="ingests",
        json=FolderIngest,
        form=IngestForm,
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="The job was accepted.", model=JobRecord),
            200: Answer(description="The job is final already.", model=JobRecord),
        },
        errors=(
            *submitting.ERRORS,
            errors.InvalidPath,
            errors.InvalidParameter,
            errors.FolderNotFound,
            errors.TooManyItems,
            errors.ImageError,
            errors.InsufficientStorage,
        ),
        example={
            "collection": "default",
            "source": {"type": "folder", "path": "photos/2024", "include": ["*.jpg"]},
            "metadata": {"album": "spring"},
        },
    )
)
def submit_ingest() -> Response:
    """Ingest a folder, or uploaded images.

    As JSON, `source` names a folder under the service's roots. As multipart, each part `image` is one picture. The
    collection is created where it does not exist. Images that cannot be used do not fail the job: they are counted in
    `progress.failed` and listed under /failures.
    """
    return submit(JobKind.INGEST, _uploaded() if is_multipart() else _folder())


def _folder() -> IngestRequest:
    wanted = read_json(FolderIngest, defaults={"collection": services().settings.collection})
    check_metadata(wanted.metadata)
    services().roots.resolve_folder(wanted.source.path)
    return wanted


def _uploaded() -> IngestRequest:
    settings = services().settings
    form = read_form(IngestForm, defaults={"collection": settings.collection}, json_fields={"metadata"})
    check_metadata(form.metadata)
    images = read_images(at_most=settings.max_upload_images, limit_name="LOOKALIKE_MAX_UPLOAD_IMAGES")
    return IngestRequest(
        collection=form.collection,
        source=UploadSource(files=keep(services().uploads, images, area="images")),
        metadata=form.metadata,
    )
