"""From a request's bytes to records: JSON, forms and query strings, all equally strict about what they do not know."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from lookalike.errors import InvalidParameter, InvalidRequest, PayloadTooLarge, TooManyItems
from lookalike.jobstore import Idempotency
from lookalike.uploads.space import full_disk_refused
from lookalike_web.errors import Problem, UnsupportedMediaType
from lookalike_web.wording import error_lines, shown

Model = TypeVar("Model", bound=BaseModel)

MULTIPART: Final = "multipart/form-data"
IMAGE_PART: Final = "image"  #: A picture; may be repeated.
ARCHIVE_PART: Final = "archive"  #: A zip or tar of pictures; comes alone.
MAX_JSON_BYTES: Final = 16 << 20  #: Room for the longest list of query vectors, not for more.
MAX_FORM_FIELD_BYTES: Final = 500_000  #: All fields of a form together, the images apart.
MAX_ERRORS: Final = 20  #: Lines in the `errors` of one answer.
MAX_KEY_CHARS: Final = 255

MAX_JSON_DEPTH: Final = 32  #: No documented body goes deeper than a third of this.


def is_multipart() -> bool:
    """Say which of the two content types a submit has; refuses any other."""
    if request.mimetype == MULTIPART:
        return True
    if request.is_json:
        return False
    raise UnsupportedMediaType(f"The request's Content-Type must be application/json or {MULTIPART}.")


def read_json(
    model: type[Model],
    *,
    defaults: Mapping[str, Any] | None = None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Model:
    """Read the request's JSON body, made complete by `prepare`. `defaults` stand in for fields that are absent."""
    if not request.is_json:
        raise UnsupportedMediaType("The request's Content-Type must be application/json.")
    request.max_content_length = MAX_JSON_BYTES
    try:
        body = request.get_data()
    except RequestEntityTooLarge as error:
        raise PayloadTooLarge(f"A JSON body may have at most {MAX_JSON_BYTES} bytes.") from error
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return _validate(model, {**(defaults or {}), **prepare(value)}, strict=True)


def read_form(
    model: type[Model], *, defaults: Mapping[str, Any] | None = None, json_fields: Iterable[str] = ()
) -> Model:
    """Read the form fields of a multipart request. Those named in `json_fields` hold JSON."""
    fields: dict[str, Any] = _single_values(_bounded_form())
    for name in set(json_fields) & fields.keys():
        fields[name] = parse_json(fields[name].encode(), what=f"The field `{name}`")
    return _validate(model, {**(defaults or {}), **fields})


def read_query(model: type[Model]) -> Model:
    """Read the request's query string."""
    return _validate(model, _single_values(request.args))


def read_images(*, at_most: int, limit_name: str) -> list[FileStorage]:
    """Return the `image` parts of a multipart request: at least one, and nothing but those."""
    return read_files((IMAGE_PART,), at_most=at_most, limit_name=limit_name)[1]


def read_files(allowed: Sequence[str], *, at_most: int, limit_name: str) -> tuple[str, list[FileStorage]]:
    """Return the file parts of a multipart request with the name they share; at least one, and one alone of archives.

    `allowed` are the names that a part may have.
    """
    _bounded_form()
    names = sorted(set(request.files))
    unknown = [name for name in names if name not in allowed]
    words = " or ".join(f"`{name}`" for name in allowed)
    if unknown:
        raise InvalidRequest(f"Unknown file part `{shown(unknown[0])}`. Files are sent as parts named {words}.")
    if not names:
        raise InvalidRequest(f"There is no file in the request. Send each as a part named {words}.")
    files = request.files.getlist(names[0])
    if len(names) > 1 or (names == [ARCHIVE_PART] and len(files) > 1):
        raise InvalidRequest("A request has either parts named `image`, or one part named `archive`.")
    if len(files) > at_most:
        raise TooManyItems(f"The request has {len(files)} images, and at most {at_most} are taken ({limit_name}).")
    return names[0], files


