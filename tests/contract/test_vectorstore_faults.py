"""What the vector store does when Milvus Lite dies, returns, or is written to by several processes."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest
import redis
from test_vectorstore import MODEL, images, vectors

from lookalike.errors import QueueUnavailable, SetupError, VectorStoreUnavailable
from lookalike.records import CollectionRequest
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike.vectorstore.locks import RedisLocks
from ports import free_port, free_ports
from redis_server import start_redis, valkey_binary
from servers import start_milvus_lite

CALLS: dict[str, Callable[[VectorStore], object]] = {
    "ping": lambda store: store.ping(),
    "create": lambda store: store.create(CollectionRequest(name="other")),
    "collections": lambda store: store.collections(),
    "bind": lambda store: store.bind("other", MODEL),
    "count": lambda store: store.count("photos"),
    "upsert": lambda store: store.upsert("photos", images(1), vectors(1)),
    "known": lambda store: store.known("photos", [images(1)[0].id]),
    "states": lambda store: store.states("photos", [images(1)[0].id]),
    "same_content": lambda store: store.same_content("photos", [images(1)[0].sha256]),
    "under": lambda store: store.under("photos", "", "~", after=None, limit=1),
    "rewrite": lambda store: store.rewrite("photos", images(1)),
    "delete": lambda store: store.delete("photos", [images(1)[0].id]),
    "search": lambda store: store.search("photos", vectors(1), limit=1),
}


def seconds_until_unavailable(store: VectorStore, call: Callable[[VectorStore], object]) -> float:
    started = time.monotonic()
    with pytest.raises(VectorStoreUnavailable):
        call(store)
    return time.monotonic() - started


def test_calls_fail_soon_where_nobody_listens() -> None:
    store = VectorStore(Settings(milvus_uri=f"http://127.0.0.1:{free_ports(1)[0]}"))
    assert seconds_until_unavailable(store, CALLS["ping"]) < 3
    with ThreadPoolExecutor(32) as pool:
        waits = list(pool.map(lambda _: seconds_until_unavailable(store, CALLS["search"]), range(32)))
    assert max(waits) < 5


@pytest.mark.parametrize("death", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
def test_the_same_store_works_on_when_its_server_returns(tmp_path: Path, death: signal.Signals) -> None:
    port = free_ports(1)[0]
    store = VectorStore(Settings(milvus_uri=f"http://127.0.0.1:{port}"))
    rows, stored = images(50), vectors(50)
    with start_milvus_lite(tmp_path / "milvus", port=port) as (_, process):
        store.bind("photos", MODEL)
        store.upsert("photos", rows, stored)
        process.send_signal(death)
        process.wait(20)
        waits = {name: seconds_until_unavailable(store, call) for name, call in CALLS.items()}
        with ThreadPoolExecutor(32) as pool:
            calls = [*CALLS.values()] * 4
            together = list(pool.map(lambda call: seconds_until_unavailable(store, call), calls))
    assert max(waits.values()) < 3
    assert max(together) < 5

    with start_milvus_lite(tmp_path / "milvus", port=port):
        returned = time.monotonic()
        while True:
            try:
                store.ping()
                break
            except VectorStoreUnavailable:
                assert time.monotonic() < returned + 60

        def search(number: int) -> StoredImage:
            return store.search("photos", stored[number : number + 1], limit=1)[0][0].image

        with ThreadPoolExecutor(8) as pool:  # The collection is not loaded; eight threads notice at once.
            assert list(pool.map(search, range(8))) == rows[:8]
        assert store.count("photos") == 50
        assert store.same_content("photos", [rows[7].sha256]) == {rows[7].sha256: rows[7]}
        store.bind("photos", MODEL)
        store.upsert("photos", images(51)[50:], vectors(1))
        assert store.count("photos") == 51
    store.close()


WRITER = """
import sys
from lookalike.settings import Settings
from lookalike.vectorstore import VectorStore
from test_vectorstore import MODEL, images, vectors
half = slice(0, 500) if sys.argv[1] == "0" else slice(500, 1000)
store = VectorStore.connect(Settings(milvus_uri=sys.argv[2], redis_url=sys.argv[3]))
store.bind("shared", MODEL)
rows, stored = images(1000)[half], vectors(1000)[half]
for start in range(0, 500, 25):
    store.upsert("shared", rows[start:start + 25], stored[start:start + 25])
