"""Supervision itself, with tiny real processes: what is killed comes back, and nothing is ever left behind."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from supervisor_stack import START_S, Stack, eventually, pids
from supervisor_stand_in import NAMES, STUBBORN_S

from leftovers import processes_of
from lookalike.errors import NotRunning
from lookalike.supervisor import ProcessState, down, status


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.clean_up()


def test_processes_start_in_order_and_status_names_them(stack: Stack) -> None:
    now = stack.start_ready()
    assert [process.name for process in now.processes] == list(NAMES)
    assert {process.state for process in now.processes} == {ProcessState.RUNNING}
    assert [process.restarts for process in now.processes] == [0, 0, 0, 0]
    started = {name: psutil.Process(pid).create_time() for name, pid in pids(now).items()}
    assert min(started, key=lambda name: started[name]) == "server"
    _, said = stack.end(signal.SIGTERM)
    assert said.index("server is ready") < said.index("web is ready") < said.index("ready after")


def test_each_process_that_is_killed_comes_back_without_what_it_left(stack: Stack) -> None:
    before = stack.start_ready()
    for number, name in enumerate(NAMES):
        leader = psutil.Process(pids(before)[name])
        members = [leader, *leader.children(recursive=True)]
        assert len(members) == 2
        leader.kill()
        now = stack.replaced(name, leader.pid)
        assert not set(members) & set(processes_of(stack.data_dir))
        assert sum(process.restarts for process in now.processes) == number + 1
        others = set(NAMES) - {*NAMES[: number + 1]}
        assert {other: pids(now)[other] for other in others} == {other: pids(before)[other] for other in others}
    assert stack.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_leaves_no_process_behind(stack: Stack, signum: signal.Signals) -> None:
    stack.start_ready()
    assert len(processes_of(stack.data_dir)) == 1 + 1 + 2 * len(NAMES)  # The supervisor, its watchman, the stack.
    code, said = stack.end(signum)
    assert code == 0
    assert "stopped" in said
    assert processes_of(stack.data_dir) == []
    with pytest.raises(NotRunning):
        status(stack.data_dir)


def test_a_killed_supervisor_leaves_no_process_behind_and_the_next_starts_at_once(stack: Stack) -> None:
    first = stack.start_ready()
    stack.end(signal.SIGKILL)
    second = stack.start_ready()
    assert second.pid != first.pid
    alive = {process.pid for process in processes_of(stack.data_dir)}
    assert not alive & set(pids(first).values())
    stack.end(signal.SIGKILL)
    stack.gone()


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2, 0.3, 0.4, 0.6])
def test_a_supervisor_killed_while_it_starts_leaves_no_process_behind(stack: Stack, delay_s: float) -> None:
    stack.start()
    lock = stack.data_dir / "run" / "lock"
    eventually(lock.exists)
    time.sleep(delay_s)
    stack.end(signal.SIGKILL)
    stack.gone()


def test_a_killed_watchman_is_replaced_and_the_new_one_knows_everything(stack: Stack) -> None:
    first = stack.start_ready().watchman_pid
    assert first
    os.kill(first, signal.SIGKILL)
    eventually(lambda: stack.ready().watchman_pid not in {None, first})
    stack.end(signal.SIGKILL)
    stack.gone()


def test_a_watchman_ignores_polite_signals(stack: Stack) -> None:
    first = stack.start_ready().watchman_pid
    assert first
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, signum)
    stack.end(signal.SIGKILL)
    stack.gone()


def test_what_is_left_when_the_watchman_was_killed_as_well_is_ended_by_the_next_start(stack: Stack) -> None:
    first = stack.start_ready()
    stack.kill_with_watchman(first)
    eventually(lambda: len(processes_of(stack.data_dir)) == 2 * len(NAMES))
    second = stack.start_ready()
    assert not set(pids(first).values()) & {process.pid for process in processes_of(stack.data_dir)}
    assert not set(pids(first).values()) & set(pids(second).values())
    stack.end(signal.SIGTERM)


def test_what_is_left_when_the_watchman_was_killed_as_well_is_ended_by_down(stack: Stack) -> None:
    stack.kill_with_watchman(stack.start_ready())
    assert down(stack.data_dir) == 0
    stack.gone()


def test_a_process_that_hangs_is_killed_and_started_again(stack: Stack) -> None:
    before = pids(stack.start_ready())["worker-1"]
    os.kill(before, signal.SIGSTOP)
    stack.replaced("worker-1", before)
    assert "does not answer" in stack.end(signal.SIGTERM)[1]


def test_an_unconfigured_process_stops_the_start_with_its_own_sentence(stack: Stack) -> None:
    said, _ = stack.start("worker-2=unconfigured").communicate(timeout=START_S)
    assert stack.process
    assert stack.process.returncode == 1
    assert said.splitlines()[-1] == "start_failed The weights are not there. Set LOOKALIKE_WEIGHTS."
    assert processes_of(stack.data_dir) == []


def test_a_process_that_breaks_at_its_start_stops_everything_and_shows_its_log(stack: Stack) -> None:
    said, _ = stack.start("web=broken").communicate(timeout=START_S)
    assert "trouble web: it broke" in said
    assert f"exit status 1). Its log says why: {stack.data_dir / 'logs' / 'web.log'}" in said
    assert processes_of(stack.data_dir) == []


def test_a_second_supervisor_on_the_same_data_folder_is_refused(stack: Stack) -> None:
    first = stack.start_ready()
    other = Stack(stack.data_dir)
    said, _ = other.start().communicate(timeout=START_S)
    assert said.startswith(f"data_folder_locked Another lookalike (pid {first.pid}) runs on")
    assert stack.ready() == first


def test_a_second_interrupt_hastens_the_stop(stack: Stack) -> None:
    stack.start_ready("worker-1=stubborn")
    assert stack.process
    stack.process.send_signal(signal.SIGINT)
    eventually(lambda: status(stack.data_dir).processes[1].state is ProcessState.STOPPING)
    began = time.monotonic()
    assert stack.end(signal.SIGINT)[0] == 0
    assert time.monotonic() - began < STUBBORN_S
    assert processes_of(stack.data_dir) == []


def test_an_interrupt_before_everything_is_ready_stops_the_start(stack: Stack) -> None:
    stack.start()
    eventually((stack.data_dir / "run" / "state.json").exists)
    code, said = stack.end(signal.SIGINT)
    assert (code, "ready after" in said) in {(130, False), (0, True)}
    assert processes_of(stack.data_dir) == []


def test_down_stops_the_stack_and_waits_until_it_is_gone(stack: Stack) -> None:
    stack.start_ready()
    assert down(stack.data_dir) == 0
    assert [process.pid for process in processes_of(stack.data_dir)] in ([], [stack.process and stack.process.pid])
    with pytest.raises(NotRunning):
        down(stack.data_dir)


def test_a_terminal_that_went_away_does_not_end_the_stack(stack: Stack) -> None:
    first = stack.start_ready()
    assert stack.process
    assert stack.process.stdout
    stack.process.stdout.close()  # Everything it says from here on is refused.
    os.kill(pids(first)["web"], signal.SIGKILL)
    eventually(lambda: stack.ready().processes[3].restarts == 1)
    assert stack.process.poll() is None