def read_roles(
    alone: Sequence[str], together: Sequence[str], *, at_most: int, limit_name: str
) -> dict[str, list[FileStorage]]:
    """Return the file parts of a multipart request by their names: one of `alone`, or of `together` the first at least.

    `at_most` is for all of them.
    """
    _bounded_form()
    names = set(request.files)
    allowed = [*alone, *together]
    words = " or ".join(f"`{name}`" for name in allowed)
    for unknown in sorted(names - set(allowed)):
        raise InvalidRequest(f"Unknown file part `{shown(unknown)}`. Files are sent as parts named {words}.")
    if not names:
        raise InvalidRequest(f"There is no file in the request. Send each as a part named {words}.")
    mixed = len(names) > 1 and not names <= set(together)
    if mixed or (names <= set(together) and together[0] not in names):
        raise InvalidRequest(
            f"A request has either parts named {' or '.join(f'`{name}`' for name in alone)}, "
            f"or parts named `{together[0]}` and beside them `{'`, `'.join(together[1:])}`."
        )
    found = {name: request.files.getlist(name) for name in sorted(names)}
    number = sum(len(files) for files in found.values())
    if number > at_most:
        raise TooManyItems(f"The request has {number} images, and at most {at_most} are taken ({limit_name}).")
    return found


def read_idempotency(kind: str, content: BaseModel, *, ignoring: Iterable[str] = ()) -> Idempotency | None:
    """Return the request's `Idempotency-Key` with a digest of what it asks for; None where it has no key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise InvalidParameter(f"An Idempotency-Key has 1 to {MAX_KEY_CHARS} printable ASCII characters.")
    asked = content.model_dump(mode="json", exclude=set(ignoring))
    canonical = json.dumps([kind, asked], sort_keys=True, separators=(",", ":"))
    return Idempotency(key=key, digest=_sha256(canonical))


def parse_json(data: bytes, *, what: str = "The body") -> Any:
    """Parse JSON strictly: UTF-8, no key twice, no NaN or infinity, no lone surrogate, no bottomless nesting."""

    def refuse(reason: str) -> NoReturn:
        raise InvalidRequest(f"{what} is not valid JSON: {reason}.")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(f"{text[:40]} is not a finite number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            refuse(f"the key {shown(twice)} appears twice")
        return dict(pairs)

    try:
        value = json.loads(data.decode(), parse_float=finite, parse_constant=finite, object_pairs_hook=unique)
        if b"\\u" in data:  # Only an escape can smuggle in half a character, which no store could write.
            json.dumps(value, ensure_ascii=False).encode()
        if _depth(value) > MAX_JSON_DEPTH:
            refuse("it is nested too deeply")
    except UnicodeError:
        refuse("it is not UTF-8 text")
    except json.JSONDecodeError as error:
        refuse(f"{error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        refuse("it is nested too deeply")
    except ValueError:
        refuse("it holds a number that is too long")
    return value


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _bounded_form() -> MultiDict[str, str]:
    """Read the form and its files, and say which limit it breaks where it breaks one."""
    try:
        with full_disk_refused():  # Larger parts are put aside while they arrive.
            return request.form
    except RequestEntityTooLarge as error:
        limit = request.max_content_length
        if limit is not None and (request.content_length or 0) > limit:
            raise PayloadTooLarge(f"A request may have at most {limit} bytes (LOOKALIKE_MAX_UPLOAD_BYTES).") from error
        raise TooManyItems(
            f"A form may have at most {request.max_form_parts} parts, and its fields {MAX_FORM_FIELD_BYTES} bytes."
        ) from error


def _single_values(values: MultiDict[str, str]) -> dict[str, Any]:
    for name in values:
        if len(values.getlist(name)) > 1:
            raise InvalidRequest(f"`{shown(name)}` is given more than once.")
    return values.to_dict()


def _validate(model: type[Model], values: Mapping[str, Any], *, strict: bool = False) -> Model:
    """Check values against a record. `strict` is for JSON, whose values have types: `0` is not `false`, nor `"3"` 3.

    What a form or a query string holds is text, and is read as what its field is.
    """
    try:
        if strict:  # Only as JSON does pydantic take a list for a tuple, and a text for a date, where it is strict.
            return model.model_validate_json(json.dumps(values), strict=True)
        return model.model_validate(values)
    except ValidationError as error:
        lines = error_lines(error)
    first = lines[0]["msg"]
    more = f", and {len(lines) - 1} more: see `errors`" if len(lines) > 1 else ""
    raise Problem(InvalidRequest(f"{first}{more}."), members={"errors": lines[:MAX_ERRORS]})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