"""


def test_two_processes_write_to_one_collection_without_losing_a_row(milvus_uri: str, redis_url: str) -> None:
    here = Path(__file__).parent
    paths = "import sys; sys.path[:0] = " + repr([str(here), str(here.parent)])
    writers = [
        subprocess.Popen([sys.executable, "-c", f"{paths}\n{WRITER}", str(number), milvus_uri, redis_url])
        for number in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]

    store = VectorStore.connect(Settings(milvus_uri=milvus_uri, redis_url=redis_url))
    assert store.count("shared") == 1000
    assert len(store.known("shared", [image.id for image in images(1000)])) == 1000
    store.drop("shared")
    store.close()


def test_a_writer_waits_for_the_lock_of_another_and_gives_up_in_time(milvus_uri: str, redis_url: str) -> None:
    settings = Settings(milvus_uri=milvus_uri, redis_url=redis_url, milvus_timeout_s=0.5)
    patient = VectorStore.connect(settings.model_copy(update={"milvus_timeout_s": 30.0}))
    patient.bind("locked", MODEL)
    with redis.Redis.from_url(redis_url) as client:
        client.set("lookalike:lock:milvus:locked", "a writer that was killed", px=1500)
        started = time.monotonic()
        patient.upsert("locked", images(1), vectors(1))
        assert 1 < time.monotonic() - started < 25
        client.set("lookalike:lock:milvus:locked", "a writer that lives")
        hasty = VectorStore.connect(settings)
        assert 4 < seconds_until_unavailable(hasty, lambda store: store.upsert("locked", images(1), vectors(1))) < 25
        assert hasty.search("locked", vectors(1), limit=1)[0][0].image == images(1)[0]  # Reading waits for nobody.
    for store in (patient, hasty):
        store.close()


def test_without_redis_nothing_is_written_to_milvus_lite(milvus_uri: str) -> None:
    store = VectorStore.connect(Settings(milvus_uri=milvus_uri, redis_url=f"redis://127.0.0.1:{free_ports(1)[0]}/0"))
    with pytest.raises(QueueUnavailable):
        store.create(CollectionRequest(name="unlocked"))
    assert "unlocked" not in [record.name for record in store.collections()]
    store.close()


def test_a_lock_whose_redis_died_under_it_is_released_when_redis_is_back(tmp_path: Path) -> None:
    port = free_port()

    def server() -> AbstractContextManager[str]:
        return start_redis(valkey_binary(), tmp_path, port=port, options=("--appendfsync", "always"))

    with ExitStack() as first:
        url = first.enter_context(server())
        with closing(RedisLocks(Settings(redis_url=url))) as locks, redis.Redis.from_url(url) as client:
            with locks("held"):
                assert client.pttl("lookalike:lock:milvus:held") > 20_000
                first.close()
            with server():
                deadline = time.monotonic() + 60
                while client.exists("lookalike:lock:milvus:held"):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)


def test_a_lock_that_lapsed_is_not_taken_from_its_next_holder(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    locks = RedisLocks(Settings(redis_url=redis_url))
    with redis.Redis.from_url(redis_url) as client:
        with locks("slow"):
            client.set("lookalike:lock:milvus:slow", "the next holder")
        assert client.get("lookalike:lock:milvus:slow") == b"the next holder"
    assert "had lapsed before it was released" in caplog.text
    locks.close()


def test_a_failed_call_is_raised_and_not_also_printed(
    milvus_uri: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = VectorStore(Settings(milvus_uri=milvus_uri))
    store.bind("quiet", MODEL)
    with pytest.raises(Exception, match="filter"):
        store.search("quiet", vectors(1), limit=1, filter="album = 1")
    assert "Traceback" not in capfd.readouterr().err + caplog.text
    store.drop("quiet")
    store.close()


def test_a_file_is_not_a_server() -> None:
    with pytest.raises(SetupError, match="milvus-lite server"):
        VectorStore(Settings(milvus_uri="./milvus.db"))
