"""What tests of several tiers share: real servers, started once a session, and seeded weights."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from leftovers import processes_of
from redis_server import start_redis, valkey_binary

#: What is on its way out when the tests are done, such as the decoders of a worker that was killed.
_GOING_S = 30


def pytest_configure() -> None:
    """Let Ctrl-C be tested: a shell's background job ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail where a process outlives the tests: what they start works in their folder, or names it."""
    began = time.time()
    yield
    going = processes_of(tmp_path_factory.getbasetemp(), since=began)
    _, left = psutil.wait_procs(going, timeout=_GOING_S)
    told = [process.as_dict(["pid", "cmdline"]) for process in left]
    for process in left:
        process.kill()
    assert not told, told


@pytest.hookimpl(tryfirst=True)  # Before xdist looks at the groups.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares a stack or a module's fixtures, where tests run in several processes."""
    for item in items:
        tier = item.path.relative_to(Path(__file__).parent).parts[0]
        if "started_parts" in item.fixturenames:
            continue  # Each process has a service of its own for these, which any of them finds or makes whole.
        group = tier if tier == "e2e" else item.path.name
        if item.get_closest_marker("servers"):
            group = "servers"  # Of the wheel's standalone there can be one on a machine: its etcd has a fixed port.
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey server."""
    with start_redis(valkey_binary(), tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real Valkey server without a key in it."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `milvus-lite server`."""
    from servers import start_milvus_lite  # pymilvus takes a second to import

    with start_milvus_lite(tmp_path_factory.mktemp("milvus")) as (uri, _):
        yield uri


@pytest.fixture(scope="session")
def standalone_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Milvus standalone, which takes a gigabyte of memory."""
    from servers import start_milvus_standalone

    with start_milvus_standalone(tmp_path_factory.mktemp("standalone")) as (uri, _):
        yield uri


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that stacks share, so that a network is built and converted once a session."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # The processes that tests run in share it, as workers of a service do.
    (folder / "models").mkdir(exist_ok=True)
    return folder / "models"


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet50 state dict from a seed, saved as torch saves it."""
    import torch  # takes seconds to import
    from torchvision.models import resnet50

    torch.manual_seed(20)
    path = tmp_path_factory.mktemp("weights") / "seeded.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    return path
