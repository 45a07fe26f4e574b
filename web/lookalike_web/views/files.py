"""`/v1/jobs/{id}/files`: what a job left behind beside its record."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import ArtifactList, ArtifactRecord
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.presenting import job_url, json_response
from lookalike_web.services import services
from lookalike_web.views.jobs import JOB_ERRORS, known_id

blueprint = Blueprint("files", __name__)

#: What a browser is to show; anything else is a download.
_MEDIA = {".json": "application/json", ".jsonl": "application/x-ndjson", ".csv": "text/csv", ".png": "image/png"}
_OTHER = "application/octet-stream"


@blueprint.get("/v1/jobs/<job_id>/files")
@operation(
    Operation(
        tag="jobs",
        answers={200: Answer(description="The job's files by name.", model=ArtifactList)},
        errors=JOB_ERRORS,
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
        answers={200: Answer(description="The file.", media=(*_MEDIA.values(), _OTHER))},
        errors=(*JOB_ERRORS, errors.ArtifactNotFound),
    )
)
def get_file(job_id: str, name: str) -> Response:
    """Get a file that a job left behind."""
    job_id = services().jobs.get(known_id(job_id)).id
    size = services().artifacts.size(job_id, name)
    suffix = f".{name.rpartition('.')[2]}"
    response = Response(services().artifacts.read(job_id, name), mimetype=_MEDIA.get(suffix, _OTHER))
    response.content_length = size
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
