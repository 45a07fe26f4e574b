"""Every kind of source through the whole stack: what is found in it, with which metadata, and shown again."""

import csv
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ingest_parts import draw, picture
from lookalike import Client
from loopback import Asked, Reply, Site, serve
from object_store import BUCKET
from stack import Stack

#: A shard as WebDataset writes them: what is known of a picture lies beside it.
SHARD = {
    "0001.png": picture(1),
    "0001.json": json.dumps({"artist": "ada", "year": 1843}).encode(),
    "deep/0002.png": picture(2),
    "deep/0002.json": json.dumps({"artist": "bob", "year": 1999}).encode(),
    "README.txt": b"no picture",
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


def zipped(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]  # the mode is one of two
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def stored(stack: Stack, job_id: str) -> dict[str, Any]:
    """The progress of a job that came to a good end."""
    job = stack.finished(job_id)
    assert job["state"] == "succeeded", job
    progress: dict[str, Any] = job["progress"]
    assert progress["done"] == progress["total"], job
    return progress


def hits(stack: Stack, collection: str, seed: int, **fields: Any) -> list[dict[str, Any]]:
    """What is found for a picture."""
    body = {"collection": collection, "limit": "20", "wait": "30", **fields}
    answer = stack.http.post("/v1/searches", files=[("image", ("q.png", picture(seed)))], data=body)
    record = stack.finished(answer.json()["id"])
    assert record["state"] == "succeeded", record
    found: list[dict[str, Any]] = record["result"]["queries"][0]["hits"]
    return found


def assert_shown(stack: Stack, collection: str, hit: Mapping[str, Any], content: bytes) -> None:
    """A hit's own bytes and its thumbnail can be fetched."""
    shown = stack.http.get(hit["thumbnail_url"])
    assert shown.status_code == 200, shown.text
    with Image.open(io.BytesIO(shown.content)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (24, 24))
    answer = stack.http.get(f"/v1/images/{hit['id']}/content", params={"collection": collection})
    assert (answer.status_code, answer.content) == (200, content), answer.headers


def upload(stack: Stack, content: bytes, name: str) -> dict[str, str]:
    """Send a file in two pieces, the second of which goes wrong at first."""
    record = stack.http.post("/v1/uploads", json={"size": len(content), "name": name}).json()
    where, half = f"/v1/uploads/{record['id']}", len(content) // 2

    def send(offset: int, piece: bytes) -> Any:
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        return stack.http.patch(where, content=piece, headers=headers)

    assert send(0, content[:half]).status_code == 200
    lost = send(0, content)
    assert (lost.status_code, lost.json()["code"], lost.json()["offset"]) == (409, "upload_conflict", half)
    assert stack.http.head(where).headers["Upload-Offset"] == str(half)
    sha256 = send(half, content[half:]).json()["sha256"]
    assert sha256 == hashlib.sha256(content).hexdigest()
    return {"sha256": sha256, "name": name}


# --- Folders ---


def test_a_folder_gives_its_labels_and_hidden_files_and_links_by_choice(stack: Stack, tmp_path: Path) -> None:
    folder = stack.root / "tree"
    draw(folder, top=10, cats__tom=11, dogs__rex=12, dogs__drafts__spot=13)
    draw(folder / ".hidden", ghost=14)
    draw(stack.root / "elsewhere", felix=15)
    draw(tmp_path, outside=16)
    (folder / "cats" / "linked.png").symlink_to(stack.root / "elsewhere" / "felix.png")
    (folder / "cats" / "out.png").symlink_to(tmp_path / "outside.png")

    narrow = {"type": "folder", "path": "tree", "exclude": ["dogs/drafts/*"]}
    plain = stack.finished(stack.submit(narrow, collection="tree_plain"))
    assert {hit["name"] for hit in hits(stack, "tree_plain", 10)} == {"top.png", "tom.png", "rex.png"}
    links = {"linked.png": "not_regular_file", "out.png": "not_regular_file"}
    assert {line["name"]: line["code"] for line in stack.failures(plain["id"])} == links

    source = {"type": "folder", "path": "tree", "hidden": True, "symlinks": True}
    job = stack.finished(stack.submit(source, collection="tree", label_from_folder=True))
    assert {line["name"]: line["code"] for line in stack.failures(job["id"])} == {"out.png": "not_regular_file"}
    assert job["progress"]["stored"] == 6
    labels = {hit["name"]: hit["metadata"]["label"] for hit in hits(stack, "tree", 10)}
    assert labels == {
        "top.png": "tree",
        "tom.png": "cats",
        "linked.png": "cats",
        "rex.png": "dogs",
        "spot.png": "drafts",
        "ghost.png": ".hidden",
    }
    assert {hit["name"] for hit in hits(stack, "tree", 10, filter="label == 'dogs'")} == {"rex.png"}


# --- Archives ---


@pytest.mark.parametrize("way", ["path", "upload", "url", "part"])
def test_an_archive_gives_its_pictures_with_the_metadata_beside_them(stack: Stack, site: Site, way: str) -> None:
    collection = f"archive_{way}"
    metadata = {"set": "proof"}
    if way == "path":
        (stack.root / "shard.zip").write_bytes(zipped(SHARD))
        job_id = stack.submit({"type": "archive", "path": "shard.zip"}, collection=collection, metadata=metadata)
    elif way == "upload":
        named = upload(stack, tarred(SHARD, "w:gz"), "shard.tar.gz")
        job_id = stack.submit({"type": "archive", "upload": named}, collection=collection, metadata=metadata)
    elif way == "url":
        url = site.page("/shard.tar", Reply(body=tarred(SHARD)))
        job_id = stack.submit({"type": "archive", "url": url}, collection=collection, metadata=metadata)
    else:
        files = [("archive", ("shard.tgz", tarred(SHARD, "w:gz")))]
        data = {"collection": collection, "metadata": json.dumps(metadata)}
        job_id = stack.http.post("/v1/ingests", files=files, data=data).json()["id"]
    assert stored(stack, job_id)["added"] == 2

    best, second = hits(stack, collection, 1)
    assert best["name"].endswith("0001.png")
    assert best["metadata"] == {"artist": "ada", "year": 1843, "set": "proof"}
    assert [hit["id"] for hit in hits(stack, collection, 1, filter="year > 1900 and artist == 'bob'")] == [second["id"]]
    assert_shown(stack, collection, best, SHARD["0001.png"])
    again = stored(stack, stack.submit(stack.job(job_id)["request"]["source"], collection=collection))
    assert (again["unchanged"], again["stored"]) == (2, 0)


def test_an_archive_that_is_not_whole_gives_what_is_before_the_damage_and_a_line_for_the_rest(stack: Stack) -> None:
    members = {f"{number}.png": picture(number) for number in range(20)}
    (stack.root / "half.tar").write_bytes(tarred(members)[: 11 * 2560 + 100])
    job = stack.finished(stack.submit({"type": "archive", "path": "half.tar"}, collection="half"))
    assert (job["state"], job["progress"]["stored"], job["progress"]["failed"]) == ("succeeded", 11, 1)
    (line,) = stack.failures(job["id"])
    assert (line["name"], line["code"], line["stage"]) == ("half.tar", "archive_invalid", "list")


# --- Addresses ---


def test_addresses_are_fetched_once_and_then_only_asked_whether_they_changed(stack: Stack, site: Site) -> None:
    def tagged(seed: int) -> Callable[[Asked], Reply]:
        tag = f'"v{seed}"'

        def page(asked: Asked) -> Reply:
            same = asked.headers.get("if-none-match") == tag
            return Reply(304, headers={"ETag": tag}) if same else Reply(body=picture(seed), headers={"ETag": tag})

        return page

    urls = [site.page("/1", tagged(21)), site.page("/2.png", tagged(22)), site.page("/no.png", Reply(404))]
    page = site.page("/page.png", Reply(body=b"<html>not here</html>"))
    source = {"type": "urls", "urls": [*urls, page]}
    first = stack.finished(stack.submit(source, collection="web", metadata={"found": "web"}))
    assert (first["progress"]["added"], first["progress"]["failed"]) == (2, 2)
    ledger = {line["uri"]: (line["code"], line["stage"]) for line in stack.failures(first["id"])}
    assert ledger == {urls[2]: ("url_http_error", "read"), page: ("unsupported_format", "decode")}
    best = hits(stack, "web", 21)[0]
    assert (best["uri"], best["metadata"]) == (urls[0], {"found": "web"})
    assert_shown(stack, "web", best, picture(21))

    site.asked.clear()
    site.page("/2.png", tagged(23))
    again = stack.finished(stack.submit(source, collection="web"))["progress"]
    assert (again["unchanged"], again["changed"], again["added"]) == (1, 1, 0)
    asked = [asked.headers.get("if-none-match") for asked in site.asked if asked.path == "/1"]
    assert asked == ['"v21"']
    assert hits(stack, "web", 23)[0]["uri"] == urls[1]


# --- Object stores ---


def test_the_objects_under_a_prefix_are_ingested_shown_and_skipped_the_second_time(stack: Stack, s3: Any) -> None:
    for key, seed in {"in/a.png": 31, "in/deep/b.png": 32, "out/c.png": 33}.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=picture(seed))
    s3.put_object(Bucket=BUCKET, Key="in/broken.png", Body=b"")
    source = {"type": "objects", "prefix": f"s3://{BUCKET}/in/"}
    job = stack.finished(stack.submit(source, collection="bucket", label_from_folder=True))
    assert (job["progress"]["added"], job["progress"]["failed"]) == (2, 1)
    (line,) = stack.failures(job["id"])
    assert (line["uri"], line["code"]) == (f"s3://{BUCKET}/in/broken.png", "file_empty")
    best = hits(stack, "bucket", 32)[0]
    assert (best["uri"], best["metadata"]) == (f"s3://{BUCKET}/in/deep/b.png", {"label": "deep"})
    assert_shown(stack, "bucket", best, picture(32))
    s3.put_object(Bucket=BUCKET, Key="in/a.png", Body=picture(34))
    again = stack.finished(stack.submit(source, collection="bucket", label_from_folder=True))["progress"]
    assert (again["unchanged"], again["changed"], again["failed"]) == (1, 1, 1)
    outside = stack.http.post("/v1/ingests", json={"source": {"type": "objects", "prefix": "s3://others/"}})
    assert (outside.status_code, outside.json()["code"]) == (400, "invalid_path")


