"""`lookalike demo`, as a newcomer runs it: the whole stack in processes of its own, and none of them left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from leftovers import processes_of
from lookalike.gallery import draw_gallery

DEMO = (str(Path(sys.executable).with_name("lookalike")), "demo")
FOUND = "Each of the 6 altered copies found its original first."


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Path]:
    """A folder as a first run leaves it, with gallery and network; at the end nothing may run on it."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "models").symlink_to(models)
    draw_gallery(folder / "gallery")
    yield folder
    for process in processes_of(folder):
        process.kill()


def eventually_none(data_dir: Path, *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while processes_of(data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def environment() -> dict[str, str]:
    """Our own environment without any setting, with a network whose weights cannot be had."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    # Nothing listens on port 1: every download fails at once, with a network or without.
    return {**plain, "https_proxy": "http://127.0.0.1:1", "COLUMNS": "160"}


def start(data_dir: Path, out: Path) -> "subprocess.Popen[str]":
    command = [*DEMO, "--data-dir", str(data_dir), "--out", str(out)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def await_line(demo: "subprocess.Popen[str]", beginning: str) -> None:
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if line.startswith(beginning):
            return
    pytest.fail(f"the demo ended before it said {beginning!r}:\n{''.join(said)}")


def test_the_demo_ingests_searches_draws_its_figure_and_leaves_nothing_running(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.png"
    demo = start(data_dir, out)
    said, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, said
    assert "untrained network: it finds near-duplicates, but knows no concepts" in " ".join(said.split())
    assert "Ingested 320 pictures" in said
    assert "0 failed" in said
    assert FOUND in said
    with Image.open(out) as figure:
        assert figure.format == "PNG"
        assert figure.width > 800
        assert figure.height > 800, "a row for each of six queries"
    assert processes_of(data_dir) == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_demo_that_is_stopped_leaves_nothing_running(
    data_dir: Path, tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    demo = start(data_dir, tmp_path / "result.png")
    await_line(demo, "Starting the service")
    deadline = time.monotonic() + 120
    while len(processes_of(data_dir)) < 3:
        assert time.monotonic() < deadline, "the stack does not start"
        time.sleep(0.1)
    demo.send_signal(signum)
    demo.communicate(timeout=180)
    assert demo.returncode == status
    assert eventually_none(data_dir, timeout_s=120)


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    demo = start(tmp_path / "file" / "demo", tmp_path / "result.png")
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode not in (0, None)
    assert "cannot be written" in said
    assert "Traceback" not in said
