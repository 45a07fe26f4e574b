"""`/v1/uploads`: files of any size, sent in bounded requests that can be gone on with after an interruption."""

from typing import Final, cast

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from lookalike import errors
from lookalike.records import UploadRecord, UploadRequest
from lookalike.uploads import Stream
from lookalike_web.auth import caller
from lookalike_web.errors import UnsupportedMediaType
from lookalike_web.keys import Right
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.parsing import read_json
from lookalike_web.presenting import json_response
from lookalike_web.services import services
from lookalike_web.submitting import admit

blueprint = Blueprint("uploads", __name__)

OFFSET: Final = "Upload-Offset"
BYTES: Final = "application/octet-stream"
_MAX_DIGITS: Final = 18

#: Where senders have a limit.
_LIMITED: Final = (errors.RateLimited, errors.QueueUnavailable)


@blueprint.post("/v1/uploads")
@operation(
    Operation(
        tag="uploads",
        right=Right.INGEST,
        json=UploadRequest,
        answers={
            201: Answer(description="The upload was begun; its bytes go to its address.", model=UploadRecord),
            200: Answer(
                description="The service has this content already; nothing needs to be sent.", model=UploadRecord
            ),
        },
        errors=(*_LIMITED, errors.PayloadTooLarge, errors.InsufficientStorage, errors.SourceUnavailable),
        example={"size": 2_350_000_000, "name": "paintings.tar.gz"},
    )
)
def begin_upload() -> Response:
    """Begin to upload a file in pieces.

    With its `sha256`, a file that is there already is not sent again; a key that sees its own jobs only has to have
    sent it itself. Once complete, it is named in an ingest by the `sha256` of its record. One that nobody goes on with,
    or that no job uses, is removed after a day.
    """
    admit()
    record = services().partials.begin(read_json(UploadRequest), owner=caller().owner_seen)
    return _answer(record, status=200 if record.sha256 else 201, headers={"Location": f"/v1/uploads/{record.id}"})


@blueprint.get("/v1/uploads/<upload_id>")
@operation(
    Operation(
        tag="uploads",
        right=Right.INGEST,
        answers={200: Answer(description="The upload as it stands.", model=UploadRecord)},
        errors=(errors.UploadNotFound, errors.SourceUnavailable),
    )
)
def get_upload(upload_id: str) -> Response:
    """Get how far an upload is, to go on with it.

    The offset is also in the header Upload-Offset, so HEAD is enough.
    """
    return _answer(services().partials.get(upload_id, owner=caller().owner_seen))


@blueprint.patch("/v1/uploads/<upload_id>")
@operation(
    Operation(
        tag="uploads",
        right=Right.INGEST,
        raw=BYTES,
        headers={OFFSET: "Where in the file the bytes of this request begin. It has to be where the upload stands."},
        answers={200: Answer(description="The upload as it stands now.", model=UploadRecord)},
        errors=(
            *_LIMITED,
            errors.InvalidParameter,
            errors.UploadNotFound,
            errors.UploadConflict,
            errors.UploadMismatch,
            errors.InsufficientStorage,
            errors.SourceUnavailable,
        ),
    )
)
def append_upload(upload_id: str) -> Response:
    """Send the next bytes of an upload.

    What arrived before an interruption stays. Where the upload stands elsewhere, the problem's member `offset` says
    where.
    """
    admit(piece=True)
    if request.mimetype != BYTES:
        raise UnsupportedMediaType(f"The request's Content-Type must be {BYTES}.")
    offset = _offset()
    try:
        record = services().partials.append(upload_id, offset, cast(Stream, request.stream), owner=caller().owner_seen)
    except RequestEntityTooLarge as error:
        limit = services().settings.max_upload_bytes
        raise errors.PayloadTooLarge(
            f"One request may bring at most {limit} bytes (LOOKALIKE_MAX_UPLOAD_BYTES). Send the file in pieces."
        ) from error
    return _answer(record)


@blueprint.delete("/v1/uploads/<upload_id>")
@operation(
    Operation(
        tag="uploads",
        right=Right.INGEST,
        answers={204: Answer(description="The upload is given up.", media=())},
        errors=(errors.UploadNotFound,),
    )
)
def discard_upload(upload_id: str) -> Response:
    """Give up an upload.

    What has arrived of it is removed. A complete file stays, since others may have sent the same.
    """
    services().partials.discard(upload_id, owner=caller().owner_seen)
    return Response(status=204)


def _offset() -> int:
    text = request.headers.get(OFFSET, "")
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise errors.InvalidParameter(f"The header {OFFSET} has to say at which byte of the file this request begins.")
    return int(text)


def _answer(record: UploadRecord, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return json_response(record, status=status, headers={OFFSET: str(record.offset), **(headers or {})})
