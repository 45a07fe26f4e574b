"""`/v1/images`: stored images by id, never by path."""

import os
import re

from flask import Blueprint, Response, request, send_file
from pydantic import Field
from werkzeug.wrappers import Response as WerkzeugResponse

from lookalike import errors
from lookalike.records import CollectionName, Filter, Image, ImageID, ImagePage, ImagePatch, Record
from lookalike.roots import OpenedFile
from lookalike.vectorstore import StoredImage
from lookalike_web.auth import caller
from lookalike_web.errors import Problem, RangeNotSatisfiable
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.presenting import json_response, present_image
from lookalike_web.services import services

blueprint = Blueprint("images", __name__)

_STORE_ERRORS = (
    errors.CollectionNotFound,
    errors.ImageNotFound,
    errors.VectorStoreUnavailable,
    errors.VectorStoreRejected,
)
SNIFF_BYTES = 16
_MAGIC = {
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/bmp": re.compile(rb"BM"),
}
_MAX_PAGE = 1000
_FOREVER = "private, max-age=31536000, immutable"
_BRIEFLY = "private, max-age=60"


class ImageQuery(Record):
    """Query string of the addresses under `/v1/images/{image_id}`."""

    collection: CollectionName | None = None  #: The collection the image is in; the service's default where left out.


class ThumbnailQuery(ImageQuery):
    """Query string of `GET /v1/images/{image_id}/thumbnail`."""

    v: str | None = Field(None, max_length=64)  #: Part of the image's `thumbnail_url`; lets browsers keep it for good.


class ImagesQuery(ImageQuery):
    """Query string of `GET /v1/images`."""

    filter: Filter | None = None  #: A Milvus expression; only the images it matches.
    cursor: ImageID | None = None  #: `next_cursor` of the page before.
    limit: int = Field(50, ge=1, le=_MAX_PAGE)  #: Images per page.


@blueprint.get("/v1/images")
@operation(
    Operation(
        tag="images",
        right=Right.SEARCH,
        query=ImagesQuery,
        answers={200: Answer(description="One page of images, in the order of their ids.", model=ImagePage)},
        errors=(
            errors.CollectionNotFound,
            errors.InvalidFilter,
            errors.VectorStoreUnavailable,
            errors.VectorStoreRejected,
        ),
    )
)
def list_images(query: ImagesQuery) -> Response:
    """List a collection's images in the order of their ids, all or those that a filter matches.

    What is stored or deleted meanwhile may be on a page or not; each other image is on exactly one.
    """
    collection = query.collection or services().settings.collection
    caller().require_collection(collection)
    found, cursor = services().vectors.listed(collection, query.filter, after=query.cursor, limit=query.limit)
    page = tuple(present_image(image, collection=collection) for image in found)
    return json_response(ImagePage(images=page, next_cursor=cursor))


@blueprint.get("/v1/images/<image_id>")
@operation(
    Operation(
        tag="images",
        right=Right.SEARCH,
        query=ImageQuery,
        answers={200: Answer(description="The image, without its vector.", model=Image)},
        errors=_STORE_ERRORS,
    )
)
def get_image(query: ImageQuery, image_id: str) -> Response:
    """Get what is stored of an image."""
    image, collection = _find(query, image_id)
    return json_response(present_image(image, collection=collection))


@blueprint.patch("/v1/images/<image_id>")
@operation(
    Operation(
        tag="images",
        right=Right.INGEST,
        query=ImageQuery,
        json=ImagePatch,
        answers={200: Answer(description="The image as it is now.", model=Image)},
        errors=(*_STORE_ERRORS, errors.InvalidParameter, errors.QueueUnavailable),
        example={"metadata": {"album": "summer", "draft": None}},
    )
)
def patch_image(query: ImageQuery, image_id: str) -> Response:
    """Change some of an image's metadata.

    What is not named stays; null takes a key away. Its vector and file are not touched, and nothing is embedded.
    """
    wanted = read_json(ImagePatch)
    image, collection = _find(query, image_id)
    services().vectors.patch_metadata(collection, image.id, wanted.metadata)
    image, _ = _find(query, image_id)
    return json_response(present_image(image, collection=collection))


