"""The one place where errors meet HTTP: which class answers which status, and how a problem is written (RFC 9457)."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g, request
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
    SecurityError,
)

from lookalike import errors
from lookalike_web.refusing import OUT_OF_FILES, RETRY_AFTER_S

log = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"


class RouteNotFound(errors.LookalikeError):
    """There is nothing at this address. /docs lists every address this service answers."""

    code = "not_found"


class MethodRefused(errors.LookalikeError):
    """This address does not answer this method. The Allow header lists those it does."""

    code = "method_not_allowed"


class UnsupportedMediaType(errors.LookalikeError):
    """The request's Content-Type is not one this address reads. /docs lists those it does."""

    code = "unsupported_media_type"


class NotAcceptable(errors.LookalikeError):
    """None of the types in the request's Accept header can be answered. /docs lists those that can."""

    code = "not_acceptable"


class BadHost(errors.LookalikeError):
    """The Host header is not a name of this service. Add it to LOOKALIKE_ALLOWED_HOSTS if it is meant to be."""

    code = "bad_host"


class RangeNotSatisfiable(errors.LookalikeError):
    """The Range header asks for bytes that this file does not have. Content-Range says how many there are."""

    code = "range_not_satisfiable"


class URITooLong(errors.LookalikeError):
    """The request's address is too long. Send long values in the body."""

    code = "uri_too_long"


class Busy(errors.LookalikeError):
    """Too many clients wait for jobs at the moment. Ask for the job from time to time, or connect again later."""

    code = "busy"


class Overloaded(errors.LookalikeError):
    """This service has as many connections and files open as it may. Send the request again later.

    Its operator can raise the limit of open files (`ulimit -n`).
    """

    code = "overloaded"


class NotReady(errors.LookalikeError):
    """The service cannot do its work yet. `checks` says which part is missing."""

    code = "not_ready"


#: The status of every class that can reach a client; a class that is not listed takes that of its nearest ancestor.
STATUS: Final[Mapping[type[errors.LookalikeError], HTTPStatus]] = {
    errors.LookalikeError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    BadHost: HTTPStatus.BAD_REQUEST,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.URLIngestDisabled: HTTPStatus.FORBIDDEN,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    RouteNotFound: HTTPStatus.NOT_FOUND,
    errors.FolderNotFound: HTTPStatus.NOT_FOUND,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.ArtifactNotFound: HTTPStatus.NOT_FOUND,
    errors.CollectionNotFound: HTTPStatus.NOT_FOUND,
    errors.ImageNotFound: HTTPStatus.NOT_FOUND,
    errors.UploadNotFound: HTTPStatus.NOT_FOUND,
    MethodRefused: HTTPStatus.METHOD_NOT_ALLOWED,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.CollectionExists: HTTPStatus.CONFLICT,
    errors.ModelMismatch: HTTPStatus.CONFLICT,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.ModelNotLive: HTTPStatus.CONFLICT,
    errors.ModelInUse: HTTPStatus.CONFLICT,
    errors.ReembeddingIncomplete: HTTPStatus.CONFLICT,
    errors.JobNotFinal: HTTPStatus.CONFLICT,
    errors.UploadConflict: HTTPStatus.CONFLICT,
    errors.SourceEmpty: HTTPStatus.CONFLICT,
    errors.JobExpired: HTTPStatus.GONE,
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyItems: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    URITooLong: HTTPStatus.REQUEST_URI_TOO_LONG,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ManifestInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ArchiveInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ArchiveTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UploadMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.MissingExtra: HTTPStatus.NOT_IMPLEMENTED,
    errors.VectorStoreRejected: HTTPStatus.BAD_GATEWAY,
    errors.QueueUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueFull: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.VectorStoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SourceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InsufficientStorage: HTTPStatus.INSUFFICIENT_STORAGE,
}

#: Our word for what werkzeug refuses by itself, by its status.
FRAMEWORK: Final[Mapping[int, type[errors.LookalikeError]]] = {
    HTTPStatus.NOT_FOUND: RouteNotFound,
    HTTPStatus.METHOD_NOT_ALLOWED: MethodRefused,
    HTTPStatus.NOT_ACCEPTABLE: NotAcceptable,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errors.PayloadTooLarge,
    HTTPStatus.REQUEST_URI_TOO_LONG: URITooLong,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaType,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: RangeNotSatisfiable,
}


class Problem(Exception):
    """An error on its way to the client, with what its class alone does not say."""

    def __init__(
        self,
        error: errors.LookalikeError,
        *,
        status: int | None = None,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status if status is not None else status_of(type(error))
        self.members = dict(members or {})
        self.headers = dict(headers or {})


def status_of(cls: type[errors.LookalikeError]) -> int:
    """Return the HTTP status of an error class."""
    return next(int(STATUS[base]) for base in cls.__mro__ if base in STATUS)


def title_of(code: str) -> str:
    """Return the heading of a code, which is the same for all its occurrences: `job_not_found` is `Job not found`."""
    return code.replace("_", " ").capitalize()


def respond(problem: Problem) -> Response:
    """Write a problem as `application/problem+json`."""
    code = problem.error.code
    body = {
        "type": f"/docs#error-{code}",
        "title": title_of(code),
        "status": problem.status,
        "detail": problem.error.message,
        "code": code,
        "request_id": g.request_id,
        "instance": request.path,
        **problem.members,
    }
    response = Response(json.dumps(body), status=problem.status, mimetype=PROBLEM_JSON)
    if problem.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="lookalike"'
    response.headers.update(problem.headers)
    return response


def _is_out_of_files(error: BaseException | None) -> bool:
    """Tell whether what is behind an error is that this process may open no more files and connections."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # Errors that were raised again may stand behind each other.
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _on_lookalike_error(error: errors.LookalikeError) -> Response:
    if _is_out_of_files(error):
        return _on_bug(error)
    members = {"offset": error.offset} if isinstance(error, errors.UploadConflict) else {}
    problem = Problem(error, members=members)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Where nothing is behind it, it was refused on purpose, and a traceback would only fill the log.
        log.warning("%s %s: %s", request.method, request.path, error.message, exc_info=error.__cause__ and error)
    return respond(problem)


def _on_http_exception(exception: HTTPException) -> Response:
    """Answer what werkzeug or Flask refused in our own words."""
    if isinstance(exception, SecurityError):
        return respond(Problem(BadHost()))
    if isinstance(exception, RequestEntityTooLarge):
        return respond(Problem(errors.PayloadTooLarge(exception.description)))
    status = exception.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_bug(exception)
    error = FRAMEWORK.get(status, errors.InvalidRequest)()
    headers = {}
    if isinstance(exception, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(exception.valid_methods or ()))
    if isinstance(exception, RequestedRangeNotSatisfiable) and exception.length is not None:
        headers["Content-Range"] = f"{exception.units} */{exception.length}"
    return respond(Problem(error, status=status, headers=headers))


def _on_bug(exception: Exception) -> Response:
    """Log a bug with its traceback and answer without detail; that no file can be opened is none, and passes."""
    if _is_out_of_files(exception):
        log.warning("%s %s: too many open files", request.method, request.path)
        return respond(Problem(Overloaded()))
    log.error("%s %s failed [%s]", request.method, request.path, g.request_id, exc_info=exception)
    return respond(Problem(errors.LookalikeError()))


def register(app: Flask) -> None:
    """Have every error of an app answered as a problem, the framework's own included."""
    app.register_error_handler(Problem, respond)
    app.register_error_handler(errors.LookalikeError, _on_lookalike_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_bug)
