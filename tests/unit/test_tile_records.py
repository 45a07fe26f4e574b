"""Tiles: which regions an image is cut into, and how a collection comes to have them."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from pydantic import ValidationError
from test_client import Script, client_of

from fakes import Web, build_web
from lookalike.decode import tile_of
from lookalike.records import Collection, Tiles

ALL = [Tiles(grid=grid, overlap=overlap) for grid in (2, 3, 4) for overlap in (0, 0.1, 0.25, 1 / 3, 0.5, 0.75)]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path)
    yield web
    web.close()


@pytest.mark.parametrize("tiles", ALL, ids=str)
def test_tiles_cover_the_whole_image_and_share_what_they_are_to(tiles: Tiles) -> None:
    assert len(tiles.boxes) == len(set(tiles.boxes)) == tiles.count
    covered = np.zeros((101, 157), bool)
    for left, top, right, bottom in (tile_of(box, 157, 101) for box in tiles.boxes):
        assert 0 <= left < right <= 157
        assert 0 <= top < bottom <= 101
        covered[top:bottom, left:right] = True
    assert covered.all()
    (first, *_), (second, *_) = tiles.boxes[:2]
    side = tiles.boxes[0][2]
    assert second - first == pytest.approx(side * (1 - tiles.overlap), abs=1e-5)
    last = tiles.boxes[-1]
    assert (last[0] + last[2], last[1] + last[3]) == pytest.approx((1, 1), abs=1e-5)
    assert max(box[0] + box[2] for box in tiles.boxes) <= 1


def test_a_tile_of_the_smallest_image_has_a_pixel() -> None:
    for box in Tiles(grid=4, overlap=0).boxes:
        left, top, right, bottom = tile_of(box, 1, 2)
        assert (0, 0) <= (left, top) < (right, bottom) <= (1, 2)


@pytest.mark.parametrize("wrong", [{"grid": 1}, {"grid": 5}, {"overlap": 0.8}, {"overlap": -0.1}, {"side": 2}], ids=str)
def test_what_no_image_can_be_cut_into_is_refused(web: Web, wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Tiles.model_validate(wrong)
    answer = web.client.post("/v1/collections", json={"name": "parts", "tiles": wrong})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


def test_a_collection_is_created_with_tiles_and_its_record_says_so(web: Web) -> None:
    created = web.client.post("/v1/collections", json={"name": "parts", "tiles": {"grid": 2}})
    assert created.status_code == 201
    assert created.json["tiles"] == {"grid": 2, "overlap": 0.25}
    assert web.client.get("/v1/collections/parts").json["tiles"] == {"grid": 2, "overlap": 0.25}
    web.client.post("/v1/collections", json={"name": "plain"})
    assert web.client.get("/v1/collections/plain").json["tiles"] is None


def test_the_client_asks_for_tiles_and_is_told_of_them() -> None:
    record = Collection(name="parts", tiles=Tiles(grid=2))
    script = Script(
        httpx2.Response(201, content=record.model_dump_json(), headers={"content-type": "application/json"})
    )
    assert client_of(script).collections.create("parts", tiles=Tiles(grid=2)) == record
    assert json.loads(script.requests[0].content) == {"name": "parts", "tiles": {"grid": 2, "overlap": 0.25}}
