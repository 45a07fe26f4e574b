"""`/v1/searches`: by path, image id or vector as JSON, by pictures as multipart."""

from typing import Annotated

from flask import Blueprint, Response
from pydantic import BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from lookalike import errors
from lookalike.records import Collection, CollectionName, JobKind, JobRecord, Query, Record, SearchRequest, Webhook
from lookalike.uploads import query_uri
from lookalike_web import submitting
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import is_multipart, read_form, read_images, read_json
from lookalike_web.services import services
from lookalike_web.sourcing import check_webhook
from lookalike_web.submitting import submit
from lookalike_web.uploading import keep

blueprint = Blueprint("searches", __name__)


def _refuse_upload(value: object) -> None:
    if value is not None:
        raise ValueError("pictures are sent as multipart/form-data, in parts named `image`")


def _only(name: str) -> dict[str, JsonValue]:
    """The schema of an object whose field `name` is there and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


class JSONQuery(Query):
    """One thing to search for: exactly one of its fields is set."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only(name) for name in ("path", "image_id", "vector")]})

    upload: Annotated[SkipJsonSchema[None], BeforeValidator(_refuse_upload)] = None


class JSONSearch(SearchRequest):
    """Body of `POST /v1/searches` as JSON."""

    queries: tuple[JSONQuery, ...] = Field(min_length=1)


class SearchForm(Record):
    """Fields of `POST /v1/searches` as multipart."""

    collection: CollectionName = "default"
    limit: int = Field(3, ge=1)  #: Hits per query.
    filter: str | None = Field(None, min_length=1, max_length=4096)  #: A Milvus expression over the images' fields.
    wait: float = Field(0.0, ge=0, allow_inf_nan=False)  #: Seconds the answer may be held back until the job is final.
    webhook: Webhook | None = None  #: A JSON object.


@blueprint.post("/v1/searches")
@operation(
    Operation(
        tag="searches",
        right=Right.SEARCH,
        json=JSONSearch,
        form=SearchForm,
        headers=submitting.HEADERS,
        answers={
            202: Answer(description="The job was accepted.", model=JobRecord),
            200: Answer(description="The job is final, its result is in the record.", model=JobRecord),
        },
        errors=(
            *submitting.ERRORS,
            errors.InvalidPath,
            errors.InvalidURL,
            errors.InvalidParameter,
            errors.CollectionNotFound,
            errors.ImageNotFound,
            errors.TooManyItems,
            errors.ImageError,
            errors.VectorStoreUnavailable,
            errors.InsufficientStorage,
            errors.SourceUnavailable,
        ),
        example={"collection": "default", "queries": [{"path": "photos/a.jpg"}], "limit": 3, "wait": 10},
    )
)
def submit_search() -> Response:
    """Search for the images most like the given ones.

    As JSON, each query names a picture by path or image id, or is a vector. As multipart, each part `image` is a
    picture to search for. A single picture that cannot be used is refused; among several, its query has an `error`.
    """
    submitting.admit()
    wanted = _pictures() if is_multipart() else _named()
    return submit(JobKind.SEARCH, wanted, check=lambda: _check(wanted), wait_s=wanted.wait)


def _named() -> SearchRequest:
    wanted = read_json(JSONSearch, defaults={"collection": services().settings.collection})
    _check_limits(limit=wanted.limit, queries=len(wanted.queries))
    return wanted


def _pictures() -> SearchRequest:
    settings = services().settings
    form = read_form(SearchForm, defaults={"collection": settings.collection}, json_fields={"webhook"})
    images = read_images(at_most=settings.max_queries, limit_name="LOOKALIKE_MAX_QUERIES")
    _check_limits(limit=form.limit, queries=len(images))
    kept = keep(services().uploads, images, area="queries")
    return SearchRequest(queries=tuple(Query(upload=file) for file in kept), **dict(form))


def _check(wanted: SearchRequest) -> None:
    """Look at what the search names: its webhook, its collection, and its queries."""
    check_webhook(services(), wanted.webhook)
    collection = services().vectors.collection(wanted.collection)
    alone = len(wanted.queries) == 1
    for query in wanted.queries:
        _check_query(query, collection, alone=alone)


def _check_limits(*, limit: int, queries: int) -> None:
    settings = services().settings
    if limit > settings.max_limit:
        raise errors.InvalidParameter(f"`limit` is at most {settings.max_limit} (LOOKALIKE_MAX_LIMIT).")
    if queries > settings.max_queries:
        raise errors.TooManyItems(
            f"The search has {queries} queries, and at most {settings.max_queries} are taken (LOOKALIKE_MAX_QUERIES)."
        )


def _check_query(query: Query, collection: Collection, *, alone: bool) -> None:
    """Refuse what can never be answered. Among several, a picture that cannot be used is the worker's to report."""
    if query.vector is not None and collection.model and len(query.vector) != collection.model.dim:
        raise errors.InvalidParameter(
            f"The vector has {len(query.vector)} values, and those of this collection have {collection.model.dim}."
        )
    if query.image_id is not None and alone:
        services().vectors.get(collection.name, query.image_id)
    if query.upload is not None and alone:
        services().probe(query_uri(query.upload.sha256))
    if query.path is not None:
        try:
            uri = services().roots.resolve_file(query.path)
            if alone:
                services().probe(uri)
        except errors.ImageError:
            if alone:
                raise
