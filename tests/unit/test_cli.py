import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import httpx2
import pytest
from click.testing import CliRunner

import lookalike
from lookalike import errors
from lookalike.cli import main
from lookalike.cli.exits import Exit, exit_of
from lookalike.cli.output import cell
from lookalike.cli.progress import LINE_EVERY_S, describe, duration, progress_report
from lookalike.records import Progress

#: What a command line has no use for before it knows what to do.
HEAVY = {"pydantic", "pydantic_settings", "httpx2", "rich", "PIL", "numpy", "redis", "celery", "flask", "torch"}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOOKALIKE_")]:
        monkeypatch.delenv(name)


def commands(group: click.Group = main, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


def run(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(main, arguments, **options)


# --- What it costs to start -----------------------------------------------------------------------------------------


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_that_takes_time() -> None:
    loaded = modules_after("from lookalike.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n")
    assert "lookalike.cli.search" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_client_needs_nothing_beyond_the_base_installation() -> None:
    base = {"click", "httpx2", "pydantic", "pydantic_settings", "rich"}
    assert modules_after("import lookalike; lookalike.Client()").isdisjoint(HEAVY - base)


def test_importing_the_package_costs_nothing_and_its_names_are_all_there() -> None:
    assert modules_after("import lookalike").isdisjoint(HEAVY)
    assert all(getattr(lookalike, name).__name__ == name for name in lookalike.__all__)
    assert set(lookalike.__all__) <= set(dir(lookalike))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lookalike.nonsense


# --- Help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    help_text = run(*path, "--help").stdout
    assert "Example" in help_text
    assert f"lookalike {' '.join(path)}" in help_text


def test_every_option_says_what_it_does() -> None:
    silent = [
        (path, option.name)
        for path, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.startswith("lookalike, version 0.")


# --- Exit codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobFailed(), 1),
        (errors.JobCancelled(), 1),
        (errors.Unauthorized(), 1),
        (errors.InvalidFilter(), 2),
        (errors.InvalidPath(), 2),
        (errors.JobNotFound(), 3),
        (errors.JobExpired(), 3),
        (errors.CollectionNotFound(), 3),
        (errors.ImageNotFound(), 3),
        (errors.FolderNotFound(), 3),
        (errors.FileMissing(), 3),
        (errors.FileEmpty(), 1),
        (errors.ServiceUnreachable(), 4),
        (errors.QueueUnavailable(), 4),
        (errors.VectorStoreUnavailable(), 4),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_an_error_has_its_exit_code(error: errors.LookalikeError, code: int) -> None:
    assert exit_of(error) == code


def test_the_documented_exit_codes_are_those_in_use() -> None:
    text = " ".join(run("--help").stdout.split())
    for code in Exit:
        assert f" {code:d} " in text


def test_an_error_is_one_line_with_its_code_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    monkeypatch.setattr(httpx2.Client, "request", fail)
    result = run("--url", "http://127.0.0.1:9", "jobs", "ls")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("error: No lookalike service answers at http://127.0.0.1:9")
    assert result.stderr.endswith("(service_unreachable)\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("search",),
        ("search", "a.jpg", "-k", "0"),
        ("search", "a.jpg", "--id", "--in-place"),
        ("ingest", "photos", "-m", "album"),
        ("ingest", "photos", "-m", "=spring"),
        ("jobs", "ls", "--state", "lost"),
        ("collections", "create", "x", "--metric", "HAMMING"),
        ("up", "--root", "/no/such/folder"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_refused_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(("jobs", "ls"), "LOOKALIKE_TIMEOUT_S"), (("status",), "LOOKALIKE_PORT"), (("up",), "LOOKALIKE_PORT")],
)
def test_a_setting_that_cannot_be_read_is_named(
    arguments: tuple[str, ...], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "much")
    result = run(*arguments)
    assert result.exit_code == 2
    assert variable in result.stderr


def test_the_status_of_a_stack_that_is_not_there_is_unreachable(tmp_path: Any) -> None:
    result = run("status", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (4, "")
    assert "not_running" in result.stderr


# --- Output ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.1 + 0.2, "0.3"),
        (7, "7"),
        ("naïve café.jpg", "naïve café.jpg"),
        ("tab\there\nand\x1b[31mred", r"tab\there\nand\x1b[31mred"),
        ("not \udcff text", r"not \udcff text"),
    ],
)
def test_a_cell_cannot_break_its_line_or_the_terminal(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(), "0 images"),
        (Progress(total=10, done=4, stored=4), "4 of 10 images"),
        (
            Progress(total=10, done=4, failed=1, images_per_s=2.04, eta_s=3.1),
            "4 of 10 images, 1 failed, 2.0 a second, 3 s left",
        ),
    ],
)
def test_progress_is_told_in_words(progress: Progress, text: str) -> None:
    assert describe(progress) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5 s"), (89, "89 s"), (120, "2 min"), (7800, "2 h 10 min")])
def test_a_duration_is_told_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_in_a_pipe_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress_report("ingest") as show:
        for done in range(12):
            show(Progress(done=done))
            now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 // LINE_EVERY_S
    assert lines[0] == "ingest: 5 images"


# --- Ingest's metadata ----------------------------------------------------------------------------------------------


def test_metadata_are_numbers_truth_values_or_text(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    def keep(_: httpx2.Client, method: str, path: str, **options: Any) -> httpx2.Response:
        sent.append(options["json"])
        request = httpx2.Request(method, "http://127.0.0.1" + path)
        return httpx2.Response(404, json={"code": "folder_not_found", "detail": "No."}, request=request)

    monkeypatch.setattr(httpx2.Client, "request", keep)
    given = {"year": "2024", "score": "0.5", "kept": "true", "zip": "01234", "id": '"7"', "tags": "[1]", "n": "NaN"}
    options = [word for name, text in given.items() for word in ("-m", f"{name}={text}")]
    run("ingest", "somewhere/else", *options)
    assert json.dumps(sent[0]["metadata"]) == json.dumps(
        {"year": 2024, "score": 0.5, "kept": True, "zip": "01234", "id": "7", "tags": "[1]", "n": "NaN"}
    )
