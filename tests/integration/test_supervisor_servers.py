"""The real Redis and Milvus under the supervisor: they keep their data and their address, whatever is killed."""

import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from supervisor_stack import Stack, eventually, pids

from leftovers import processes_of
from lookalike.supervisor.probes import grpc_health, redis_health
from lookalike.supervisor.process import Health


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    stack.start_servers()
    yield stack
    stack.clean_up()


def test_a_killed_redis_returns_at_its_address_with_its_data(stack: Stack) -> None:
    before = stack.ready()
    assert before.redis_url
    with redis.Redis.from_url(before.redis_url, decode_responses=True) as client:
        assert client.config_get("appendonly", "maxmemory-policy", "bind", "protected-mode", "save") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "save": "",
        }
        client.set("kept", "yes")
    os.kill(pids(before)["redis"], signal.SIGKILL)
    after = stack.replaced("redis", pids(before)["redis"])
    assert after.redis_url == before.redis_url
    assert pids(after)["milvus"] == pids(before)["milvus"]
    with redis.Redis.from_url(before.redis_url, decode_responses=True) as client:
        assert client.get("kept") == "yes"


def test_a_killed_milvus_returns_at_its_address(stack: Stack) -> None:
    before = stack.ready()
    os.kill(pids(before)["milvus"], signal.SIGKILL)
    after = stack.replaced("milvus", pids(before)["milvus"])
    assert after.milvus_uri == before.milvus_uri
    eventually(lambda: grpc_health(_port(after.milvus_uri)) is Health.READY)


def test_a_stop_lets_both_servers_close_their_files(stack: Stack) -> None:
    stack.ready()
    assert stack.end(signal.SIGTERM)[0] == 0
    assert processes_of(stack.data_dir) == []
    assert "Shutting down" in (stack.data_dir / "logs" / "milvus.log").read_text()
    assert "Received SIGTERM" in (stack.data_dir / "logs" / "redis.log").read_text()


def test_a_start_right_after_the_supervisor_was_killed_finds_the_data_free(stack: Stack) -> None:
    before = stack.ready()
    stack.end(signal.SIGKILL)
    stack.start_servers()
    after = stack.ready()
    assert not set(pids(before).values()) & set(pids(after).values())


def test_servers_that_nobody_was_left_to_end_are_ended_by_the_next_start(stack: Stack) -> None:
    before = stack.ready()
    stack.kill_with_watchman(before)
    assert {process.pid for process in processes_of(stack.data_dir)} == set(pids(before).values())
    stack.start_servers()
    stack.ready()
    assert not set(pids(before).values()) & {process.pid for process in processes_of(stack.data_dir)}


def test_logs_and_locks_are_for_their_owner_alone(stack: Stack) -> None:
    stack.ready()
    for path in [*(stack.data_dir / "logs").iterdir(), *(stack.data_dir / "run").glob("*lock")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_probes_tell_a_frozen_server_from_one_that_answers(stack: Stack) -> None:
    now = stack.ready()
    probes = {"redis": (redis_health, now.redis_url), "milvus": (grpc_health, now.milvus_uri)}
    for name, (probe, address) in probes.items():
        pid, port = pids(now)[name], _port(address)
        eventually(lambda probe=probe, port=port: probe(port) is Health.READY)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        assert probe(port) is Health.SILENT, f"{name} takes connections, and does not answer"
        os.kill(pid, signal.SIGCONT)


def _port(address: str | None) -> int:
    found = re.search(r":(\d+)", (address or "").removeprefix("http:").removeprefix("redis:"))
    assert found
    return int(found[1])
