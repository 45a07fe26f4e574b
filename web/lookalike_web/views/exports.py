"""`/v1/exports` and `/v1/imports`: collections as files, and back, with nothing embedded twice."""

from flask import Blueprint, Response

from lookalike import errors
from lookalike.records import ExportRequest, ImportRequest, JobKind, JobState, UploadSource
from lookalike_web.auth import caller
from lookalike_web.keys import Right
from lookalike_web.openapi import operation
from lookalike_web.permitting import own
from lookalike_web.services import services
from lookalike_web.sourcing import check_source
from lookalike_web.submitting import asked, declared, submit

blueprint = Blueprint("exports", __name__)


@blueprint.post("/v1/exports")
@operation(
    declared(
        ExportRequest,
        tag="collections",
        right=Right.INGEST,
        errors=(errors.InvalidFilter,),
        example={"collection": "default", "format": "parquet"},
    )
)
def submit_export() -> Response:
    """Export a collection, or what a filter matches of it, with its vectors.

    The files are those of the job: `/v1/jobs/{id}/files`, as long as its record is kept.
    """
    wanted = asked(ExportRequest)
    return submit(JobKind.EXPORT, wanted, check=lambda: _check_export(wanted))


@blueprint.post("/v1/imports")
@operation(
    declared(
        ImportRequest,
        tag="collections",
        right=Right.INGEST,
        errors=(
            errors.InvalidPath,
            errors.FolderNotFound,
            errors.ImageError,
            errors.UploadNotFound,
            errors.TooManyItems,
            errors.SourceUnavailable,
            errors.JobNotFound,
            errors.JobExpired,
            errors.JobNotFinal,
        ),
        example={"collection": "restored", "path": "backups/spring"},
    )
)
def submit_import() -> Response:
    """Store the images of an export, with their vectors as they are.

    Into a new collection, which gets the metric and index of the exported one, or into one of the same model. Images
    that are stored already are replaced, so importing twice is importing once.
    """
    wanted = asked(ImportRequest)
    return submit(JobKind.IMPORT, wanted, check=lambda: _check_import(wanted))


def _check_export(wanted: ExportRequest) -> None:
    if wanted.filter is None:
        services().vectors.collection(wanted.collection)
    else:
        services().vectors.count_matching(wanted.collection, wanted.filter)


def _check_import(wanted: ImportRequest) -> None:
    if wanted.job_id is not None:
        _check_exported(wanted.job_id)
        return
    if caller().roots is not None:
        raise errors.RootNotAllowed(
            "This API key is for certain roots only, and the rows of an export may name files anywhere. "
            "Import an export of your own by its `job_id`, or ingest the images."
        )
    if wanted.path is not None:
        _check_path(wanted.path)
    else:
        check_source(services(), UploadSource(files=wanted.uploads))


def _check_exported(job_id: str) -> None:
    """Refuse what is not the finished export of a collection that the caller may name."""
    record = own(services().jobs.get(job_id))
    if caller().roots is not None and record.owner != caller().name:
        raise errors.RootNotAllowed(
            "This API key is for certain roots only, and the rows of another's export may name files anywhere. "
            "Import an export of your own."
        )
    if record.kind is not JobKind.EXPORT:
        raise errors.InvalidRequest(f"The job {record.id} is not an export. Name one of the kind `export`.")
    if not record.state.final:
        raise errors.JobNotFinal("The export still runs. Import it once it has succeeded.")
    if record.state is not JobState.SUCCEEDED:
        raise errors.InvalidRequest(f"The export {record.id} did not succeed, so it is not whole. Export once more.")
    caller().require_collection(str(record.request["collection"]))


def _check_path(path: str) -> None:
    try:
        services().roots.resolve_folder(path)
    except errors.FolderNotFound:
        services().roots.resolve_file(path)
