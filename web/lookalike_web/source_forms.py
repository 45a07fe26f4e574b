"""How requests name a source: by its type, without one by its path as a folder."""

from typing import Any


def folder_by_default(body: dict[str, Any]) -> dict[str, Any]:
    """Take a source without a `type` for a folder."""
    source = body.get("source")
    return {**body, "source": {"type": "folder", **source}} if isinstance(source, dict) else body


def any_of(schema: dict[str, Any]) -> None:
    """Change a source's schema: without a `type` it may have the form of several; then it is a folder."""
    schema["anyOf"] = schema.pop("oneOf")
