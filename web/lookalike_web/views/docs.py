"""The API's own documentation: `/openapi.json`, and `/docs` made from it, without a byte from elsewhere."""

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from flask import Blueprint, Response, current_app, render_template, request

from lookalike.errors import LookalikeError, error_classes
from lookalike_web.errors import STATUS, status_of
from lookalike_web.openapi import JSON, Answer, Operation, operation
from lookalike_web.parsing import MULTIPART

EXTENSION: Final = "lookalike_openapi"

blueprint = Blueprint("docs", __name__, static_folder="../static", static_url_path="/docs/static")


@blueprint.get("/openapi.json")
@operation(Operation(tag="service", answers={200: Answer(description="This API, as OpenAPI 3.1.")}))
def get_openapi() -> Response:
    """Get the description of this API for programs."""
    return Response(json.dumps(_document()), mimetype=JSON)


@blueprint.get("/docs")
@operation(Operation(tag="service", answers={200: Answer(description="This API, for people.", media=("text/html",))}))
def get_docs() -> str:
    """Read the description of this API."""
    document = _document()
    base = request.host_url.rstrip("/")  # A reader's examples work as they stand.
    sections: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, item in methods.items():
            call = {"method": method.upper(), "path": path, "curl": curl_example(method, base + path, item), **item}
            sections[item["tags"][0]].append(call)
    return render_template(
        "docs.html",
        info=document["info"],
        base=base,
        sections=sections,
        schemas=document["components"]["schemas"],
        problems=_problems(),
        type_text=type_text,
    )


def type_text(schema: Mapping[str, Any]) -> str:
    """Say in words what values a JSON schema takes."""
    match schema:
        case {"anyOf": list(options)} | {"oneOf": list(options)}:
            return " | ".join(map(type_text, options))
        case {"items": dict(items)}:
            return f"list of {type_text(items)}"
        case {"additionalProperties": dict(values)} if values:
            return f"object of {type_text(values)}"
        case {"enum": list(values)}:
            return " | ".join(map(json.dumps, values))
        case {"const": value}:
            return json.dumps(value)
    simple = schema.get("$ref") or schema.get("contentMediaType") or schema.get("type", "any")
    return str(simple).removeprefix("#/components/schemas/")


def curl_example(method: str, url: str, item: Mapping[str, Any]) -> str:
    """Write a call of an endpoint as a command."""
    flags = "" if method == "get" else f" -X {method.upper()}"
    content = item.get("requestBody", {}).get("content", {})
    address = url.replace("{", "$").replace("}", "")
    if example := content.get(JSON, {}).get("example"):
        return f"curl {address} --json '{json.dumps(example)}'"
    if MULTIPART in content:
        return f"curl {address} -F image=@a.jpg -F image=@b.jpg"
    if raw := next(iter(content), None):
        return f"curl{flags} {address} -H 'Content-Type: {raw}' -H 'Upload-Offset: 0' --data-binary @piece"
    return f"curl{flags} {address}"


def _document() -> dict[str, Any]:
    return cast("dict[str, Any]", current_app.extensions[EXTENSION])


def _problems() -> list[dict[str, Any]]:
    """List every code that an answer or a record can carry, by status."""
    answered = [
        cls
        for cls in error_classes().values()
        if cls is LookalikeError or any(base in STATUS for base in cls.__mro__ if base is not LookalikeError)
    ]
    lines = [{"status": status_of(cls), "code": cls.code, "text": cls().message} for cls in answered]
    return sorted(lines, key=lambda line: (line["status"], line["code"]))
