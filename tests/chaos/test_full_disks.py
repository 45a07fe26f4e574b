"""A disk fills up: of the uploads, and of Redis. On small file systems of their own, which takes root to mount."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from invariants import assert_invariants
from parts import CHUNK_IMAGES, SETTINGS, Parts, picture
from service import until

SIZE: Final = 8 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of `SIZE` bytes at a folder, with what the folder holds, and take it away again."""
    folder.mkdir(exist_ok=True)
    aside = folder.with_name(f"{folder.name}-aside")
    shutil.copytree(folder, aside)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "lookalike", folder], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)


def fill(folder: Path, *, leave: int) -> Path:
    """Take all space but `leave` bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return filler


def upload(parts: Parts, *pictures: bytes) -> Any:
    files = [("image", (f"{number}.jpg", content, "image/jpeg")) for number, content in enumerate(pictures)]
    return parts.http.post("/v1/ingests", files=files, data={"collection": "uploaded"})


def half_written(folder: Path, filler: Path) -> list[Path]:
    """Files that are neither whole, so that their hash is their name, nor a number or a lock that the store keeps."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != filler and path.stat().st_size > 32]
    return [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


def test_a_full_disk_refuses_uploads_leaves_nothing_half_written_and_takes_them_again(parts: Parts) -> None:
    uploads = parts.settings.uploads_dir
    with small_disk(uploads):
        # Below the floor; and above it, but not by as much as is sent.
        for leave in (SETTINGS["min_free_bytes"] // 2, SETTINGS["min_free_bytes"] + (1 << 20)):
            filler = fill(uploads, leave=leave)
            jobs = len(parts.jobs.list_jobs(limit=1000).jobs)
            answer = upload(parts, *(picture(number) + bytes(1 << 19) for number in range(5)))
            assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
            assert not half_written(uploads, filler)
            assert len(parts.jobs.list_jobs(limit=1000).jobs) == jobs
            filler.unlink()
        answer = upload(parts, picture(1), picture(2))
        assert answer.status_code == 202, answer.text
        job = parts.finished(answer.json()["id"])
        assert (job["state"], job["progress"]["stored"]) == ("succeeded", 2)


def test_a_redis_that_cannot_write_its_disk_refuses_jobs_shows_old_ones_and_recovers(parts: Parts) -> None:
    done = parts.ingest_all(parts.draw(CHUNK_IMAGES))
    assert_invariants(parts, done)
    folder = parts.redis_folder
    parts.redis.kill()
    with small_disk(folder):
        parts.start_redis()
        filler = fill(folder, leave=0)
        body = {"source": {"type": "folder", "path": done.paths[0].parent.name}, "collection": "later"}

        def refused() -> httpx2.Response | None:
            # Redis finds out when it writes, once a second: what it accepted until then, it has not promised to keep.
            answer = parts.http.post("/v1/ingests", json=body)
            return answer if answer.status_code == 503 else None

        answer = until(refused, 90, parts.logs)
        assert answer.json()["code"] == "queue_unavailable"
        assert parts.job(done.job_id)["state"] == "succeeded"
        filler.unlink()
        until(lambda: parts.http.post("/v1/ingests", json=body).status_code == 202, 90, parts.logs)
        until(
            lambda: not any(job.state in {"queued", "running"} for job in parts.jobs.list_jobs().jobs), 120, parts.logs
        )
        parts.redis.kill()
    parts.start_redis()
    assert parts.job(done.job_id)["state"] == "succeeded"
