"""The main path by the command line and by the Python client, against the whole stack."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bad_files import jpeg
from lookalike import Client, JobCancelled
from lookalike.errors import CollectionNotFound, JobNotFound
from lookalike.gallery import draw_gallery
from service import until
from stack import Stack

pytestmark = pytest.mark.on_servers


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_the_command_line_ingests_in_place_and_finds_the_picture(stack: Stack, gallery: list[Path]) -> None:
    done = stack.cli("ingest", str(stack.root / "gallery"), "--collection", "by_cli")
    assert done.returncode == 0, done.stderr
    (job,) = rows(done.stdout)
    assert (job["state"], job["stored"], job["failed"]) == ("succeeded", str(len(gallery)), "0")

    figure = stack.folder / "figure.png"
    done = stack.cli("search", str(gallery[3]), "-k", "2", "--collection", "by_cli", "--figure", str(figure))
    assert done.returncode == 0, done.stderr
    best, second = rows(done.stdout)
    assert best["image"].endswith(gallery[3].name)
    assert float(best["distance"]) > 0.999 > float(second["distance"])
    assert "untrained" in done.stderr
    with Image.open(figure) as image:
        assert image.format == "PNG"


def test_the_command_line_uploads_what_lies_outside_the_roots(stack: Stack, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg((300 + number, 200)))
    done = stack.cli("ingest", str(tmp_path), "--collection", "by_upload", "--json")
    assert done.returncode == 0, done.stderr
    assert stack.count("by_upload") == 3
    again = stack.cli("ingest", str(tmp_path), "--collection", "by_upload")
    assert sum(int(job["unchanged"]) for job in rows(again.stdout)) == 3


def test_the_command_line_ends_with_five_where_files_failed_and_lists_them(
    stack: Stack, mixed_folder: dict[str, str]
) -> None:
    done = stack.cli("ingest", str(stack.root / "mixed"), "--collection", "mixed_cli")
    assert done.returncode == 5, done.stderr
    (job,) = rows(done.stdout)
    ledger = rows(stack.cli("jobs", "failures", job["job"]).stdout)
    assert {line["uri"].rpartition("/")[2]: line["code"] for line in ledger} == mixed_folder


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["jobs", "show", "01JABSENT"], 3),
        (["collections", "show", "absent"], 3),
        (["search", "--collection", "absent", "--id", "0" * 32], 3),
        (["ingest", "/no/such/path"], 3),
        (["ingest"], 2),
        (["jobs", "ls", "--url", "http://127.0.0.1:1"], 4),
        (["doctor"], 0),
        (["jobs", "ls", "--json"], 0),
    ],
)
def test_exit_codes_tell_what_happened(stack: Stack, arguments: list[str], code: int) -> None:
    done = stack.cli(*arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


def test_status_names_the_processes(stack: Stack) -> None:
    names = {process["name"] for process in stack.status()["processes"]}
    assert {"web", "worker-ingest-1", "worker-search-1"} <= names
    json.dumps(stack.status())


def test_the_client_ingests_and_searches_and_waits_by_default(client: Client, gallery: list[Path]) -> None:
    seen: list[int] = []
    summary = client.ingest(
        folder="gallery", collection="by_client", on_progress=lambda progress: seen.append(progress.done)
    )
    assert summary.progress.stored == len(gallery)
    assert seen[-1] == len(gallery)
    path = gallery[10]
    with Image.open(path) as picture:
        result = client.search(path, path.read_bytes(), picture, collection="by_client", limit=1)
    names = [query.hits[0].name for query in result.queries]
    assert names == [path.name] * 3
    assert result.model
    assert not result.model.trained
    by_id = client.search(image_ids=[result.queries[0].hits[0].id], collection="by_client", limit=1)
    assert by_id.queries[0].hits[0].name == path.name
    assert client.collections.get("by_client").count == len(gallery)
    client.collections.delete("by_client")
    with pytest.raises(CollectionNotFound):
        client.collections.get("by_client")


def test_a_client_that_does_not_wait_gets_a_job_it_can_cancel(stack: Stack, client: Client) -> None:
    draw_gallery(stack.root / "long", count=300, seed=11)
    job = client.ingest(folder="long", collection="by_client_cancelled", wait=False)
    until(lambda: job.refresh().progress.stored, 120, stack.logs)
    job.cancel()
    record = job.wait(timeout_s=120)
    assert record.state == "cancelled"
    with pytest.raises(JobCancelled):
        job.result()
    with pytest.raises(JobNotFound):
        client.jobs.get("01JABSENT").refresh()
