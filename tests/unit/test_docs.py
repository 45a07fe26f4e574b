"""The documentation says all there is, and nothing that is not."""

import importlib
import re
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import lookalike_web.errors  # noqa: F401 - Its classes join the error tree.
from lookalike.broker import WORKER_SOCKET_TIMEOUT_S, celery_config
from lookalike.cli import main
from lookalike.errors import error_classes
from lookalike.settings import ClientSettings, Settings
from lookalike.supervisor.servers import redis_command
from lookalike.supervisor.stack import RUN_ID
from pages import (
    CONSOLE,
    REPOSITORY,
    blocks,
    console_commands,
    inline_code,
    known_tests,
    links,
    name,
    pages,
    prose,
    table_rows,
)
from pages import anchors as anchors_of

PAGES = pytest.mark.parametrize("page", pages(), ids=name)
DOCS = REPOSITORY / "docs"
CONFIGURATION = DOCS / "configuration.md"

#: What a backticked path begins with.
TOP = ("common/", "web/", "worker/", "tests/", "docs/", "bench/", "deploy/", ".ci/")


# --- Settings -------------------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A default as the page shows it."""
    if value is None:
        return "unset"
    if value == ():
        return "none"
    match value:
        case SecretStr():
            text = value.get_secret_value()
        case Enum():
            text = str(value.value)
        case tuple():
            text = ",".join(map(str, value))
        case float():
            text = f"{value:.0f}" if value.is_integer() else str(value)
        case _:
            text = str(value)
    return f"`{text}`"


@pytest.mark.parametrize(("heading", "settings"), [("## The service", Settings), ("## The client", ClientSettings)])
def test_every_setting_is_documented_with_its_default(heading: str, settings: type[BaseSettings]) -> None:
    section = CONFIGURATION.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    documented = {row[0]: row[1] for row in table_rows(section) if row[0].startswith("`LOOKALIKE_")}
    expected = {f"`LOOKALIKE_{field.upper()}`": shown(info.default) for field, info in settings.model_fields.items()}
    assert documented == expected


@PAGES
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = {f"LOOKALIKE_{field.upper()}" for cls in (Settings, ClientSettings) for field in cls.model_fields}
    named = set(re.findall(r"LOOKALIKE_[A-Z_]*[A-Z]", page.read_text()))
    assert named <= known | {RUN_ID}


def celery_settings() -> Iterator[str]:
    for key, value in celery_config(Settings(), socket_timeout_s=WORKER_SOCKET_TIMEOUT_S).items():
        if key == "broker_transport_options":
            yield from (f"{key}.{option}" for option in value)
        else:
            yield key


def gunicorn_settings() -> list[str]:
    module: ModuleType = importlib.import_module("lookalike_web.gunicorn_conf")
    from gunicorn.config import KNOWN_SETTINGS

    hooks = {"post_worker_init", "worker_exit"}
    return sorted({setting.name for setting in KNOWN_SETTINGS} & set(vars(module)) - hooks)


def redis_settings() -> list[str]:
    command = redis_command(Path("redis-server"), 1, Path("folder"))
    return [word.removeprefix("--") for word in command if word.startswith("--")]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("Celery", list(celery_settings())), ("Redis", redis_settings()), ("gunicorn", gunicorn_settings())],
)
def test_the_servers_settings_are_documented_and_no_others(heading: str, expected: list[str]) -> None:
    section = CONFIGURATION.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    documented = [code for row in table_rows(section) for code in re.findall("`([^`]+)`", row[0])]
    assert sorted(documented) == sorted(expected)


# --- The command line -----------------------------------------------------------------------------------------------


def commands(group: click.Command, words: tuple[str, ...] = ("lookalike",)) -> Iterator[tuple[str, click.Command]]:
    for child in getattr(group, "commands", {}).values():
        path = (*words, child.name)
        yield " ".join(path), child
        yield from commands(child, path)


def options(command: click.Command) -> set[str]:
    return {word for param in command.params if isinstance(param, click.Option) for word in param.opts}


def all_options(command: click.Command) -> set[str]:
    secondary = (param.secondary_opts for param in command.params if isinstance(param, click.Option))
    return options(command) | {word for words in secondary for word in words} | {"-h", "--help", "--version"}


COMMANDS = dict(commands(main))
COMMON = options(main) - {"--version"}


