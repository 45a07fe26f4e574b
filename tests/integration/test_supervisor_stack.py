"""The whole real stack: ready soon, healed whatever is killed, and gone without a trace."""

import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from supervisor_stack import Stack, eventually, pids

from leftovers import processes_of
from lookalike.errors import StartFailed
from lookalike.settings import Settings
from lookalike.supervisor import Event, EventKind, Status, UpOptions, down, status, up
from lookalike.supervisor.servers import free_port
from lookalike.supervisor.stack import INGEST_NICENESS

NAMES = ["redis", "milvus", "worker-search-1", "worker-ingest-1", "web"]


pytestmark = pytest.mark.timeout(600)  # A cold start, a warm one and five restarts, on whatever else the machine does.


@pytest.fixture
def stack(tmp_path: Path, models: Path) -> Iterator[Stack]:
    (tmp_path / "models").symlink_to(models)
    stack = Stack(tmp_path)
    yield stack
    stack.clean_up()


def serves(now: Status) -> bool:
    """Tell whether the front end finds everything that a job needs."""
    connection = http.client.HTTPConnection(now.url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def test_whatever_is_killed_the_stack_heals_and_it_ends_without_a_trace(stack: Stack) -> None:
    port = str(free_port())
    stack.start_all(LOOKALIKE_PORT=port)
    now = stack.ready()
    assert serves(now)
    assert [process.name for process in now.processes] == NAMES
    ingest, search = (psutil.Process(pids(now)[f"worker-{lane}-1"]) for lane in ("ingest", "search"))
    assert ingest.nice() - search.nice() == INGEST_NICENESS
    share = Path(f"/proc/{ingest.pid}/autogroup")  # Its session's niceness, where the kernel goes by that.
    assert not share.exists() or int(share.read_text().split()[-1]) == ingest.nice()
    for name in NAMES:
        former = pids(now)[name]
        os.kill(former, signal.SIGKILL)
        now = stack.replaced(name, former)
        eventually(lambda now=now: serves(now))
    psutil.Process(pids(now)["web"]).children()[0].kill()  # One of gunicorn's; gunicorn itself replaces it.
    assert now.watchman_pid
    os.kill(now.watchman_pid, signal.SIGKILL)
    eventually(lambda: stack.ready().watchman_pid not in {None, now.watchman_pid})
    eventually(lambda: serves(now))
    healed = stack.ready()
    assert [process.restarts for process in healed.processes] == [1, 1, 1, 1, 1]

    stack.end(signal.SIGKILL)
    stack.start_all(LOOKALIKE_PORT=port)
    assert serves(stack.ready())
    assert not set(pids(healed).values()) & {process.pid for process in processes_of(stack.data_dir)}
    assert stack.end(signal.SIGINT)[0] == 0
    assert processes_of(stack.data_dir) == []


def test_a_detached_stack_is_ready_when_up_returns_outlives_its_terminal_and_replaces_what_hangs(stack: Stack) -> None:
    said: list[Event] = []
    settings = Settings(
        data_dir=stack.data_dir,
        port=free_port(),
        weights="untrained",
        heartbeat_s=0.5,
        heartbeat_ttl_s=3.0,
        task_limit_s=10,
    )
    assert up(UpOptions(settings=settings, detach=True, on_event=said.append)) == 0
    assert said[-1].kind is EventKind.READY
    now = status(stack.data_dir)
    assert now.ready
    assert serves(now)
    assert os.getsid(now.pid) != os.getsid(0)
    os.kill(now.pid, signal.SIGHUP)
    frozen = pids(now)["worker-ingest-1"]
    os.kill(frozen, signal.SIGSTOP)
    stack.replaced("worker-ingest-1", frozen)
    eventually(lambda: serves(now))
    assert not psutil.pid_exists(frozen)
    assert down(stack.data_dir) == 0
    stack.gone()


def test_a_detached_stack_that_cannot_start_is_an_error_of_up(stack: Stack) -> None:
    stack.data_dir.mkdir(parents=True, exist_ok=True)
    weights = stack.data_dir / "broken.pth"
    weights.write_bytes(b"no weights")
    settings = Settings(data_dir=stack.data_dir, port=free_port(), weights=str(weights))
    with pytest.raises(StartFailed, match="not a weights file"):
        up(UpOptions(settings=settings, detach=True))
    stack.gone()
