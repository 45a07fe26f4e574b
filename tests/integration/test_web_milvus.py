"""The front end on a real vector store: what it asks of Milvus is what Milvus answers."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.records import ModelInfo
from lookalike.roots import file_uri, image_id
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike_web.app import create_app

MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="f" * 64, dim=8)


@pytest.fixture
def web(tmp_path: Path, milvus_uri: str) -> Iterator[Web]:
    web = build_web(tmp_path)
    vectors = VectorStore(Settings(milvus_uri=milvus_uri, consistency="Strong"))
    services = replace(web.services, vectors=vectors)
    yield Web(services, create_app(services).test_client())
    vectors.close()
    web.close()


def test_collections_and_images_live_their_whole_life_over_http(web: Web) -> None:
    created = web.client.post("/v1/collections", json={"name": "web_life", "metric": "L2"})
    assert created.status_code == 201, created.text
    assert web.client.post("/v1/collections", json={"name": "web_life"}).json["code"] == "collection_exists"
    shown = web.client.get("/v1/collections/web_life").json
    assert (shown["metric"], shown["model"], shown["count"]) == ("L2", None, 0)

    picture = jpeg()
    (web.root / "a.jpg").write_bytes(picture)
    uri = file_uri(web.root / "a.jpg")
    row = StoredImage(
        id=image_id(uri),
        uri=uri,
        name="a.jpg",
        sha256=hashlib.sha256(picture).hexdigest(),
        size=len(picture),
        mtime_ns=1,
        width=320,
        height=240,
        metadata={"album": "spring"},
    )
    store = web.services.vectors
    store.bind("web_life", MODEL)
    store.upsert("web_life", [row], np.ones((1, MODEL.dim), dtype=np.float32))

    shown = web.client.get("/v1/collections/web_life").json
    assert (shown["count"], shown["model"]["fingerprint"]) == (1, MODEL.fingerprint)
    assert "web_life" in [found["name"] for found in web.client.get("/v1/collections").json["collections"]]
    image = web.client.get(f"/v1/images/{row.id}?collection=web_life").json
    assert (image["name"], image["width"], image["metadata"]) == ("a.jpg", 320, {"album": "spring"})
    assert web.client.get(image["thumbnail_url"]).mimetype == "image/webp"

    by_id = {"collection": "web_life", "queries": [{"image_id": row.id}]}
    assert web.client.post("/v1/searches", json=by_id).status_code == 202
    other = {"collection": "web_life", "queries": [{"image_id": "0" * 32}]}
    assert web.client.post("/v1/searches", json=other).json["code"] == "image_not_found"
    short = {"collection": "web_life", "queries": [{"vector": [1.0]}]}
    assert web.client.post("/v1/searches", json=short).json["code"] == "invalid_parameter"

    assert web.client.delete(f"/v1/images/{row.id}?collection=web_life").status_code == 204
    assert web.client.get(f"/v1/images/{row.id}?collection=web_life").json["code"] == "image_not_found"
    assert web.client.get("/v1/collections/web_life").json["count"] == 0
    assert web.client.delete("/v1/collections/web_life").status_code == 204
    for path in ("/v1/collections/web_life", f"/v1/images/{row.id}?collection=web_life", "/v1/collections/_no__name"):
        assert web.client.get(path).json["code"] == "collection_not_found", path
