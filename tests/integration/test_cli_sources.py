"""Everything one can name to `lookalike ingest`, against the real front end and the real lister."""

import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lookalike import Client
from lookalike.cli import main
from lookalike.client import datasets
from lookalike.client.datasets import Dataset
from lookalike.client.transfer import Transfer
from lookalike.errors import ChecksumMismatch, DatasetUnreachable, InvalidRequest, InvalidURL
from lookalike.listing import Lister
from lookalike.records import IngestRequest, JobRecord
from service_stand_in import Service, running_service

PIECE_BYTES = 1 << 16


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(
        tmp_path / "service", max_upload_bytes=PIECE_BYTES, url_ingest=True, object_roots="s3://pictures/"
    ) as service:
        yield service


@pytest.fixture
def client(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("LOOKALIKE_URL", raising=False)
    with Client(service.url) as client:
        yield client


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.frombytes("L", (64, 64), random.Random(number).randbytes(64 * 64)).save(data, format="PNG")
    return data.getvalue()


def archive(path: Path, images: int) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(images):
            packed.writestr(f"album/{number}.png", picture(number))
            packed.writestr(f"album/{number}.json", json.dumps({"page": number}))
    return path


def source_of(record: JobRecord) -> dict[str, object]:
    return {name: value for name, value in record.request["source"].items() if value not in (None, [], False)}


def test_an_archive_and_a_manifest_are_uploaded_in_pieces_and_ingested(
    client: Client, service: Service, tmp_path: Path
) -> None:
    packed = archive(tmp_path / "scans.zip", 40)
    assert packed.stat().st_size > 2 * PIECE_BYTES
    seen: list[tuple[int, int]] = []
    summary = client.ingest(packed, upload=True, on_bytes=lambda done, total: seen.append((done, total)))
    assert (summary.progress.stored, summary.progress.failed) == (40, 0)
    assert seen[-1] == (packed.stat().st_size,) * 2
    assert len(seen) > 2

    (service.web.root / "a.png").write_bytes(picture(99))
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(json.dumps({"uri": str(service.web.root / "a.png"), "year": 1901}) + "\n")
    assert client.ingest(manifest).progress.stored == 1


def test_an_upload_that_was_broken_off_goes_on_where_it_stopped(client: Client, tmp_path: Path) -> None:
    packed = archive(tmp_path / "scans.zip", 40)
    sent: list[int] = []

    def break_off(done: int, _total: int) -> None:
        sent.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.ingest(packed, upload=True, on_bytes=break_off)
    again: list[int] = []
    client.ingest(packed, upload=True, on_bytes=lambda done, _: again.append(done))
    assert sent == [PIECE_BYTES]
    assert again[0] == 2 * PIECE_BYTES


def test_a_file_the_service_has_is_not_sent_again(client: Client, tmp_path: Path) -> None:
    packed = archive(tmp_path / "scans.zip", 40)
    transfer = Transfer(client._connection, max_request_bytes=PIECE_BYTES)
    first = transfer.send(packed, "scans.zip")
    seen: list[int] = []
    second = Transfer(
        client._connection, max_request_bytes=PIECE_BYTES, on_bytes=lambda done, _: seen.append(done)
    ).send(packed, "renamed.zip")
    assert first.sha256 == second.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert seen == [packed.stat().st_size]


def test_what_a_local_service_can_read_is_not_uploaded(client: Client, service: Service) -> None:
    with tarfile.open(service.web.root / "shard.tar", "w") as packed:
        for number in range(3):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(picture(number))
            packed.addfile(entry, io.BytesIO(picture(number)))
    summary = client.ingest(service.web.root / "shard.tar", "shard.tar")
    assert [source_of(job) for job in summary.jobs] == [
        {"type": "archive", "path": str((service.web.root / "shard.tar").resolve())},
        {"type": "archive", "path": "shard.tar"},
    ]
    assert summary.progress.stored == 3


def test_addresses_and_prefixes_become_sources_of_their_kind(client: Client, service: Service) -> None:
    service.worker.idle.set()
    group = client.ingest(
        "https://example.com/a.jpg",
        "https://example.com/b.jpg",
        "https://example.com/all.tar.gz",
        "https://example.com/rows.csv",
        "s3://pictures/2024/",
        include=["*.jpg"],
        wait=False,
    )
    assert [source_of(job.record) for job in group.jobs] == [
        {"type": "archive", "url": "https://example.com/all.tar.gz"},
        {"type": "manifest", "url": "https://example.com/rows.csv", "format": "auto", "uri_column": "uri"},
        {"type": "objects", "prefix": "s3://pictures/2024/", "recursive": True, "include": ["*.jpg"]},
        {"type": "urls", "urls": ["https://example.com/a.jpg", "https://example.com/b.jpg"]},
    ]


def test_every_option_reaches_the_request(client: Client, service: Service) -> None:
    service.worker.idle.set()
    said = {"label_from_folder": True, "checksum": True, "sync": True, "dry_run": True, "priority": "low"}
    job = client.ingest(service.web.root, hidden=True, symlinks=True, wait=False, **said)  # type: ignore[call-overload]
    assert {name: job.record.request[name] for name in said} == said
    assert source_of(job.record).items() >= {"hidden": True, "symlinks": True}.items()
    with pytest.raises(TypeError, match="no option 'synch'"):
        client.ingest(service.web.root, synch=True)  # type: ignore[call-overload]


def test_sync_and_dry_run_refuse_what_would_have_to_be_uploaded(client: Client, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for option in ({"sync": True}, {"dry_run": True}):
        with pytest.raises(InvalidRequest, match="--root"):
            client.ingest(tmp_path / "elsewhere", **option)  # type: ignore[call-overload]


def test_a_folder_that_is_uploaded_has_its_labels_too(client: Client, service: Service, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "a.png").write_bytes(picture(1))
    (tmp_path / "lone.png").write_bytes(picture(2))
    lister = Lister(
        service.web.services.roots, service.web.services.uploads, service.web.services.remote, service.web.jobs
    )

    (job,) = client.ingest(tmp_path / "photos", tmp_path / "lone.png", upload=True, label_from_folder=True).jobs

    listed = lister.list(IngestRequest.model_validate(job.request), after=None, keep=lambda: None)
    assert {found.name: found.metadata for found in listed} == {
        "photos/cats/a.png": {"label": "cats"},
        "lone.png": {},
    }


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    client: Client, service: Service, tmp_path: Path
) -> None:
    with pytest.raises(InvalidURL, match="none of a path"):
        client.ingest("ftp://example.com/a.jpg")
    with pytest.raises(TypeError, match=r"include=\['\*\.jpg'\]"):
        client.ingest(service.web.root, include="*.jpg")
    (tmp_path / "list.txt").write_text("# mine\n  # also mine\nhttps://example.com/a.jpg\nb.jpg\n")
    result = CliRunner().invoke(main, ["ingest", "--url", service.url, "--urls", str(tmp_path / "list.txt")])
    assert (result.exit_code, "'b.jpg' is not an address" in result.stderr) == (2, True)
    assert not service.web.jobs.list_jobs().jobs


# --- Published sets -------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which its files can be downloaded."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_published_set_is_downloaded_once_and_checked(published: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = published
    packed = archive(folder / "paintings.zip", 3)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    known = {"paintings": Dataset(url=f"{address}paintings.zip", file="paintings.zip", sha256=digest)}
    seen: list[tuple[int, int]] = []

    def fetch() -> Path:
        return datasets.fetch(
            "paintings", on_bytes=lambda *moved: seen.append(moved), known=known, folder=tmp_path / "cache"
        )

    assert fetch().read_bytes() == packed.read_bytes()
    assert seen[-1] == (packed.stat().st_size,) * 2
    packed.unlink()
    assert fetch().is_file()


def test_a_set_that_is_not_what_was_published_or_not_what_it_was_is_dropped(
    published: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = published
    archive(folder / "paintings.zip", 3)
    cache = tmp_path / "cache"

    def fetch(sha256: str | None) -> Path:
        known = {"paintings": Dataset(url=f"{address}paintings.zip", file="paintings.zip", sha256=sha256)}
        return datasets.fetch("paintings", on_bytes=lambda *_: None, known=known, folder=cache)

    with pytest.raises(ChecksumMismatch):
        fetch("0" * 64)
    assert not list(cache.glob("*.zip*"))
    fetch(None).unlink()
    archive(folder / "paintings.zip", 4)
    with pytest.raises(ChecksumMismatch):
        fetch(None)
    assert not (cache / "paintings.zip").exists()


def test_a_set_that_is_unknown_or_out_of_reach_says_so(published: tuple[Path, str], tmp_path: Path) -> None:
    known = {"paintings": Dataset(url=f"{published[1]}missing.zip", file="paintings.zip")}
    with pytest.raises(DatasetUnreachable):
        datasets.fetch("paintings", on_bytes=lambda *_: None, known=known, folder=tmp_path)
    with pytest.raises(InvalidRequest, match="paintings"):
        datasets.fetch("drawings", on_bytes=lambda *_: None)
