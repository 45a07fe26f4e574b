"""The `#:` comments of the records, read from their source, so that the API's documentation says the same."""

import inspect
import re
from enum import Enum
from functools import cache

from pydantic import BaseModel

_BESIDE = re.compile(r"^    (\w+)\s*[:=].*?\s#:\s*(.+)$")
_ABOVE = re.compile(r"^    #:\s*(.+)$")
_NAME = re.compile(r"^    (\w+)\s*[:=]")


@cache
def own_docs(cls: type) -> dict[str, str]:
    """Return the documented names of one class, its ancestors' apart."""
    docs: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        if found := _ABOVE.match(line):
            above.append(found[1])
        elif found := _BESIDE.match(line):
            docs[found[1]] = found[2]
            above.clear()
        else:
            if above and (found := _NAME.match(line)):
                docs[found[1]] = " ".join(above)
            above.clear()
    return docs


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the documented fields of a model, inherited ones included."""
    ancestors = [cls for cls in reversed(model.__mro__) if issubclass(cls, BaseModel) and cls is not BaseModel]
    return {name: text for cls in ancestors for name, text in own_docs(cls).items()}


def value_docs(enum: type[Enum]) -> str:
    """Return the documented values of an enumeration as one paragraph."""
    docs = own_docs(enum)
    return " ".join(f"`{member.value}`: {docs[member.name]}" for member in enum if member.name in docs)
