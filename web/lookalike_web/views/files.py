"""`/v1/jobs/{id}/files`: what a job left behind beside its record."""

from typing import Final

from flask import Blueprint, Response, request
from werkzeug.wrappers import Response as WerkzeugResponse
from werkzeug.wsgi import FileWrapper

from lookalike import errors
from lookalike.records import ArtifactList, ArtifactRecord
from lookalike_web.errors import RangeNotSatisfiable
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.presenting import job_url, json_response
from lookalike_web.ranges import conditions
from lookalike_web.services import services
from lookalike_web.views.jobs import JOB_ERRORS, known_id

blueprint = Blueprint("files", __name__)

#: What a browser is to show; anything else is a download.
_MEDIA = {".json": "application/json", ".jsonl": "application/x-ndjson", ".csv": "text/csv", ".png": "image/png"}
_OTHER = "application/octet-stream"
_ANY = (*_MEDIA.values(), _OTHER)
_PIECE_BYTES: Final = 256 << 10  #: Sent at a time, and what is held of a file that its client takes slowly.


@blueprint.get("/v1/jobs/<job_id>/files")
@operation(
    Operation(
        tag="jobs",
        answers={200: Answer(description="The job's files by name.", model=ArtifactList)},
        errors=(*JOB_ERRORS, errors.SourceUnavailable),
    )
)
def list_files(job_id: str) -> Response:
    """List the files that a job has left behind so far.

    They are complete once the job has succeeded, and are kept as long as its record.
    """
    job_id = services().jobs.get(known_id(job_id)).id
    found = services().artifacts.of(job_id)
    url = f"{job_url(job_id)}/files"
    files = tuple(ArtifactRecord(name=one.name, size=one.size, url=f"{url}/{one.name}") for one in found)
    return json_response(ArtifactList(files=files))


@blueprint.get("/v1/jobs/<job_id>/files/<name>")
@operation(
    Operation(
        tag="jobs",
        headers={
            "Range": "`bytes=1024-` asks for what is behind the first 1,024 bytes.",
            "If-Range": "The `ETag` of what is there of it: a file that has changed since is sent from its beginning.",
        },
        answers={
            200: Answer(description="The file.", media=_ANY),
            206: Answer(description="The part of it that Range asks for.", media=_ANY),
            304: Answer(description="The client's copy is still right.", media=()),
        },
        errors=(*JOB_ERRORS, errors.ArtifactNotFound, errors.SourceUnavailable, RangeNotSatisfiable),
    )
)
def get_file(job_id: str, name: str) -> WerkzeugResponse:
    """Get a file that a job left behind.

    A download that was interrupted goes on with `Range` and `If-Range`. One whose file is written again meanwhile
    breaks off before its announced length.
    """
    job_id = services().jobs.get(known_id(job_id)).id
    file = services().artifacts.open(job_id, name)
    suffix = f".{name.rpartition('.')[2]}"
    body = FileWrapper(file, _PIECE_BYTES)
    response = Response(body, mimetype=_MEDIA.get(suffix, _OTHER), direct_passthrough=True)
    response.set_etag(file.etag)
    response.content_length = file.size
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    asked = conditions(request.environ, etag=file.etag, size=file.size)
    return response.make_conditional(asked, accept_ranges=True, complete_length=file.size)
