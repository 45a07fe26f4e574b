"""One running stack for the whole end-to-end suite: on the servers in the wheels, and on those of a machine room."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bad_files import BAD_FILES
from chromium import browser, complaints, page, photograph
from lookalike.gallery import draw_gallery
from object_store import BUCKET, environment, s3, s3_server
from stack import Stack

__all__ = ["browser", "complaints", "page", "photograph", "s3", "s3_server"]  # Fixtures, too.

#: What the service does only where it was told that it may, on a machine whose network is its own loopback.
ALLOWED = {
    "LOOKALIKE_URL_INGEST": "true",
    "LOOKALIKE_FETCH_PRIVATE": "true",
    "LOOKALIKE_FETCH_HOST_INTERVAL_S": "0.01",
    "LOOKALIKE_OBJECT_ROOTS": f"s3://{BUCKET}",
    "LOOKALIKE_WEBHOOK_SECRET": "known to the tests",
    "LOOKALIKE_WEBHOOK_PRIVATE": "true",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a stack on the wheels' servers, and what is marked `on_servers` on real ones as well."""
    if "stack" in metafunc.fixturenames:
        kinds = ["wheels"]
        if metafunc.definition.get_closest_marker("on_servers"):
            kinds.append(pytest.param("servers", marks=pytest.mark.servers))
        metafunc.parametrize("stack", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models: Path, s3_server: str
) -> Iterator[Stack]:
    """A stack that is up. `wheels` is what `lookalike up` brings along; `servers` a Redis and a Milvus standalone."""
    folder = tmp_path_factory.mktemp(request.param)
    allowed = {**ALLOWED, **environment(s3_server)}
    if request.param == "wheels":
        yield from _running(Stack(folder, models, env=allowed))
        return
    from redis_server import start_redis

    redis_binary = shutil.which("redis-server")
    assert redis_binary, "these tests need Debian's redis-server: apt-get install redis-server"
    uri = request.getfixturevalue("standalone_uri")
    (folder / "redis").mkdir()
    with start_redis(redis_binary, folder / "redis") as url:
        servers = {"LOOKALIKE_REDIS_URL": url, "LOOKALIKE_MILVUS_URI": uri}
        yield from _running(Stack(folder, models, env={**allowed, **servers}))


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
