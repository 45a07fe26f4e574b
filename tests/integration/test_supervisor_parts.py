"""The supervisor's parts by themselves: settings handed on, refusals before anything starts, pauses, logs."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from supervisor_stack import eventually

from leftovers import processes_of
from lookalike.errors import MissingExtra, NotRunning, PortInUse, SetupError
from lookalike.settings import EngineKind, Settings
from lookalike.supervisor import Event, UpOptions, logs, up
from lookalike.supervisor.environment import child_environment
from lookalike.supervisor.lifeline import Lifeline
from lookalike.supervisor.logs import LogFile
from lookalike.supervisor.probes import WebProbe
from lookalike.supervisor.process import Health, ManagedProcess, ProcessSpec
from lookalike.supervisor.servers import find_redis, free_port, require_port
from lookalike.supervisor.stack import StackPlanner, require_extras, url_of
from lookalike.supervisor.state import FileLock


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_child_reads_exactly_the_settings_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(
        data_dir=tmp_path / "data",
        roots=(tmp_path / "a b", tmp_path / "c"),
        api_keys=(SecretStr("one"), SecretStr("two")),
        redis_url=SecretStr("redis://:secret@127.0.0.1:7000/1"),
        engine=EngineKind.TORCH,
        lease_s=1.5,
        min_free_bytes=0,
    )
    monkeypatch.setenv("LOOKALIKE_MILVUS_TOKEN", "of the parent, and not given")
    environment = child_environment(given)
    monkeypatch.setattr(os, "environ", environment)
    assert Settings() == given


def test_a_path_that_cannot_be_handed_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="separates a list"):
        child_environment(Settings(roots=(tmp_path / "a:b", tmp_path)))


def test_secrets_are_in_no_command_and_in_no_printed_plan(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api_keys=(SecretStr("hush-hush"),))
    plan = StackPlanner(UpOptions(settings=settings)).plan()
    assert [spec.name for spec in plan.specs] == ["redis", "milvus", "worker-search-1", "worker-ingest-1", "web"]
    assert all("hush-hush" in spec.environment["LOOKALIKE_API_KEYS"] for spec in plan.specs)
    assert "hush-hush" not in repr(plan)
    assert not any("hush-hush" in word for spec in plan.specs for word in spec.command)


def test_servers_named_in_the_settings_are_used_and_defaults_are_not(tmp_path: Path, redis_url: str) -> None:
    named = UpOptions.from_settings(Settings(data_dir=tmp_path, redis_url=SecretStr(redis_url)))
    assert (named.redis_url, named.milvus_uri) == (redis_url, None)
    plan = StackPlanner(named).plan()
    assert "redis" not in {spec.name for spec in plan.specs}
    assert plan.redis_url is None
    assert all(spec.environment["LOOKALIKE_REDIS_URL"] == redis_url for spec in plan.specs)


@pytest.mark.parametrize(
    ("name", "server"),
    [("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:{}/0"), ("LOOKALIKE_MILVUS_URI", "http://127.0.0.1:{}")],
)
def test_a_named_server_that_does_not_answer_is_an_error_naming_it(tmp_path: Path, name: str, server: str) -> None:
    address = server.format(free_port())
    settings = Settings(data_dir=tmp_path)
    options = (
        UpOptions(settings=settings, redis_url=address)
        if "REDIS" in name
        else UpOptions(settings=settings, milvus_uri=address)
    )
    with pytest.raises(SetupError, match=f"named by {name}.* does not answer"):
        StackPlanner(options).plan()


@pytest.mark.parametrize("detach", [False, True])
def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path, taken_port: int, detach: bool) -> None:
    said: list[Event] = []
    options = UpOptions(settings=Settings(data_dir=tmp_path, port=taken_port), detach=detach, on_event=said.append)
    with pytest.raises(PortInUse, match=f"port {taken_port} of 127.0.0.1"):
        up(options)
    assert said == []
    eventually(lambda: not processes_of(tmp_path))
    assert not (tmp_path / "redis").exists()


def test_an_address_of_another_machine_is_refused_with_a_sentence() -> None:
    with pytest.raises(SetupError, match=r"cannot listen on 192\.0\.2\.1 port 8000"):
        require_port("192.0.2.1", 8000)


def test_a_missing_extra_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingExtra, match=r"lacks torch, milvus-lite\. .*pip install 'lookalike\[local\]'"):
        up(UpOptions(settings=Settings(data_dir=tmp_path)))
    with pytest.raises(MissingExtra, match=r"lacks torch\. "):
        require_extras(UpOptions(settings=Settings(data_dir=tmp_path), milvus_uri="http://127.0.0.1:1"))


def test_a_data_folder_that_cannot_be_written_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be used: Not a directory"):
        up(UpOptions(settings=Settings(data_dir=tmp_path / "file" / "data")))


@pytest.mark.parametrize(("version", "accepted"), [("6.0.16", False), ("7.0.15", True), ("8.2.0", True)])
def test_a_redis_server_on_the_path_is_used_from_version_7_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, accepted: bool
) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (find_redis() == program) is accepted
    assert find_redis() is not None, "the wheel has one"


def test_restarts_come_at_once_then_after_1_2_4_and_at_most_30_seconds(tmp_path: Path) -> None:
    spec = ProcessSpec(
        name="web", command=("true",), probe=lambda _: Health.SILENT, environment={}, folder=tmp_path, tier=0
    )
    with ThreadPoolExecutor(1) as executor:
        lifeline = Lifeline(FileLock(tmp_path / "lock"), LogFile(tmp_path / "watchman.log"))
        process = ManagedProcess(
            spec, log=LogFile(tmp_path / "web.log"), lifeline=lifeline, executor=executor, wake=lambda: None
        )
        assert [process.plan_restart(1.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
        assert process.plan_restart(100.0) == 0, "it had run for a while"


def test_a_log_is_bounded_and_its_older_part_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 100)
    log = LogFile(tmp_path / "logs" / "web.log")
    handle = log.open()
    os.write(handle, b"x" * 101 + b"\n")
    log.bound()
    os.write(handle, b"after\n")
    os.close(handle)
    assert log.path.read_bytes() == b"after\n"
    assert log.path.with_suffix(".log.1").read_bytes() == b"x" * 101 + b"\n"
    assert log.tail(5) == ["after"]


def test_the_tail_of_a_log_begins_with_the_present_run(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log")
    for line in (b"of an earlier run\n", b"first\n\nsecond\n"):
        handle = log.open()
        os.write(handle, line)
        os.close(handle)
    assert log.tail(5) == ["first", "second"]
    assert log.tail(1) == ["second"]


def test_a_lock_names_its_holder_and_is_free_when_the_holder_ends(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.holder() is None
    held = lock.acquire()
    assert held is not None
    assert lock.holder() == os.getpid()
    assert lock.acquire() is None
    os.close(held)
    assert lock.holder() is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert url_of(Settings(host=host, port=8000)) == url


def test_a_front_end_that_is_not_there_is_silent_and_says_what_is_lacking() -> None:
    front = WebProbe("127.0.0.1", free_port(), host_header="localhost")
    assert front.health() is Health.SILENT
    assert "does not answer" in str(front.lacking())


def test_down_where_nothing_runs_says_so_and_makes_no_folder(tmp_path: Path) -> None:
    from lookalike.supervisor import down

    with pytest.raises(NotRunning, match="lookalike up"):
        down(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_the_former_signal_handlers_are_put_back(tmp_path: Path, taken_port: int) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    with pytest.raises(PortInUse):
        up(UpOptions(settings=Settings(data_dir=tmp_path, port=taken_port)))
    assert before == [
        signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    ]