def test_every_command_and_option_is_documented_and_no_others() -> None:
    text = (DOCS / "cli.md").read_text()
    sections = {
        title: body.split("\n## ")[0]
        for title, body in re.findall(r"^#{3,4} (.+?)\n(.*?)(?=^###|\Z)", text, re.M | re.S)
    }
    assert sorted(sections) == sorted(COMMANDS)
    for title, command in COMMANDS.items():
        documented = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", sections[title])) - COMMON
        assert documented == all_options(command) - COMMON - {"-h", "--help", "--version"}, title


def spoken() -> Iterator[tuple[str, str]]:
    """Every `lookalike ...` that a page speaks of."""
    for page in pages():
        for code in inline_code(page):
            yield name(page), code
        for block in blocks(page):
            if block.kind == CONSOLE:
                yield from ((str(block), command) for command in console_commands(block))


def test_every_command_that_is_spoken_of_exists_with_its_options() -> None:
    for place, code in spoken():
        words = code.split()
        if words[0] != "lookalike" or len(words) == 1:
            continue
        known: set[str] = COMMON | {"--help", "--version"}
        if not words[1].startswith("-"):
            path = " ".join(words[:3]) if " ".join(words[:3]) in COMMANDS else " ".join(words[:2])
            assert path in COMMANDS, f"{place}: {code}"
            known |= all_options(COMMANDS[path])
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, f"{place}: {code}"


def test_every_make_target_that_is_spoken_of_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    for place, code in spoken():
        words = code.split()
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"{place}: {code}"


# --- Errors ---------------------------------------------------------------------------------------------------------


def documented_codes(page: Path) -> set[str]:
    """What stands in backticks in the column `code` of a page's tables."""
    found: set[str] = set()
    for section in re.split(r"\n{2,}", prose(page)):
        head = section.lstrip().split("\n")[0]
        cells = [cell.strip() for cell in head.strip("|").split("|")]
        if "code" in cells:
            column = cells.index("code")
            found |= {code for row in table_rows(section) for code in re.findall("`([a-z_]+)`", row[column])}
    return found


def test_every_error_code_is_documented_and_no_others() -> None:
    documented = documented_codes(DOCS / "http-api.md") | documented_codes(DOCS / "operations.md")
    spoken_of = {"quarantined"}  # In http-api.md in a sentence of its own.
    assert documented | spoken_of == set(error_classes())


# --- Links, files and tests -----------------------------------------------------------------------------------------


@PAGES
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        target, _, fragment = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), link
        assert found.is_relative_to(REPOSITORY), link
        if fragment:
            assert fragment in anchors_of(found), link


@PAGES
def test_every_file_that_is_named_exists(page: Path) -> None:
    for code in inline_code(page):
        path = code.split("::")[0]
        if path.startswith(TOP) and re.fullmatch(r"[\w./*-]+", path):
            assert list(REPOSITORY.glob(path.rstrip("/"))), path


@PAGES
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = {code for code in inline_code(page) if re.fullmatch(r"test_\w+", code)}
    assert named <= known_tests()


def test_every_promise_is_shown_by_a_test_or_said_not_to_be() -> None:
    promises = (DOCS / "operations.md").read_text().split("### Shown by tests\n")[1].split("\n###")[0]
    rows = [row for row in table_rows(promises) if row[0] != "what happens"]
    invariants = (DOCS / "architecture.md").read_text().split("## Invariants\n")[1].split("\n## ")[0]
    kept = [row for row in table_rows(invariants) if row[0]]
    assert len(rows) > 15
    assert len(kept) == 10
    for row in rows:
        assert re.search(r"`test_\w+`", row[-1]), row[0]
    for row in kept:
        assert re.search(r"`test_\w+`", row[-1]) or row[-1] == "no test of its own yet", row[1]


def test_every_decision_is_listed_and_has_what_would_change_it() -> None:
    listed = set(links(DOCS / "decisions" / "README.md"))
    notes = sorted((DOCS / "decisions").glob("0*.md"))
    assert listed == {note.name for note in notes}
    numbers = [int(note.name[:4]) for note in notes]
    assert numbers == list(range(1, len(notes) + 1))
    for note in notes:
        assert "What would change it" in note.read_text(), note.name


def test_the_versions_agree() -> None:
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"## {project['version']}" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()
