"""Ways to ask, through the command line and the client, against the whole stack."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from lookalike import Client
from lookalike.errors import InvalidParameter, UploadNotFound
from stack import Stack


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_each_way_to_ask_finds_its_picture(stack: Stack, gallery: list[Path], tmp_path: Path) -> None:
    turned = tmp_path / "turned.png"
    Image.open(gallery[2]).convert("RGB").transpose(Image.Transpose.ROTATE_180).save(turned)
    with Client(stack.url) as client:
        client.ingest(stack.root / "gallery", collection="asked")
        first = client.search(gallery[1], collection="asked", limit=1, consistency="strong").queries[0]
        mine = first.hits[0]
        assert mine.band == "identical"
        others = client.search(image_ids=[mine.id], collection="asked", limit=3, offset=1, exclude_self=True)
        assert mine.id not in {hit.id for hit in others.queries[0].hits}
        again = client.search(uploads=[first.query["upload"]["sha256"]], collection="asked", limit=1)
        assert again.queries[0].hits[0].id == mine.id
        (back,) = client.search(turned, collection="asked", limit=1, variants=["rotate180"]).queries
        assert (back.hits[0].name, back.hits[0].variant) == (gallery[2].name, "rotate180")
        (both,) = client.search(gallery[1], gallery[3], unlike=[gallery[5]], collection="asked", limit=4).queries
        assert {gallery[1].name, gallery[3].name} & {hit.name for hit in both.hits}
        with pytest.raises(UploadNotFound):
            client.search(uploads=["0" * 64], collection="asked")
        with pytest.raises(InvalidParameter):
            client.search(gallery[1], collection="asked", group_by="vector")

    done = stack.cli("search", str(gallery[1]), "-c", "asked", "-k", "2", "--distinct", "--box", "0,0,1,1")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0]["band"] == "identical"