# --- Manifests ---


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_manifest_names_pictures_anywhere_and_its_columns_become_metadata(
    stack: Stack, site: Site, s3: Any, kind: str
) -> None:
    folder = stack.root / f"lists-{kind}"
    draw(folder, near=41)
    draw(stack.root / f"far-{kind}", away=42)
    s3.put_object(Bucket=BUCKET, Key="m.png", Body=picture(43))
    rows = [
        {"uri": "near.png", "title": "near", "year": 1},
        {"uri": str(stack.root / f"far-{kind}" / "away.png"), "title": "away", "year": 2},
        {"uri": f"s3://{BUCKET}/m.png", "title": "stored", "year": 3},
        {"uri": site.page("/m.png", Reply(body=picture(44))), "title": "web", "year": 4},
    ]
    path = folder / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    source = {"type": "manifest", "path": str(path)}
    progress = stored(stack, stack.submit(source, collection=f"manifest_{kind}", metadata={"list": kind}))
    assert (progress["added"], progress["failed"]) == (4, 0)
    for seed, row in enumerate(rows, 41):
        best = hits(stack, f"manifest_{kind}", seed)[0]
        assert best["metadata"] == {"title": row["title"], "year": row["year"], "list": kind}
    (found,) = hits(stack, f"manifest_{kind}", 41, filter="year > 3 and title == 'web'")
    assert found["uri"] == rows[3]["uri"]
    assert_shown(stack, f"manifest_{kind}", found, picture(44))


