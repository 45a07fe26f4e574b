"""A collection's way out and in again by the command line, and its images listed and changed, over the whole stack."""

import json
from pathlib import Path

from lookalike import Client
from stack import Stack


def test_a_collection_goes_out_and_comes_in_by_the_command_line_and_finds_the_same(
    stack: Stack, collection: str, gallery: list[Path], tmp_path: Path
) -> None:
    done = stack.cli("collections", "export", collection, "-o", str(tmp_path / "backup"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "backup" / "collection.json").read_text())["images"] == len(gallery)

    # What lies outside the roots is uploaded.
    done = stack.cli("collections", "import", str(tmp_path / "backup"), "--into", "came_back")
    assert done.returncode == 0, done.stderr
    assert stack.count("came_back") == len(gallery)

    with Client(stack.url) as client:
        searched = [client.search(*gallery[:3], collection=name, limit=5) for name in (collection, "came_back")]
        before, after = ([[(hit.id, hit.score) for hit in one.hits] for one in found.queries] for found in searched)
        assert after == before
        images = list(client.images.list(collection="came_back"))
        assert images == sorted(images, key=lambda image: image.id)
        assert len(images) == len(gallery)
        assert client.images.thumbnail(images[0].id, collection="came_back")

    done = stack.cli("images", "set", images[0].id, "album=summer", "stars=5", "-c", "came_back")
    assert done.returncode == 0, done.stderr
    done = stack.cli("images", "ls", "-c", "came_back", "--filter", "stars == 5 and album == 'summer'")
    assert done.stdout.splitlines()[1].startswith(images[0].id)
    done = stack.cli("images", "set", images[0].id, "stars=", "-c", "came_back", "--json")
    assert json.loads(done.stdout)["metadata"] == {**images[0].metadata, "album": "summer"}
