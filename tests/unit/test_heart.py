"""The heart of a worker whose work is done by several threads: none of them covers for another that hangs."""

import subprocess
import sys

import pytest

SCRIPT = """
import threading, time
from types import SimpleNamespace
from lookalike_worker.heart import Heart

jobs = SimpleNamespace(announce=lambda info: None)
heart = Heart(jobs, None, every_s=0.1, limit_s=1.0)

def hang():
    with heart.at_work():
        {hang}

threading.Thread(target=hang, daemon=True).start()
with heart.at_work():
    for _ in range(60):
        heart.beat()
        time.sleep(0.05)
"""


@pytest.mark.parametrize(("does", "ends_with"), [("time.sleep(600)", 1), ("pass", 0)])
def test_a_stage_that_hangs_ends_the_process_although_the_others_beat(does: str, ends_with: int) -> None:
    command = [sys.executable, "-c", SCRIPT.format(hang=does)]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ended.returncode == ends_with, ended.stderr
    assert (b"Timeout" in ended.stderr) is bool(ends_with)
