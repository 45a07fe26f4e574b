"""Endpoints, declared once: the declaration checks what a view is given, and OpenAPI 3.1 is generated from it.

docs/decisions/0003-openapi.md says why this is no library's work.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from typing import Any, Final, TypeVar, cast

from flask import Flask, request
from pydantic import BaseModel, JsonValue
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from lookalike.errors import Forbidden, InvalidRequest, LookalikeError, PayloadTooLarge, Unauthorized
from lookalike.records import IngestResult, Record, SearchResult
from lookalike.records.kinds import STEP_RESULTS
from lookalike_web.auth import PROTECTED_PREFIX, caller
from lookalike_web.errors import PROBLEM_JSON, NotAcceptable, UnsupportedMediaType, URITooLong, status_of, title_of
from lookalike_web.fielddocs import field_docs, value_docs
from lookalike_web.keys import Right
from lookalike_web.parsing import ARCHIVE_PART, IMAGE_PART, MAX_KEY_CHARS, MULTIPART, read_query

JSON: Final = "application/json"
_OPERATION: Final = "__lookalike_operation__"
TAGS: Final = (
    "ingests",
    "uploads",
    "searches",
    "jobs",
    "collections",
    "images",
    "service",
)  #: In the order of a first use.
_REF: Final = "#/components/schemas/{model}"

#: What a job's record may have as its result.
_RESULTS: Final[tuple[type[Record], ...]] = (SearchResult, IngestResult, *dict.fromkeys(STEP_RESULTS.values()))
_EVENT_STREAM: Final = "text/event-stream"

#: The forms of request headers that have one; the others are any text.
_HEADER_FORMS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Senders and proxies drop blanks around a header's value, so that it can neither begin nor end with one.
    "Idempotency-Key": {"schema": {"type": "string", "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]([ -~]*[!-~])?$"}},
    "Upload-Offset": {"schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, "required": True},
}

#: The schemas of file parts.
_PARTS: Final[Mapping[str, Any]] = {
    IMAGE_PART: {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "contentMediaType": "image/*"},
        "description": "A picture's file; repeat the part for more.",
    },
    ARCHIVE_PART: {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "description": "A zip, tar or tar.gz of pictures; instead of `image`.",
    },
}

T = TypeVar("T")
View = Callable[..., Response | str]


class ProblemDetails(BaseModel):
    """An error, after RFC 9457. Programs read `code`, people read `detail`."""

    type: str  #: Where the documentation explains this code.
    title: str
    status: int
    detail: str  #: What happened and what to do next.
    code: str
    request_id: str  #: Also in the X-Request-ID header and in the service's log.
    instance: str
    offset: int | None = None  #: With `upload_conflict`: where the upload stands.
    errors: list[dict[str, str]] = []  #: With `invalid_request`: what is wrong with which field (`loc`, `msg`).


class NoQuery(Record):
    """A query string without parameters."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One way a request can succeed."""

    description: str
    model: type[BaseModel] | None = None  #: Of the JSON body; None for other bodies, or none.
    media: tuple[str, ...] = (JSON,)  #: What the Accept header can choose from.


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What an endpoint takes and answers. Its description is the view's docstring."""

    tag: str
    answers: Mapping[int, Answer]
    right: Right | None = None  #: What the caller's key has to have; None for none beyond being one.
    errors: tuple[type[LookalikeError], ...] = ()  #: Beside those that every endpoint has.
    query: type[Record] = NoQuery
    json: type[BaseModel] | None = None
    form: type[BaseModel] | None = None  #: The fields of a multipart request beside its files.
    files: tuple[str, ...] = (IMAGE_PART,)  #: The names its file parts may have.
    raw: str | None = None  #: The media type of a body that is taken as it is.
    headers: Mapping[str, str] = field(default_factory=dict)  #: Request headers with their meaning.
    example: JsonValue = None  #: A JSON body.

    @property
    def media(self) -> tuple[str, ...]:
        """Every type this endpoint can answer with, its first choice first."""
        return tuple(dict.fromkeys(kind for answer in self.answers.values() for kind in answer.media))


