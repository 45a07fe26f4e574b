import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest
from click.testing import CliRunner

import lookalike
from lookalike import errors
from lookalike.cli import main
from lookalike.cli.exits import Exit, exit_of
from lookalike.cli.outcome import JOB_COLUMNS
from lookalike.cli.output import cell
from lookalike.cli.progress import LINE_EVERY_S, describe, duration, progress_report
from lookalike.cli.search import HIT_COLUMNS
from lookalike.cli.table import show_table
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
        ("collections", "create", "x", "--tiles", "5"),
        ("collections", "create", "x", "--tile-overlap", "0.5"),
        ("up", "--root", "/no/such/folder"),
        ("nonsense",),
        ("--url", "foo", "jobs", "ls"),
        ("search", "."),
        ("search", "a.jpg", "--figure", "no/such/folder/hits.png"),
        ("demo", "--out", "no/such/folder/hits.png"),
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


def test_a_full_disk_behind_stdout_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for arguments in (["--help"], ["doctor", "--data-dir", str(tmp_path), "--url", "http://127.0.0.1:9"]):
            done = subprocess.run(
                [sys.executable, "-c", "from lookalike.cli import main; main()", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.endswith("error: No space left on device.\n")
            assert "Traceback" not in done.stderr


def test_a_missing_key_is_told_with_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: httpx2.Client, method: str, path: str, **__: Any) -> httpx2.Response:
        request = httpx2.Request(method, "http://127.0.0.1" + path)
        return httpx2.Response(401, json={"code": "unauthorized", "detail": "Send a header."}, request=request)

    monkeypatch.setattr(httpx2.Client, "request", refuse)
    result = run("jobs", "ls")
    assert "Set LOOKALIKE_API_KEY" in result.stderr
    assert "header" not in result.stderr


@pytest.mark.parametrize(
    ("weights", "file", "ok", "detail"),
    [
        ("IMAGENET1K_V1", None, False, "not here yet; the first start downloads them"),
        ("IMAGENET1K_V1", "models/checkpoints/wide_resnet50_2-1.pth", False, "not here yet"),
        ("IMAGENET1K_V1", "models/checkpoints/resnet50-0676ba61.pth", True, "resnet50-0676ba61.pth"),
        ("{}/mine.pth", None, False, "no such file"),
        ("{}/mine.pth", "mine.pth", True, "mine.pth"),
        ("untrained", None, True, "knows no concepts"),
    ],
)
def test_the_doctor_looks_whether_the_weights_are_here(
    weights: str, file: str | None, ok: bool, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_WEIGHTS", weights.format(tmp_path))
    if file:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    found = json.loads(run("doctor", "--data-dir", str(tmp_path), "--json", "--url", "http://127.0.0.1:9").stdout)
    finding = next(finding for finding in found if finding["check"] == "weights")
    assert finding["ok"] is ok
    assert detail in finding["detail"]


def test_the_doctor_names_the_gpus_as_nvidia_smi_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\n[ $1 = -L ] && echo 'GPU 0: NVIDIA L4 (UUID: GPU-1a2b3c4d-0000)'\necho 'MIG 1g.5gb'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    found = json.loads(run("doctor", "--data-dir", str(tmp_path), "--json", "--url", "http://127.0.0.1:9").stdout)

    assert [row["detail"] for row in found if row["check"] == "gpu"] == ["GPU 0: NVIDIA L4 (UUID: GPU-1a2b3c4d-0000)"]


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
        (Progress(total=1, done=0), "0 of 1 image"),
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
    with progress_report("ingest") as report:
        for done in range(12):
            report.progress(Progress(done=done))
            now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 // LINE_EVERY_S
    assert lines[0] == "ingest: 5 images"


JOB_ID = "01JDXYZ0123456789ABCDEFGHI"
IMAGE_ID = "0123456789abcdef" * 2
LONG_PATH = "/home/somebody/pictures/holidays/2024/summer/at the sea/IMG_20240807_1234.jpg"


def table(columns: Sequence[str], row: Sequence[object], width: int, spare: Sequence[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setenv("COLUMNS", str(width))
        show_table(columns, [row], spare=spare)
    return printed.getvalue().splitlines()


def test_on_80_columns_a_job_is_one_line_with_its_whole_id() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    row = (JOB_ID, "ingest", "succeeded", 100000, 100000, 99998, 0, 2, when, "default", 0, "")
    spare = ("removed", "unchanged", "done", "collection", "kind", "total")
    lines = table(JOB_COLUMNS, row, 80, spare)
    assert len(lines) == 3
    assert {JOB_ID, "succeeded", "99998"} <= set(lines[2].split())
    assert max(map(len, lines)) <= 80
    assert {"ingest", "default", "100000"} <= set(table(JOB_COLUMNS, row, 160, spare)[2].split())
    assert JOB_ID in table(JOB_COLUMNS, row, 20, spare)[2]


def test_on_80_columns_a_hit_is_one_line_with_the_names_of_its_files() -> None:
    row = (
        "../a/very/long/way/to/the/query/page.jpg",
        1,
        LONG_PATH,
        0.987654,
        0.987654,
        IMAGE_ID,
        4000,
        3000,
        99.5,
        "similar",
    )
    lines = table(HIT_COLUMNS, row, 80, ("width", "height", "percentile", "id", "distance"))
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert "query/page.jpg" in lines[2]
    assert "IMG_20240807_1234.jpg" in lines[2]
    assert IMAGE_ID not in lines[2]
    assert {IMAGE_ID, "4000"} <= set(table(HIT_COLUMNS, row, 240, ("width",))[2].split())


def serve(monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, Any]) -> None:
    """Have a service that knows these paths."""

    def answer(_: httpx2.Client, method: str, path: str, **__: Any) -> httpx2.Response:
        return httpx2.Response(200, json=answers[path], request=httpx2.Request(method, "http://127.0.0.1" + path))

    monkeypatch.setattr(httpx2.Client, "request", answer)


def test_a_failed_file_is_told_by_its_path_or_by_the_name_it_was_uploaded_with(monkeypatch: pytest.MonkeyPatch) -> None:
    why = {"code": "file_empty", "message": "Empty.", "stage": "read"}
    failures = [{**why, "uri": "file:///a%20b/c.png", "name": "c.png"}, {**why, "uri": "upload:12", "name": "d.png"}]
    job = {
        "id": JOB_ID,
        "kind": "ingest",
        "state": "succeeded",
        "created_at": "2026-01-01T00:00:00Z",
        "progress": {"total": 2, "done": 2, "failed": 2},
        "request": {"collection": "default"},
    }
    ledger = {"failures": failures}
    serve(monkeypatch, {f"/v1/jobs/{JOB_ID}": job, f"/v1/jobs/{JOB_ID}/failures": ledger})
    told = run("jobs", "wait", JOB_ID).stderr
    assert "failed: /a b/c.png: Empty. (file_empty)\n" in told
    assert "failed: d.png (upload:12): Empty. (file_empty)\n" in told
    header, *lines = run("jobs", "failures", JOB_ID).stdout.splitlines()
    assert header.split("\t")[-1] == "name"
    assert [line.split("\t")[-1] for line in lines] == ["c.png", "d.png"]


@pytest.mark.parametrize(("options", "told"), [(("--filter", "year > 2030"), True), ((), False)])
def test_a_filter_that_nothing_fits_is_told_of(
    options: tuple[str, ...], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"name": "resnet50", "weights": "w", "trained": True, "fingerprint": "f", "dim": 2048}
    result = {"collection": "default", "metric": "COSINE", "model": model, "queries": [{"query": {}, "hits": []}]}
    record = {
        "id": JOB_ID,
        "kind": "search",
        "state": "succeeded",
        "created_at": "2026-01-01T00:00:00Z",
        "request": {},
        "result": result,
    }
    limits = {"max_upload_bytes": 1 << 20, "max_upload_images": 2, "max_file_bytes": 1 << 20, "max_queries": 2}
    serve(monkeypatch, {"/v1/info": {"limits": limits}, "/v1/searches": record})
    assert ("No image fits the filter." in run("search", "--id", IMAGE_ID, *options).stderr) is told


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