@blueprint.delete("/v1/images/<image_id>")
@operation(
    Operation(
        tag="images",
        right=Right.INGEST,
        query=ImageQuery,
        answers={204: Answer(description="The image is no longer in the collection.", media=())},
        errors=_STORE_ERRORS,
    )
)
def delete_image(query: ImageQuery, image_id: str) -> Response:
    """Take an image out of its collection.

    Its file stays where it is; ingesting it again stores it again.
    """
    image, collection = _find(query, image_id)
    services().vectors.delete(collection, [image.id])
    return Response(status=204)


@blueprint.get("/v1/images/<image_id>/thumbnail")
@operation(
    Operation(
        tag="images",
        right=Right.SEARCH,
        query=ThumbnailQuery,
        answers={
            200: Answer(description="The picture, small, as WebP and without its metadata.", media=("image/webp",)),
            304: Answer(description="The client's copy is still right.", media=()),
        },
        errors=(*_STORE_ERRORS, errors.FileMissing, errors.ImageError, errors.SourceUnavailable),
    )
)
def get_thumbnail(query: ThumbnailQuery, image_id: str) -> Response:
    """Get a small version of an image."""
    image, _ = _find(query, image_id)
    response = Response(mimetype="image/webp")
    response.set_etag(image.sha256)
    response.headers["Cache-Control"] = _FOREVER if query.v == image.sha256[:16] else _BRIEFLY
    if request.if_none_match.contains(image.sha256):
        response.status_code = 304
        return response
    try:
        response.set_data(services().thumbnail(image.uri).result())
    except errors.FileMissing as error:
        raise _gone(error) from error
    return response


@blueprint.get("/v1/images/<image_id>/content")
@operation(
    Operation(
        tag="images",
        right=Right.SEARCH,
        query=ImageQuery,
        headers={"Range": "`bytes=0-1023` asks for a part."},
        answers={
            200: Answer(description="The image's own bytes.", media=("image/*",)),
            206: Answer(description="The part of them that Range asks for.", media=("image/*",)),
            304: Answer(description="The client's copy is still right.", media=()),
        },
        errors=(
            *_STORE_ERRORS,
            errors.FileMissing,
            errors.ImageError,
            errors.SourceUnavailable,
            RangeNotSatisfiable,
        ),
    )
)
def get_content(query: ImageQuery, image_id: str) -> WerkzeugResponse:
    """Get an image's file as it is now.

    It is sent as what its first bytes say it is, and only if that is one of the formats this service reads.
    """
    image, _ = _find(query, image_id)
    try:
        opened = services().open(image.uri)
    except errors.FileMissing as error:
        raise _gone(error) from error
    return _stream(opened, name=image.name)


def _stream(opened: OpenedFile, *, name: str) -> WerkzeugResponse:
    file = os.fdopen(opened.fd, "rb")
    try:
        # Not through `file`: gunicorn sends from where the descriptor stands, which a buffered read moves.
        media = sniff(os.pread(opened.fd, SNIFF_BYTES, 0))
        label = "".join(char for char in name if char.isprintable()) or "image"
        response = send_file(file, mimetype=media, download_name=label, conditional=False, etag=False)
        response.set_etag(f"{opened.mtime_ns:x}-{opened.size:x}")
        response.headers["Cache-Control"] = "private, no-cache"
        response.content_length = opened.size
        return response.make_conditional(request.environ, accept_ranges=True, complete_length=opened.size)
    except BaseException:
        file.close()
        raise


def sniff(start: bytes) -> str:
    """Return the media type that a file's first bytes show; raises `UnsupportedFormat` for all we do not read."""
    for media, magic in _MAGIC.items():
        if magic.match(start):
            return media
    raise errors.UnsupportedFormat


def _find(query: ImageQuery, image_id: str) -> tuple[StoredImage, str]:
    collection = query.collection or services().settings.collection
    caller().require_collection(collection)
    return services().vectors.get(collection, image_id), collection


def _gone(error: errors.FileMissing) -> Problem:
    """Say of an image that is stored and whose file is not there: for its own address that is a 404."""
    return Problem(error, status=404)
