"""`/v1/bulk-searches`: every image of a source is a query, the answers are files."""

from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from lookalike import errors
from lookalike.records import BulkSearchRequest, JobKind, QuerySource
from lookalike.vectorstore import check_group_field
from lookalike_web.keys import Right
from lookalike_web.openapi import operation
from lookalike_web.parsing import read_json
from lookalike_web.services import services
from lookalike_web.source_forms import any_of, folder_by_default
from lookalike_web.sourcing import check_source
from lookalike_web.submitting import admit, declared, submit

blueprint = Blueprint("bulk_searches", __name__)


class JSONBulkSearch(BulkSearchRequest):
    """Body of `POST /v1/bulk-searches`."""

    #: Where the queries are. Without a `type` it is a folder.
    source: Annotated[QuerySource, Field(json_schema_extra=any_of)]


@blueprint.post("/v1/bulk-searches")
@operation(
    declared(
        JSONBulkSearch,
        tag="searches",
        right=Right.SEARCH,
        errors=(
            errors.InvalidPath,
            errors.InvalidParameter,
            errors.InvalidFilter,
            errors.URLIngestDisabled,
            errors.FolderNotFound,
            errors.UploadNotFound,
            errors.ModelNotFound,
            errors.TooManyItems,
            errors.ImageError,
            errors.SourceUnavailable,
        ),
        example={
            "collection": "default",
            "source": {"type": "folder", "path": "photos/2024", "include": ["*.jpg"]},
            "limit": 10,
            "exclude_self": True,
        },
    )
)
def submit_bulk_search() -> Response:
    """Search for every image of a folder, archive, manifest, list of uploads or addresses, or prefix of objects.

    The answers are files of the job: `results.jsonl`, `results.csv` and contact sheets. Images that cannot be used do
    not fail the job: they are counted in `progress.failed`, listed under /failures, and have an `error` in the files.
    """
    admit()
    defaults = {"collection": services().settings.collection}
    asked = read_json(JSONBulkSearch, defaults=defaults, prepare=folder_by_default)
    wanted = BulkSearchRequest(**dict(asked))
    return submit(JobKind.BULK_SEARCH, wanted, check=lambda: _check(wanted))


def _check(wanted: BulkSearchRequest) -> None:
    """Look at what the search names: its collection, fields, filter and source."""
    vectors, most = services().vectors, services().settings.max_limit
    if wanted.limit > most:
        raise errors.InvalidParameter(f"`limit` is at most {most} (LOOKALIKE_MAX_LIMIT).")
    if wanted.group_by is not None:
        check_group_field(wanted.group_by)
    collection = vectors.collection(wanted.collection)
    if wanted.params is not None:
        vectors.check_params(collection.name, wanted.params.model_dump(exclude_none=True))
    if wanted.filter is not None:
        vectors.count_matching(collection.name, wanted.filter)
    check_source(services(), wanted.source)
