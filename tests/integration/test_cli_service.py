"""The command line and the client against the real front end behind a real socket."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from lookalike import Client, JobFailed, JobGroup
from lookalike.cli import main
from lookalike.records import FailurePage, JobState
from service_stand_in import Service, running_service

LOOKALIKE = str(Path(sys.executable).with_name("lookalike"))
MAX_FAILURES = 1200


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOOKALIKE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    limits = {"max_upload_images": 4, "max_queries": 2, "max_failures": MAX_FAILURES}
    with running_service(tmp_path / "service", **limits) as service:
        yield service


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def environment(service: Service, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    # A proxy of the environment has no way to this machine's loopback.
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return {**kept, **proxies, "LOOKALIKE_URL": service.url, "LOOKALIKE_DATA_DIR": str(tmp_path / "data")}


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


class Shell:
    """Runs the command line: in this process, which is quick, or in one of its own, as people do."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: object, exits: int = 0) -> Done:
        result = CliRunner().invoke(main, list(map(str, arguments)), env=self.environment)
        assert result.exit_code == exits, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return Done(result.stdout, result.stderr)

    def process(self, *arguments: object, exits: int = 0) -> Done:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == exits, stderr
        assert "Traceback" not in stderr
        return Done(stdout, stderr)

    def rows(self, *arguments: object, exits: int = 0) -> list[dict[str, str]]:
        """The tab-separated output by column names."""
        header, *lines = self(*arguments, exits=exits).stdout.splitlines()
        columns = header.split("\t")
        return [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [LOOKALIKE, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def shell(environment: dict[str, str]) -> Shell:
    return Shell(environment)


def waiting_jobs(service: Service) -> list[Any]:
    return list(service.web.jobs.list_jobs().jobs)


def await_job(service: Service) -> str:
    deadline = time.monotonic() + 120
    while not (jobs := waiting_jobs(service)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(jobs[0].id)


# --- Ingest ---------------------------------------------------------------------------------------------------------


def test_a_folder_under_a_root_is_ingested_in_place_and_again_without_doubles(service: Service, shell: Shell) -> None:
    for number in range(12):
        (service.web.root / f"{number}.jpg").write_bytes(b"x")
    first = shell.process("ingest", service.web.root)
    assert first.stdout.splitlines()[1].split("\t")[1:8] == ["ingest", "succeeded", "12", "12", "12", "0", "0"]
    assert "12 images: 12 added, 0 unchanged, 0 failed" in first.stderr
    assert shell.rows("ingest", service.web.root)[0]["unchanged"] == "12"


def test_a_folder_outside_the_roots_is_uploaded_in_bounded_requests(shell: Shell, photos: Path) -> None:
    rows = shell.rows("ingest", photos, "-c", "spring")
    assert sorted(int(row["stored"]) for row in rows) == [2, 4, 4]
    assert {row["collection"] for row in rows} == {"spring"}
    assert shell.rows("search", photos / "3.png", "-c", "spring", "-k", "1")[0]["image"] == "photos/3.png"


def test_some_files_failed_is_an_exit_code_of_its_own_and_each_is_told(shell: Shell, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"x")
    (photos / "empty.png").touch()
    done = shell.process("ingest", photos, exits=5)
    assert re.search(rf"failed: {re.escape(str(photos))}/empty\.png: .* \(file_empty\)", done.stderr)
    assert "(image_corrupt)" in done.stderr
    assert "12 images: 10 added, 0 unchanged, 2 failed" in done.stderr


def test_a_job_that_fails_is_told_with_its_reason(service: Service, shell: Shell) -> None:
    (service.web.root / "poison.jpg").write_bytes(b"x")
    done = shell("ingest", service.web.root, exits=1)
    assert "It has another model. (job_failed)" in done.stderr
    assert "No image was found" not in done.stderr
    job_id = done.stdout.splitlines()[1].split("\t")[0]
    assert shell.rows("jobs", "wait", job_id, exits=1)[0]["state"] == "failed"
    with Client(service.url) as client, pytest.raises(JobFailed):
        client.ingest(service.web.root)


def test_what_is_nowhere_is_not_found(shell: Shell) -> None:
    assert "(folder_not_found)" in shell("ingest", "no/such/folder", exits=3).stderr
    assert "(invalid_path)" in shell("ingest", "/no/such/folder", "--in-place", exits=2).stderr


def test_without_waiting_the_jobs_are_printed_and_can_be_waited_for(
    service: Service, shell: Shell, photos: Path
) -> None:
    service.worker.idle.set()
    rows = shell.rows("ingest", photos, "--no-wait")
    assert {row["state"] for row in rows} == {"queued"}
    service.worker.idle.clear()
    waited = shell.rows("jobs", "wait", *(row["job"] for row in rows))
    assert sum(int(row["stored"]) for row in waited) == 10


# --- Interruptions --------------------------------------------------------------------------------------------------


def await_asked(caplog: pytest.LogCaptureFixture, *job_ids: str) -> None:
    """Wait until a client that submitted these jobs has begun to ask for them."""
    deadline = time.monotonic() + 120
    while not all(any(f"GET /v1/jobs/{job_id}" in message for message in caplog.messages) for job_id in job_ids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(
    service: Service, shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    (service.web.root / "a.jpg").write_bytes(b"x")
    service.worker.idle.set()
    process = shell.start("ingest", service.web.root)
    job_id = await_job(service)
    await_asked(caplog, job_id)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"lookalike jobs wait {job_id}" in told
    assert "Traceback" not in told
    assert service.web.jobs.get(job_id).state is JobState.QUEUED
    service.worker.idle.clear()
    shell("jobs", "wait", job_id)


def test_ctrl_c_during_uploads_names_every_job_that_was_accepted(
    service: Service, shell: Shell, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.worker.idle.set()
    process = shell.start("ingest", photos)
    deadline = time.monotonic() + 120
    while len(waiting_jobs(service)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    await_asked(caplog, *(job.id for job in waiting_jobs(service)))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    for job in waiting_jobs(service):
        assert job.id in told


def test_a_wait_survives_a_restart_of_the_front_end(service: Service, shell: Shell) -> None:
    (service.web.root / "a.jpg").write_bytes(b"x")
    service.worker.idle.set()
    process = shell.start("ingest", service.web.root)
    await_job(service)
    service.stop_http()
    time.sleep(2)
    service.start_http()
    service.worker.idle.clear()
    printed, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "succeeded" in printed


def test_a_cancelled_job_ends_the_wait_for_it(service: Service, shell: Shell) -> None:
    (service.web.root / "a.jpg").write_bytes(b"x")
    service.worker.idle.set()
    process = shell.start("ingest", service.web.root)
    job_id = await_job(service)
    assert shell.rows("jobs", "cancel", job_id)[0]["state"] == "cancelled"
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "(job_cancelled)" in told


def test_giving_up_on_a_job_leaves_it_alone(service: Service, shell: Shell) -> None:
    (service.web.root / "a.jpg").write_bytes(b"x")
    service.worker.idle.set()
    job_id = shell.rows("ingest", service.web.root, "--no-wait")[0]["job"]
    done = shell("jobs", "wait", job_id, "--timeout", "0.3", exits=1)
    assert "(wait_timeout)" in done.stderr
    assert f"lookalike jobs wait {job_id}" in done.stderr
    assert shell.rows("jobs", "ls")[0]["state"] == "queued"


# --- Search ---------------------------------------------------------------------------------------------------------


def test_hits_can_be_cut_and_piped(shell: Shell, photos: Path) -> None:
    shell("ingest", photos)
    pipe = f"'{LOOKALIKE}' search '{photos}/4.png' '{photos}/2.png' '{photos}/7.png' -k 1 | tail -n +2 | cut -f3"
    done = subprocess.run(pipe, shell=True, env=shell.environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["photos/4.png", "photos/2.png", "photos/7.png"]


def test_a_reader_that_leaves_early_is_no_reason_for_a_traceback(shell: Shell, photos: Path) -> None:
    shell("ingest", photos)
    names = " ".join(f"'{photos}/{number % 10}.png'" for number in range(100))
    pipe = f"'{LOOKALIKE}' search {names} -k 10 | head -n 1"
    done = subprocess.run(pipe, shell=True, env=shell.environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("query\trank\timage")
    assert done.stderr == ""


def test_json_is_the_record_wherever_the_option_stands(shell: Shell, photos: Path) -> None:
    shell("ingest", photos)
    before = json.loads(shell("--json", "search", photos / "1.png", "-k", "2").stdout)
    after = json.loads(shell("search", photos / "1.png", "-k", "2", "--json").stdout)
    assert before == after
    assert [hit["rank"] for hit in after["queries"][0]["hits"]] == [1, 2]
    assert json.loads(shell("jobs", "ls", "--json").stdout)[0]["kind"] == "search"


def test_a_stored_image_is_searched_by_its_id_and_a_served_one_by_its_path(service: Service, shell: Shell) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(service.web.root / name)
    shell("ingest", service.web.root)
    first = shell.rows("search", "b.png", "--in-place", "-k", "1")[0]
    again = shell.rows("search", first["id"], "--id", "-k", "1")[0]
    assert again["id"] == first["id"]
    assert again["image"] == str(service.web.root / Path(again["image"]).name)


def test_a_query_that_cannot_be_used_is_told_and_the_others_are_answered(shell: Shell, photos: Path) -> None:
    shell("ingest", photos)
    (photos / "bad.png").write_bytes((photos / "1.png").read_bytes())
    done = shell("search", photos / "2.png", photos / "bad.png", "-k", "1", exits=5)
    assert len(done.stdout.splitlines()) == 2
    assert re.search(r"failed: \S+bad\.png: Broken\. \(image_corrupt\)", done.stderr)


def test_a_figure_is_written_for_every_request_that_a_search_took(shell: Shell, photos: Path, tmp_path: Path) -> None:
    shell("ingest", photos)
    shell("search", *(photos / f"{number}.png" for number in range(3)), "--figure", tmp_path / "hits.png")
    for name in ("hits.png", "hits-2.png"):
        with Image.open(tmp_path / name) as figure:
            assert figure.format == "PNG"


def test_an_untrained_model_is_told_of_and_a_trained_one_is_not(shell: Shell, tmp_path: Path, photos: Path) -> None:
    assert "concepts" not in shell("ingest", photos).stderr
    assert "concepts" not in shell("search", photos / "1.png").stderr
    with running_service(tmp_path / "untrained", trained=False) as untrained:
        shell.environment["LOOKALIKE_URL"] = untrained.url
        assert "knows no concepts" in shell("ingest", photos).stderr
        done = shell("search", photos / "1.png")
        assert "knows no concepts" in done.stderr
        assert "knows no concepts" not in done.stdout


# --- Looking after things -------------------------------------------------------------------------------------------


def test_collections_and_images_come_and_go(shell: Shell, photos: Path) -> None:
    assert shell.rows("collections", "create", "spring", "--metric", "l2")[1] == {"field": "metric", "value": "L2"}
    assert "(collection_exists)" in shell("collections", "create", "spring", exits=1).stderr
    shell("ingest", photos, "-c", "spring")
    assert [row["name"] for row in shell.rows("collections", "ls")] == ["spring"]
    image_id = shell.rows("search", photos / "5.png", "-c", "spring")[0]["id"]
    shown = {row["field"]: row["value"] for row in shell.rows("images", "show", image_id, "-c", "spring")}
    assert shown["name"] == "photos/5.png"
    shell("images", "delete", image_id, "-c", "spring")
    assert "(image_not_found)" in shell("images", "show", image_id, "-c", "spring", exits=3).stderr
    counts = {row["field"]: row["value"] for row in shell.rows("collections", "show", "spring")}
    assert counts["count"] == "9"
    shell("collections", "delete", "spring", exits=1)
    shell("collections", "delete", "spring", "--yes")
    assert "(collection_not_found)" in shell("search", photos / "5.png", "-c", "spring", exits=3).stderr


def test_failures_of_a_job_are_listed_with_their_reasons(shell: Shell, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"x")
    jobs = [row["job"] for row in shell.rows("ingest", photos, exits=5)]
    assert [row["code"] for row in shell.rows("jobs", "failures", *jobs)] == ["image_corrupt"]
    assert "(job_not_found)" in shell("jobs", "failures", "01JNOSUCHJOB", exits=3).stderr


def test_of_many_failures_the_first_are_told_at_once_and_those_that_were_not_kept_are_counted(
    service: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    failures = service.web.jobs.failures

    def counting(job_id: str, *, cursor: str | None = None, limit: int = 1000) -> FailurePage:
        asked.append(cursor)
        page: FailurePage = failures(job_id, cursor=cursor, limit=limit)
        return page

    monkeypatch.setattr(service.web.jobs, "failures", counting)
    for number in range(1300):
        (service.web.root / f"bad{number}.jpg").touch()
    done = shell("ingest", service.web.root, exits=5)
    assert "... and 1290 more; all of them: lookalike jobs failures" in done.stderr
    assert asked == [None]  # The first page has more than are told.
    (row,) = shell.rows("jobs", "ls")
    listed = shell("jobs", "failures", row["job"])
    assert len(listed.stdout.splitlines()) == 1 + MAX_FAILURES
    assert f"{1300 - MAX_FAILURES} more failed, of which no line was kept" in listed.stderr
    assert len(json.loads(shell("jobs", "failures", "--json", row["job"]).stdout)) == MAX_FAILURES


def test_a_retry_of_several_jobs_names_those_that_began_where_one_cannot(service: Service, shell: Shell) -> None:
    (service.web.root / "bad.png").write_bytes(b"x")
    (row,) = shell.rows("ingest", service.web.root, exits=5)
    told = shell("jobs", "retry", row["job"], "01JNOSUCHJOB", exits=3).stderr
    assert f"lookalike jobs wait {waiting_jobs(service)[0].id}" in told
    assert waiting_jobs(service)[0].id != row["job"]


def test_an_expired_job_is_told_apart_from_an_unknown_one(service: Service, shell: Shell, photos: Path) -> None:
    job_id = shell.rows("ingest", photos)[0]["job"]
    shown = {row["field"]: row["value"] for row in shell.rows("jobs", "show", job_id)}
    assert (shown["state"], shown["error"]) == ("succeeded", "")
    service.web.jobs.expire(job_id)
    assert "(job_expired)" in shell("jobs", "show", job_id, exits=3).stderr


def test_the_doctor_tells_what_is_used_and_what_is_missing(service: Service, shell: Shell) -> None:
    found = {row["check"]: row for row in shell.rows("doctor")}
    assert "none fp32 (a stand-in)" in found["worker-search-1"]["detail"]
    assert {row["ok"] for row in found.values()} == {"yes"}
    service.web.vectors.down = True
    found = {row["check"]: row for row in shell.rows("doctor", exits=1)}
    assert (found["milvus"]["ok"], found["redis"]["ok"]) == ("no", "yes")


def test_without_a_service_the_doctor_looks_at_this_machine(service: Service, shell: Shell) -> None:
    service.stop_http()
    done = shell.process("doctor", "--json", exits=4)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert found["data folder"]["detail"].startswith(shell.environment["LOOKALIKE_DATA_DIR"])
    assert found["extra web"]["ok"]
    assert "(service_unreachable)" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("jobs", "ls"), ("search", "1.png"), ("ingest", "."), ("collections", "ls"), ("images", "show", "0")]
)
def test_without_a_service_every_command_says_so_soon(
    service: Service, shell: Shell, photos: Path, arguments: tuple[str, ...]
) -> None:
    service.stop_http()
    began = time.monotonic()
    absolute = [str(photos / word) if word in {"1.png", "."} else word for word in arguments]
    assert "lookalike up" in shell(*absolute, exits=4).stderr
    assert time.monotonic() - began < 30


# --- On a terminal --------------------------------------------------------------------------------------------------


def on_a_terminal(arguments: list[str], environment: dict[str, str], *, columns: int = 160) -> str:
    """Run a command with its output on a terminal, and return what that showed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [LOOKALIKE, *arguments],
        env={**environment, "TERM": "xterm", "COLUMNS": str(columns)},
        stdout=terminal,
        stderr=terminal,
        stdin=terminal,
    )
    os.close(terminal)
    shown = b""
    while process.poll() is None or select.select([controller], [], [], 0)[0]:
        if select.select([controller], [], [], 0.1)[0]:
            try:
                shown += os.read(controller, 65536)
            except OSError:  # Linux' way to say that nobody writes to it any more.
                break
    os.close(controller)
    assert process.wait(timeout=120) == 0
    return shown.decode()


def test_on_a_terminal_there_is_a_bar_and_a_table(service: Service, shell: Shell, photos: Path) -> None:
    service.worker.idle.set()
    threading.Timer(2.0, service.worker.idle.clear).start()
    shown = on_a_terminal(["ingest", str(photos)], shell.environment)
    assert "0 of 10 images" in shown
    assert "━" in shown
    assert "\t" not in shown
    shown = on_a_terminal(["search", str(photos / "1.png"), "-k", "1"], shell.environment)
    assert "photos/1.png" in shown
    assert "\t" not in shown


def test_on_a_terminal_of_80_columns_a_job_keeps_its_id(shell: Shell, photos: Path) -> None:
    job_ids = [row["job"] for row in shell.rows("ingest", photos)]
    shown = on_a_terminal(["jobs", "ls"], shell.environment, columns=80)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    for job_id in job_ids:
        assert any(line.startswith(job_id) and "succeeded" in line for line in lines)
    assert max(map(len, lines)) <= 80


# --- The Python client against the same service ---------------------------------------------------------------------


def test_the_client_submits_watches_cancels_and_takes_results(service: Service, photos: Path) -> None:
    with Client(service.url) as client:
        service.worker.idle.set()
        started = client.ingest(photos, wait=False)
        assert isinstance(started, JobGroup)
        assert {job.refresh().state for job in started.jobs} == {JobState.QUEUED}
        started.jobs[0].cancel()
        service.worker.idle.clear()
        states = [record.state for record in started.wait(timeout_s=120)]
        assert states.count(JobState.CANCELLED) == 1
        done: list[int] = []
        summary = client.ingest(photos, on_progress=lambda progress: done.append(progress.done))
        assert (summary.progress.done, summary.progress.total, done[-1]) == (10, 10, 10)
        assert summary.collection == "default"
        result = client.search((photos / "6.png").read_bytes(), Image.open(photos / "7.png"), limit=2)
        assert [len(query.hits) for query in result.queries] == [2, 2]
        image = client.images.get(result.queries[0].hits[0].id)
        assert client.images.content(image.id).startswith(b"\x89PNG")
        assert client.images.thumbnail(image.id)[8:12] == b"WEBP"
        assert client.info()["version"]
        assert client.readiness()["status"] == "ready"


def test_the_api_key_of_the_environment_is_used_and_never_shown(tmp_path: Path, photos: Path, shell: Shell) -> None:
    with running_service(tmp_path / "guarded", api_keys=("s3cret-key",)) as guarded:
        shell.environment["LOOKALIKE_URL"] = guarded.url
        refused = shell("jobs", "ls", exits=1)
        assert "(unauthorized)" in refused.stderr
        shell.environment["LOOKALIKE_API_KEY"] = "s3cret-key"
        shell("ingest", photos)
        shell.environment["LOOKALIKE_API_KEY"] = "wr0ng-key"
        assert "wr0ng-key" not in shell("jobs", "ls", exits=1).stderr
