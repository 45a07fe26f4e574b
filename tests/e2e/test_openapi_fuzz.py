"""Requests of every kind, made from the OpenAPI document, against a service of their own: they delete what they find.

`make fuzz-api` goes on for five minutes, with what requests lead to as well.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from lookalike.gallery import draw_gallery
from stack import Stack

SEED: Final = os.environ.get("SEED", "20261123")
#: Seconds to go on for; without it a few requests of each kind are made, the same ones every time.
FUZZ_S: Final = os.environ.get("FUZZ_S")
SCHEMATHESIS: Final = str(Path(sys.executable).with_name("schemathesis"))
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")

SHORT: Final = ("--phases", "examples,coverage", "--generation-deterministic", "--max-time", "45")
LONG: Final = ("--max-examples", "50", "--max-time", FUZZ_S or "")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Stack]:
    """A service that holds a few pictures, and on which nobody waits for long."""
    patience = {"LOOKALIKE_MAX_WAIT_S": "1", "LOOKALIKE_EVENT_STREAM_S": "1"}
    stack = Stack(tmp_path_factory.mktemp("fuzzed"), models, env=patience)
    try:
        draw_gallery(stack.root / "photos", count=6)
        stack.up()
        stack.finished(stack.ingest("photos"))
        yield stack
    finally:
        stack.end()


def test_whatever_is_sent_is_answered_as_the_openapi_document_says(fuzzed: Stack, tmp_path: Path) -> None:
    kind = LONG if FUZZ_S else SHORT
    done = subprocess.run(
        [
            SCHEMATHESIS,
            "--config-file",
            CONFIG,
            "run",
            f"{fuzzed.url}/openapi.json",
            "--seed",
            SEED,
            "--no-color",
            *kind,
        ],
        env={name: value for name, value in fuzzed.environ.items() if name != "PYTHONWARNINGS"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    # How much was sent; `pytest -rP` shows it.
    print(done.stdout[done.stdout.rfind("= SUMMARY =") :])  # noqa: T201
    assert done.returncode == 0, f"{done.stdout[-40_000:]}\n{done.stderr}\n{fuzzed.logs()}"
    assert "No issues found" in done.stdout or "passed" in done.stdout, done.stdout
    assert fuzzed.is_ready(), fuzzed.logs()