def operation(declared: Operation) -> Callable[[View], View]:
    """Declare an endpoint: its view is called with the `query` it declares, and only if its answer is acceptable."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(**path: str) -> Response | str:
            if declared.right:
                caller().require(declared.right)
            if declared.media and not request.accept_mimetypes.best_match(declared.media) and request.accept_mimetypes:
                raise NotAcceptable(f"This address answers {' or '.join(declared.media)}, which Accept does not allow.")
            query = read_query(declared.query)
            return view(**path) if declared.query is NoQuery else view(query=query, **path)

        setattr(checked, _OPERATION, declared)
        return checked

    return decorate


def build(app: Flask, *, version: str) -> dict[str, Any]:
    """Generate the OpenAPI document of an app's declared endpoints."""
    declared = [
        (rule, view, getattr(view, _OPERATION))
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
        if hasattr(view := cast(View, app.view_functions[rule.endpoint]), _OPERATION)
    ]
    schemas = _schemas([operation for _, _, operation in declared])
    paths: dict[str, dict[str, Any]] = {}
    for rule, view, operation in declared:
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            paths.setdefault(path, {})[method.lower()] = _path_item(rule, view, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lookalike",
            "version": version,
            "summary": "Asynchronous image-similarity search.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Schemas(GenerateJsonSchema):
    """Draft 2020-12, which is OpenAPI 3.1's; without pydantic's generated titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the parent's signature
        return False


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    taken = {model for operation in operations for model in (operation.json, operation.form, operation.query) if model}
    given = {answer.model for operation in operations for answer in operation.answers.values() if answer.model}
    given |= {ProblemDetails, *_RESULTS}
    _, document = models_json_schema(
        [(model, "validation") for model in sorted(taken - given, key=lambda model: model.__name__)]
        + [(model, "serialization") for model in sorted(given, key=lambda model: model.__name__)],
        ref_template=_REF,
        schema_generator=_Schemas,
    )
    schemas: dict[str, Any] = document["$defs"]
    _describe(schemas)
    # The store keeps results as they are; what they look like is the workers' promise, told here.
    results = [{"$ref": _REF.format(model=model.__name__)} for model in _RESULTS]
    if "JobRecord" in schemas:
        schemas["JobRecord"]["properties"]["result"] = {"anyOf": [*results, {"type": "null"}]}
    return schemas


def _describe(schemas: dict[str, Any]) -> None:
    """Add what the records' comments say of their fields and values."""
    for model in _descendants(BaseModel):
        for name, text in field_docs(model).items() if model.__name__ in schemas else ():
            schemas[model.__name__].get("properties", {}).get(name, {}).setdefault("description", text)
    for enum in _descendants(StrEnum):
        if enum.__name__ in schemas and (text := value_docs(enum)):
            schemas[enum.__name__]["description"] = f"{schemas[enum.__name__].get('description', '')} {text}".strip()


def _descendants(root: type[T]) -> list[type[T]]:
    ours = [cls for cls in root.__subclasses__() if cls.__module__.startswith(("lookalike", "pydantic.main"))]
    return [found for cls in ours for found in (cls, *_descendants(cls))]


def _path_item(rule: Rule, view: View, operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
    item: dict[str, Any] = {
        "operationId": view.__name__,
        "tags": [operation.tag],
        "summary": summary.rstrip("."),
        "parameters": _parameters(rule, operation, schemas),
        "responses": _responses(rule, operation),
    }
    if description:
        item["description"] = " ".join(description.split())
    if content := _request_content(operation, schemas):
        item["requestBody"] = {"required": True, "content": content}
    if rule.rule.startswith(PROTECTED_PREFIX):
        item["security"] = [{"apiKey": []}, {}]
    if operation.right:
        item["x-right"] = operation.right
    return item


def _parameters(rule: Rule, operation: Operation, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in sorted(rule.arguments)
    ]
    known = schemas[operation.query.__name__] if operation.query is not NoQuery else {}
    query = [
        {
            "name": name,
            "in": "query",
            "required": name in known.get("required", ()),
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in known.get("properties", {}).items()
    ]
    headers = [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}, **_HEADER_FORMS.get(name, {})}
        for name, text in operation.headers.items()
    ]
    return path + query + headers


def _request_content(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.json:
        content[JSON] = {"schema": {"$ref": _REF.format(model=operation.json.__name__)}}
        if operation.example is not None:
            content[JSON]["example"] = operation.example
    if operation.form:
        content[MULTIPART] = _form_content(operation, schemas[operation.form.__name__])
    if operation.raw:
        content[operation.raw] = {"schema": {}}
    return content


def _form_content(operation: Operation, fields: dict[str, Any]) -> dict[str, Any]:
    parts = {name: _PARTS[name] for name in operation.files}
    one = [{"required": [name]} for name in operation.files]
    needed = {"required": [*operation.files, *fields.get("required", ())]} if len(one) == 1 else {"oneOf": one}
    return {
        "schema": {**fields, "properties": {**parts, **fields["properties"]}, **needed},
        "encoding": {IMAGE_PART: {"contentType": "image/*"}},
    }


def _responses(rule: Rule, operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        responses[str(status)] = {"description": answer.description}
        if answer.media:
            responses[str(status)]["content"] = {media: _body(answer, media) for media in answer.media}
    general: tuple[type[LookalikeError], ...] = (InvalidRequest, NotAcceptable, LookalikeError)
    if operation.query is not NoQuery:
        general = (*general, URITooLong)
    if operation.json or operation.form or operation.raw:
        general = (*general, PayloadTooLarge, UnsupportedMediaType)
    if rule.rule.startswith(PROTECTED_PREFIX):
        general = (*general, Unauthorized)
    if operation.right:
        general = (*general, Forbidden)
    codes: dict[int, list[str]] = {}
    for error in dict.fromkeys((*operation.errors, *general)):
        codes.setdefault(status_of(error), []).append(error.code)
    for status in sorted(codes):
        responses[str(status)] = {
            "description": "; ".join(title_of(code) for code in codes[status]) + ".",
            "content": {PROBLEM_JSON: {"schema": {"$ref": _REF.format(model="ProblemDetails")}}},
            "x-codes": codes[status],
        }
    return responses


def _body(answer: Answer, media: str) -> dict[str, Any]:
    if media == JSON and answer.model:
        return {"schema": {"$ref": _REF.format(model=answer.model.__name__)}}
    if media == _EVENT_STREAM:  # A schema would be each event's, which OpenAPI can say only from 3.2 on.
        return {}
    return {"schema": {"type": "string"}} if media.startswith("text/") else {}
