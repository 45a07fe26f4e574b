"""The environment of a child: the settings as variables, so that neither argv nor a file holds a secret.

This module copies the environment of this process for its children and reads no setting from it.
"""

import os
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from lookalike.errors import SetupError
from lookalike.settings import Settings

_PREFIX: Final = "LOOKALIKE_"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def child_environment(
    settings: Settings, *, without: Collection[str] = (), more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment of a child that is to read exactly these settings.

    `without` names settings that the child is to find unset, `more` adds variables.
    """
    names = {_PREFIX + name.upper() for name in type(settings).model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in names}
    for name in type(settings).model_fields:
        text = _as_text(getattr(settings, name))
        if text and name not in without:
            environment[_PREFIX + name.upper()] = text
    return {
        **environment,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # The working folder is the data folder: nothing is imported from there.
        "PYTHON_DOTENV_DISABLED": "1",  # pymilvus would read a .env file from wherever it finds one.
        # gRPC sends even what is meant for this machine through a proxy that the environment names.
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), *_LOOPBACK])),
        **(more or {}),
    }


def _as_text(value: object) -> str | None:
    match value:
        case None:
            return None
        case SecretStr():
            return value.get_secret_value()
        case Enum():
            return str(value.value)
        case tuple():
            return _joined(value)
        case _:
            return str(value)


def _joined(values: tuple[object, ...]) -> str:
    separator = os.pathsep if any(isinstance(value, Path) for value in values) else ","
    parts = [_as_text(value) or "" for value in values]
    for part in parts:
        if separator in part:
            raise SetupError(f"{part!r} cannot be handed on, because {separator!r} separates a list. Rename it.")
    return separator.join(parts)
