"""Requests that cannot be accepted, whatever they ask for."""

from lookalike.errors.base import LookalikeError


class InvalidRequest(LookalikeError):
    """The request does not have the documented form. See /docs for the fields it takes."""

    code = "invalid_request"


class InvalidParameter(InvalidRequest):
    """A parameter is outside its documented range. See /docs for the values it takes."""

    code = "invalid_parameter"


class InvalidFilter(InvalidRequest):
    """The filter is not an expression that Milvus accepts. Compare a field with a value, as in: album == 'spring'."""

    code = "invalid_filter"


class InvalidPath(InvalidRequest):
    """The path is outside every folder this service may read. Start the service with --root for that folder."""

    code = "invalid_path"


class InvalidURL(InvalidRequest):
    """This is not an http or https address on a port that the service fetches from. Check its spelling."""

    code = "invalid_url"


class URLIngestDisabled(LookalikeError):
    """This service does not fetch addresses. Start it with LOOKALIKE_URL_INGEST=true if it is meant to."""

    code = "url_ingest_disabled"


class FolderNotFound(LookalikeError):
    """There is no such folder under the roots of this service. Check the spelling, or upload the images instead."""

    code = "folder_not_found"


class Unauthorized(LookalikeError):
    """The API key is missing or wrong. Send it as: Authorization: Bearer KEY."""

    code = "unauthorized"


class Forbidden(LookalikeError):
    """This API key lacks the right to do this. Ask whoever runs the service for one that has it."""

    code = "forbidden"


class RootNotAllowed(Forbidden):
    """This API key may not read from there. Name a place in one of its roots, or upload the images instead."""

    code = "root_not_allowed"


class RateLimited(LookalikeError):
    """Too many requests in a short time. Try again after the seconds in Retry-After."""

    code = "rate_limited"


class PayloadTooLarge(LookalikeError):
    """The request is larger than this service accepts. Send fewer or smaller images in one request."""

    code = "payload_too_large"


class TooManyItems(LookalikeError):
    """The request names more items than this service takes at once. Split it into several requests."""

    code = "too_many_items"


class IdempotencyConflict(LookalikeError):
    """This Idempotency-Key was used for another request. Use a new key for a new request."""

    code = "idempotency_conflict"
