"""One running stack for the whole end-to-end suite: on the servers in the wheels, and on those of a machine room."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bad_files import BAD_FILES
from lookalike.gallery import draw_gallery
from stack import Stack


@pytest.fixture(scope="session", params=["wheels", pytest.param("servers", marks=pytest.mark.servers)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is up. `wheels` is what `lookalike up` brings along; `servers` a Redis and a Milvus standalone."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheels":
        yield from _running(Stack(folder))
        return
    from redis_server import start_redis

    redis_binary = shutil.which("redis-server")
    assert redis_binary, "these tests need Debian's redis-server: apt-get install redis-server"
    uri = request.getfixturevalue("standalone_uri")
    (folder / "redis").mkdir()
    with start_redis(redis_binary, folder / "redis") as url:
        yield from _running(Stack(folder, env={"LOOKALIKE_REDIS_URL": url, "LOOKALIKE_MILVUS_URI": uri}))


def _running(stack: Stack) -> Iterator[Stack]:
    try:
        stack.up()
        yield stack
    finally:
        stack.end()


@pytest.fixture(scope="session")
def gallery(stack: Stack) -> list[Path]:
    """Drawn pictures under the root, in `gallery/`."""
    return draw_gallery(stack.root / "gallery", count=72)


@pytest.fixture(scope="session")
def collection(stack: Stack, gallery: list[Path]) -> str:
    """A collection that holds the gallery."""
    job = stack.finished(stack.ingest("gallery", collection="gallery"))
    assert job["state"] == "succeeded", job
    assert job["progress"]["stored"] == len(gallery)
    return "gallery"


@pytest.fixture(scope="session")
def mixed_folder(stack: Stack) -> dict[str, str]:
    """A folder of bad files among good ones, `mixed/`; gives the expected code of each bad one by name."""
    folder = stack.root / "mixed"
    folder.mkdir()
    for number in range(5):
        Image.effect_noise((300 + number, 280), 40 + 30 * number).convert("RGB").save(folder / f"good-{number}.jpg")
    for name, (content, _) in BAD_FILES.items():
        (folder / name).write_bytes(content())
    return {name: code for name, (_, code) in BAD_FILES.items()}
