"""Everything that can be wrong with a file, in one job of the whole service: each has its code, the rest is stored."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bad_files import BAD_FILES, hungry_png, put_unusable
from interposed.sitecustomize import ABORT, HANG
from invariants import assert_invariants
from lookalike.roots import file_uri
from mutants import mutant
from odd_files import ODD_FILES
from parts import CHUNK_IMAGES, SETTINGS, Ingest, Parts, picture

#: Runs a command without root's right to read everything: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
AS_A_USER = """
import ctypes, os, sys
PR_CAPBSET_DROP = 24
if os.geteuid() == 0:
    for capability in (1, 2):
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_every_code_a_file_can_have_is_in_the_ledger_and_every_accepted_form_is_stored(parts: Parts) -> None:
    parts.end_workers()
    for worker in parts.workers.values():
        worker.start(through=(sys.executable, "-c", AS_A_USER))
    parts.await_workers()
    paths = parts.draw(3)
    folder = paths[0].parent
    failed = {f"{file_uri(folder)}/{name}": code for name, code in bad_files(folder).items()}
    for name, make in ODD_FILES.items():
        (folder / name).write_bytes(make())
        paths.append(folder / name)

    ingest = parts.ingest_all(paths)

    job = assert_invariants(parts, Ingest(ingest.job_id, ingest.collection, paths, frozenset(failed)), failed=failed)
    parts.end_workers()
    assert {line["stage"] for line in parts.failures(ingest.job_id)} == {"list", "read", "decode"}
    assert job["progress"]["stored"] == len(ODD_FILES) + 3


def bad_files(folder: Path) -> dict[str, str]:
    """Put a file into the folder for every code; gives the codes by name."""
    codes = put_unusable(folder, max_file_bytes=SETTINGS["max_file_bytes"])
    contents = {name: (make(), code) for name, (make, code) in BAD_FILES.items()}
    contents["hungry.png"] = hungry_png(12_000), "decode_oom"
    contents["abort.jpg"] = picture(1) + ABORT, "decoder_crashed"
    contents["hang.jpg"] = picture(2) + HANG, "decode_timeout"
    for name, (content, code) in contents.items():
        (folder / name).write_bytes(content)
        codes[name] = code
    return codes


@pytest.fixture
def fuzzed(parts: Parts) -> Callable[[int], Ingest]:
    """Submits a folder of so many mutants."""

    def submit(count: int) -> Ingest:
        paths = parts.draw(count)
        for number, path in enumerate(paths):
            path.write_bytes(mutant(20261123, number).content)
        return parts.ingest_all(paths)

    return submit


def test_a_job_of_broken_pictures_ends_with_each_of_them_stored_or_in_the_ledger(
    parts: Parts, fuzzed: Callable[[int], Ingest]
) -> None:
    ingest = fuzzed(75 * CHUNK_IMAGES)
    parts.finished(ingest.job_id, 240)
    failed = {line["uri"]: line["code"] for line in parts.failures(ingest.job_id)}
    assert_invariants(parts, ingest, failed=failed)
    assert len(ingest.paths) // 20 < len(ingest.paths) - len(failed) < len(ingest.paths) // 2
    assert {"image_corrupt", "image_truncated", "unsupported_format"} <= set(failed.values())