# --- The command line, and the client ---


def test_the_command_line_takes_an_archive_an_address_and_a_prefix_at_once(
    stack: Stack, site: Site, s3: Any, tmp_path: Path
) -> None:
    (tmp_path / "scans.zip").write_bytes(zipped(SHARD))
    s3.put_object(Bucket=BUCKET, Key="cli/a.png", Body=picture(51))
    url = site.page("/cli.png", Reply(body=picture(52)))
    prefix = f"s3://{BUCKET}/cli/"
    done = stack.cli("ingest", str(tmp_path / "scans.zip"), url, prefix, "--collection", "by_cli_sources")
    assert done.returncode == 0, done.stderr
    jobs = list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))
    assert sorted(job["stored"] for job in jobs) == ["1", "1", "2"]
    assert "4 images: 4 added, 0 unchanged, 0 failed" in done.stderr
    assert stack.count("by_cli_sources") == 4
    again = stack.cli("ingest", prefix, "--sync", "--dry-run", "--collection", "by_cli_sources")
    assert again.returncode == 0, again.stderr
    assert "1 image: would be 0 added, 1 unchanged, 0 failed" in again.stderr
    (job,) = csv.DictReader(io.StringIO(again.stdout), delimiter="\t")
    assert job["note"] == "dry run"


def test_the_client_takes_manifests_and_addresses(stack: Stack, site: Site, tmp_path: Path) -> None:
    urls = [site.page(f"/client-{seed}.png", Reply(body=picture(seed))) for seed in (61, 62)]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"uri": urls[0], "title": "first"}) + "\n")
    with Client(stack.url) as client:
        summary = client.ingest(tmp_path / "rows.jsonl", urls[1], collection="by_client_sources")
        assert (summary.progress.added, summary.failures) == (2, ())
        result = client.search(picture(61), collection="by_client_sources", filter="title == 'first'")
    assert [hit.uri for hit in result.queries[0].hits] == [urls[0]]
