"""`/v1/searches`: by what the service can find itself as JSON, by pictures as multipart."""

from flask import Blueprint, Response
from pydantic import ConfigDict, Field, JsonValue

from lookalike import errors
from lookalike.records import (
    Box,
    Collection,
    Example,
    JobKind,
    JobRecord,
    Query,
    SearchRequest,
    SearchTerms,
)
from lookalike.records.searches import MAX_EXAMPLES
from lookalike.vectorstore import check_group_field
from lookalike_web import submitting
from lookalike_web.keys import Right
from lookalike_web.models import model_of_collection
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import is_multipart, read_form, read_json, read_roles
from lookalike_web.services import services
from lookalike_web.sourcing import own_upload_place
from lookalike_web.submitting import submit
from lookalike_web.uploading import keep

blueprint = Blueprint("searches", __name__)


def _only(name: str) -> dict[str, JsonValue]:
    """The schema of an object whose field `name` is there and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _has_one_of(*names: str) -> ConfigDict:
    return ConfigDict(json_schema_extra={"oneOf": [_only(name) for name in names]})


class JSONExample(Example):
    """One picture, or the vector of one: exactly one of its fields is set, `box` apart."""

    model_config = _has_one_of("path", "url", "image_id", "vector", "upload")


class JSONQuery(Query):
    """One thing to search for: a picture, the vector of one, or examples of what is wanted and what is not."""

    model_config = _has_one_of("path", "url", "image_id", "vector", "upload", "positive")

    positive: tuple[JSONExample, ...] | None = Field(None, min_length=1, max_length=MAX_EXAMPLES)
    negative: tuple[JSONExample, ...] = Field((), max_length=MAX_EXAMPLES)


class JSONSearch(SearchRequest):
    """Body of `POST /v1/searches` as JSON."""

    queries: tuple[JSONQuery, ...] = Field(min_length=1)


class SearchForm(SearchTerms):
    """Fields of `POST /v1/searches` as multipart; `params`, `variants`, `box` and `webhook` hold JSON."""

    box: Box | None = None  #: The region of each picture that counts: [left, top, width, height], 0 to 1.


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
            errors.URLIngestDisabled,
            errors.UploadNotFound,
            errors.InvalidParameter,
            errors.CollectionNotFound,
            errors.ModelNotFound,
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

    As JSON, each query names a picture (by path, address, image id or upload, a region of it with `box`), is a vector,
    or combines examples. As multipart, each part `image` is a picture to search for; parts `positive` and `negative`
    are examples of one query. A single picture that cannot be used is refused; among several, its query has an `error`.
    """
    submitting.admit()
    wanted = _pictures() if is_multipart() else _named()
    return submit(JobKind.SEARCH, wanted, check=lambda: _check(wanted), wait_s=wanted.wait)


def _named() -> SearchRequest:
    wanted = read_json(JSONSearch, defaults={"collection": services().settings.collection})
    _check_limits(wanted, sum(1 for _ in wanted.examples))
    return wanted


def _pictures() -> SearchRequest:
    settings = services().settings
    form = read_form(
        SearchForm,
        defaults={"collection": settings.collection},
        json_fields={"webhook", "params", "variants", "box"},
    )
    roles = read_roles(
        ("image",), ("positive", "negative"), at_most=settings.max_queries, limit_name="LOOKALIKE_MAX_QUERIES"
    )
    _check_limits(form, sum(len(images) for images in roles.values()))
    kept = {
        role: [Example(upload=file, box=form.box) for file in keep(services().uploads, images, area="queries")]
        for role, images in roles.items()
    }
    if "image" in kept:
        queries = tuple(Query(upload=one.upload, box=one.box) for one in kept["image"])
    else:
        queries = (Query(positive=tuple(kept["positive"]), negative=tuple(kept.get("negative", ()))),)
    if form.variants and "image" not in kept:
        raise errors.InvalidRequest("Variants are of single pictures; search with examples without them.")
    return SearchRequest(queries=queries, **{name: getattr(form, name) for name in SearchTerms.model_fields})


def _check(wanted: SearchRequest) -> None:
    """Look at what the search names: its webhook, its collection, its fields, and its queries."""
    collection = services().vectors.recent(wanted.collection)
    if wanted.model is not None:
        asked = model_of_collection(collection, wanted.model)
        collection = collection.model_copy(update={"model": asked})
    if wanted.group_by is not None:
        check_group_field(wanted.group_by)
    if wanted.params is not None:
        services().vectors.check_params(collection.name, wanted.params.model_dump(exclude_none=True))
    examples = list(wanted.examples)
    for example in examples:
        _check_example(example, collection, alone=len(examples) == 1)


def _check_limits(wanted: SearchTerms, pictures: int) -> None:
    settings = services().settings
    if wanted.limit > settings.max_limit:
        raise errors.InvalidParameter(f"`limit` is at most {settings.max_limit} (LOOKALIKE_MAX_LIMIT).")
    if wanted.offset + wanted.limit > settings.max_limit:
        raise errors.InvalidParameter(
            f"`offset` and `limit` together are at most {settings.max_limit} (LOOKALIKE_MAX_LIMIT). "
            "Narrow the search with a filter to see more."
        )
    if pictures > settings.max_queries:
        raise errors.TooManyItems(
            f"The search has {pictures} queries and examples, and at most {settings.max_queries} are taken "
            "(LOOKALIKE_MAX_QUERIES)."
        )


def _check_example(example: Example, collection: Collection, *, alone: bool) -> None:
    """Refuse what can never be answered. Among several, a picture that cannot be used is the worker's to report."""
    if example.vector is not None and collection.model and len(example.vector) != collection.model.dim:
        raise errors.InvalidParameter(
            f"The vector has {len(example.vector)} values, and those of this collection have {collection.model.dim}."
        )
    if example.url is not None:
        services().remote.check_url(example.url)
    if example.image_id is not None and alone:
        services().vectors.get(collection.name, example.image_id)
    if example.upload is not None:
        uri = own_upload_place(services(), example.upload.sha256)
        if alone:
            services().probe(uri)
    if example.path is not None:
        try:
            uri = services().roots.resolve_file(example.path)
            if alone:
                services().probe(uri)
        except errors.ImageError:
            if alone:
                raise
