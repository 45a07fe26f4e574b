"""Overhead: what a search costs besides decoding, the network and Milvus: HTTP, the job store, the doorbell.

The front end, its Milvus Lite and the job store are real; the search worker's network, codec and store are not.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2

from lookalike.settings import Settings
from lookalike.supervisor.servers import free_port
from lookalike.vectorstore import VectorStore
from servers import start_milvus_lite
from speed.figures import Part, Say, Table, Values, percentile, shown
from speed.load import Ask, client, latencies_ms, searches_per_s
from speed.options import Options
from speed.pictures import SIZES, take
from speed.stack import clean_environment
from stand_in import parts
from stand_in.service import Service, running
from stand_in.vector import DIM

_COLLECTION: Final = "nothing"
_GUNICORN: Final = ("-m", "gunicorn", "-c", "python:lookalike_web.gunicorn_conf", "lookalike_web.wsgi:app")
_START_S: Final = 60.0
_STOP_S: Final = 60.0
_CLIENTS: Final = (1, 8, 32)


def measure(place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the part `overhead`."""
    part = Part("overhead")
    _, paths = take(options.pictures, SIZES["1.5"], 32)
    where = place / "overhead"
    where.mkdir(parents=True)
    root = options.pictures.absolute()
    with start_milvus_lite(where / "milvus") as (uri, process):
        vectors = VectorStore(Settings(milvus_uri=uri))
        vectors.bind(_COLLECTION, parts.MODEL)
        vectors.close()
        arguments = ("--lane=search", "--store=null", "--codec=address")
        with (
            running(where / "service", root, workers=1, arguments=arguments, milvus=(uri, process.pid)) as service,
            _front_end(where, service, uri, root) as url,
        ):
            names = [path.absolute().relative_to(root).as_posix() for path in paths]
            kinds = {"vector": _ask({"vector": [1.0] * DIM}), "path": _by_path(names)}
            _measure(part, url, kinds, options, say)
    yield part


def _measure(part: Part, url: str, kinds: dict[str, Ask], options: Options, say: Say) -> None:
    taken: dict[str, list[Values]] = {kind: [] for kind in kinds}
    rates: dict[str, Values] = {str(clients): [] for clients in _CLIENTS}
    with client(url) as http:
        for ask in kinds.values():
            latencies_ms(http, ask, range(5))
        for turn in range(options.turns):
            say(f"overhead: turn {turn + 1} of {options.turns}")
            for kind, ask in kinds.items():
                taken[kind].append(latencies_ms(http, ask, range(2 * options.latencies)))
            for clients in _CLIENTS:
                rate = searches_per_s(url, kinds["vector"], clients=clients, seconds=options.round_s)
                rates[str(clients)].append(rate.answers_per_s)
    part.data |= {"latency_ms": taken, "searches_per_s": rates}
    rows = [
        (f"by {kind}", *(shown([percentile(values, share) for values in turns]) for share in (0.5, 0.95)))
        for kind, turns in taken.items()
    ]
    part.tables = [
        Table(
            "A search whose network, codec and vector store stand in, ms",
            ("query", "p50", "p95"),
            rows,
            "A path is looked at by the front end and read by a decoder; a vector goes through queue and HTTP only.",
        ),
        Table(
            "The same, searches/s by vector",
            ("clients", "searches/s"),
            [(clients, shown(values)) for clients, values in rates.items()],
        ),
    ]


def _ask(query: dict[str, object]) -> Ask:
    def ask(http: httpx2.Client, _: int) -> httpx2.Response:
        body = {"collection": _COLLECTION, "queries": [query], "wait": 30}
        return http.post("/v1/searches", json=body)

    return ask


def _by_path(names: list[str]) -> Ask:
    def ask(http: httpx2.Client, number: int) -> httpx2.Response:
        return _ask({"path": names[number % len(names)]})(http, number)

    return ask


@contextmanager
def _front_end(where: Path, service: Service, milvus_uri: str, root: Path) -> Iterator[str]:
    """Run gunicorn as `lookalike up` does, as long as the block lasts; gives its address."""
    port = free_port()
    env = {
        **clean_environment(),
        "LOOKALIKE_PORT": str(port),
        "LOOKALIKE_REDIS_URL": service.settings.redis_url.get_secret_value(),
        "LOOKALIKE_MILVUS_URI": milvus_uri,
        "LOOKALIKE_DATA_DIR": str(service.settings.data_dir),
        "LOOKALIKE_ROOTS": str(root),
    }
    url = f"http://127.0.0.1:{port}"
    with (where / "web.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *_GUNICORN], env=env, stdout=log, stderr=log)
    try:
        _await_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _await_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    with client(url) as http:
        while True:
            try:
                http.get("/healthz").raise_for_status()
            except httpx2.HTTPError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the front end did not start; see web.log") from error
                time.sleep(0.05)
            else:
                return
