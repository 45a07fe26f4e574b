"""What the manual and the declarations show of the API is what the OpenAPI document describes."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fakes import build_web
from pages import RUN_KINDS, Block, blocks, pages

Schema = dict[str, Any]
_BODY = re.compile(r"""--json\s+('(?:[^']|'\\'')*')""")
_ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):8000(/[^\s'\"?]*)")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schema]:
    web = build_web(tmp_path_factory.mktemp("web"))
    yield web.client.get("/openapi.json").json
    web.close()


def wrong(document: Schema, schema: Schema, value: object) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    whole = {**schema, "components": document["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def request_schema(document: Schema, path: str, method: str) -> Schema:
    """The schema of the JSON body that an address takes."""
    for template, methods in document["paths"].items():
        if method in methods and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            found: Schema = methods[method]["requestBody"]["content"]["application/json"]["schema"]
            return found
    raise AssertionError(f"nothing takes {method.upper()} {path}")


def bodies() -> list[tuple[Block, str, str, str]]:
    """Each JSON body that a page sends with curl, with its method and address."""
    found = []
    for page in pages():
        for block in blocks(page):
            text = block.text.replace("\\\n", " ") if block.kind in RUN_KINDS else ""
            commands = [command for command in re.split(r"(?m)^(?=.*\bcurl\b)", text) if "--json" in command]
            for command in commands:
                address, body = _ADDRESS.search(command), _BODY.search(command)
                method = re.search(r"-X (\w+)", command)
                if address and body:
                    [value] = shlex.split(body[1])
                    found.append((block, (method[1] if method else "post").lower(), address[1], value))
    return found


@pytest.mark.parametrize("sent", bodies(), ids=lambda sent: str(sent[0]))
def test_what_a_page_sends_has_the_documented_form(document: Schema, sent: tuple[Block, str, str, str]) -> None:
    block, method, path, body = sent
    assert wrong(document, request_schema(document, path, method), json.loads(body)) == [], block


def test_the_pages_send_many_bodies() -> None:
    assert len(bodies()) > 5


def test_every_declared_example_has_its_declared_form(document: Schema) -> None:
    shown = [
        (name, content)
        for name, methods in document["paths"].items()
        for operation in methods.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "example" in content
    ]
    assert shown
    for name, content in shown:
        assert wrong(document, content["schema"], content["example"]) == [], name


def printed() -> list[tuple[Block, object]]:
    """Each value in the JSON blocks of the HTTP manual."""
    found = []
    for block in blocks(next(page for page in pages() if page.name == "http-api.md")):
        text, decoder = block.text.strip() if block.kind == "json" else "", json.JSONDecoder()
        while text:
            value, end = decoder.raw_decode(text)
            found.append((block, value))
            text = text[end:].strip()
    return found


@pytest.mark.parametrize("shown", printed(), ids=lambda shown: str(shown[0]))
def test_what_the_manual_shows_is_a_record_of_the_api(document: Schema, shown: tuple[Block, object]) -> None:
    """No record takes fields it does not know but a problem, which has fields it needs."""
    block, value = shown
    closed = {
        name: schema
        for name, schema in document["components"]["schemas"].items()
        if schema.get("additionalProperties") is False or name == "ProblemDetails"
    }
    assert any(not wrong(document, schema, value) for schema in closed.values()), f"{block}: {value}"
