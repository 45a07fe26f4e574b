"""Search: one client's latency, many clients' throughput, both beside an ingest, over stored vectors in number."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from lookalike.roots import file_uri, image_id
from lookalike.vectorstore import StoredImage, VectorStore
from speed.figures import Part, Say, Table, Values, percentile, shown
from speed.load import Ask, Searches, client, latencies_ms, searches_per_s
from speed.options import Options
from speed.pictures import SIZES, take
from speed.stack import Stack

ROWS: Final = {"10k": 10_000, "100k": 100_000}

_SIZE: Final = SIZES["1.5"]
_QUERIES: Final = 32  #: Pictures that are searched for.
_CLUSTERS: Final = 256
_ROWS_A_CALL: Final = 1_000
_JOBS: Final = 100  #: Ingests beside the searches, more than are ever done.
_COLLECTION: Final = "stored"
_SHARES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
#: One task for each search, as without batches: what is set beside the service to see what sharing the network gains.
_SINGLY: Final = {"LOOKALIKE_SEARCH_BATCH": "1", "LOOKALIKE_PRECISION": "fp32"}
_SINGLY_CLIENTS: Final = 32
_BESIDE_INGEST: Final = (1, 32)  #: Clients, of those that are asked for: searches are slow there.
_MOST_CLIENTS: Final = 32  #: Over large collections: on Milvus Lite more of them wait for minutes.


def measure(name: str, place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the part `search-ROWS`."""
    rows = ROWS[name.removeprefix("search-")]
    if options.quick:
        rows //= 5  # Storing them takes longer than searching.
    if rows > ROWS["10k"]:
        options = replace(options, clients=tuple(clients for clients in options.clients if clients <= _MOST_CLIENTS))
    bench = _Bench(name, rows, place, options, say)
    part = Part(name)
    with bench.stack("ours") as (stack, searches):
        kinds: dict[str, Ask] = {"upload": searches.by_upload, "path": searches.by_path, "id": searches.by_id}
        say(f"{name}: one client")
        idle = _latencies(stack, kinds, options)
        say(f"{name}: many clients")
        failed: dict[str, int] = {}
        idle_rates = _rates(stack, searches.by_path, options, failed)
        say(f"{name}: beside an ingest")
        with _ingesting(stack, options):
            busy = _latencies(stack, kinds, options)
            few = () if options.quick else tuple(clients for clients in options.clients if clients in _BESIDE_INGEST)
            busy_rates = _rates(stack, searches.by_path, replace(options, clients=few), failed)
        part.data["precision"] = stack.info()["workers"][0]["precision"]
        part.data |= {"latency_ms": idle, "latency_ms_beside_ingest": busy, "peak_mb": stack.peak_mb()}
        part.data["failed"] = failed
        part.data |= {"searches_per_s": idle_rates, "searches_per_s_beside_ingest": busy_rates}
        if rows == ROWS["10k"]:
            part.data["searches_per_s_beside_singly"] = bench.beside_singly(part, stack, searches)
    _sum_up(part, idle, busy, idle_rates)
    part.tables = [
        _latency_table(f"One client over {rows:,} stored vectors, ms", idle),
        _latency_table(f"The same beside an ingest at full speed, ms, over {rows:,}", busy),
        _rate_table(rows, idle_rates, busy_rates, failed),
        _memory_table(rows, part.data["peak_mb"]),
    ]
    yield part


@dataclass(frozen=True)
class _Bench:
    """One number of stored vectors, and services that have them."""

    name: str
    rows: int
    place: Path
    options: Options
    say: Say

    @contextmanager
    def stack(self, name: str, env: Mapping[str, str] | None = None) -> Iterator[tuple[Stack, Searches]]:
        """Start a service with so many stored vectors, made up but for those of a few pictures."""
        root = self.options.pictures
        folder, paths = take(root, _SIZE, _QUERIES)
        with Stack(self.place / name, root=root, models=self.options.models, env=env) as stack:
            stack.ingest(folder, _COLLECTION)
            self.say(f"{self.name}: storing {self.rows:,} vectors")
            vectors = stack.vectors()
            try:
                _fill(vectors, self.rows - len(paths))
            finally:
                vectors.close()
            yield stack, Searches(_COLLECTION, paths, root, [image_id(file_uri(path)) for path in paths])

    def beside_singly(self, part: Part, stack: Stack, searches: Searches) -> dict[str, Values]:
        """Compare with a service that gives each search a task of its own, a batch of one, and fp32."""
        rates: dict[str, Values] = {"shared": [], "singly": []}
        with self.stack("singly", env=_SINGLY) as (other, others):
            self.say(f"{self.name}: beside one task for each search, in fp32")
            both = {"shared": (stack, searches), "singly": (other, others)}
            for _ in range(self.options.turns):
                for name, (one, its) in both.items():
                    seconds = self.options.round_s
                    rate = searches_per_s(one.service.url, its.by_path, clients=_SINGLY_CLIENTS, seconds=seconds)
                    rates[name].append(rate.answers_per_s)
        what = f"{_SINGLY_CLIENTS} clients: shared batches over one task each in fp32"
        part.ratio(what, rates["shared"], rates["singly"])
        return rates


def _fill(vectors: VectorStore, rows: int) -> None:
    """Store clustered vectors, those of no picture at all."""
    model = vectors.collection(_COLLECTION).model
    assert model
    vectors.bind(_COLLECTION, model)
    rng = np.random.default_rng(1)
    centres = rng.random((_CLUSTERS, model.dim), np.float32)
    for first in range(0, rows, _ROWS_A_CALL):
        count = min(_ROWS_A_CALL, rows - first)
        near = centres[rng.integers(_CLUSTERS, size=count)]
        noise = 0.25 * rng.standard_normal((count, model.dim), np.float32)
        vectors.upsert(_COLLECTION, [_row(first + number) for number in range(count)], np.abs(near + noise))


def _row(number: int) -> StoredImage:
    uri = f"file:///made/up/{number:07}.jpg"
    name = f"{number:07}.jpg"
    return StoredImage(
        id=image_id(uri), uri=uri, name=name, sha256="", size=1, mtime_ns=1, width=1500, height=1000, metadata={}
    )


def _latencies(stack: Stack, kinds: dict[str, Ask], options: Options) -> dict[str, list[Values]]:
    """One client's milliseconds of each kind, by turn; the kinds take turns."""
    taken: dict[str, list[Values]] = {kind: [] for kind in kinds}
    with client(stack.service.url) as http:
        for ask in kinds.values():
            latencies_ms(http, ask, range(3))  # What is done once for each picture and connection.
        for turn in range(options.turns):
            numbers = range(turn * options.latencies, (turn + 1) * options.latencies)
            for kind, ask in kinds.items():
                taken[kind].append(latencies_ms(http, ask, numbers, most_s=options.seconds))
    return taken


def _rates(stack: Stack, ask: Ask, options: Options, failed: dict[str, int]) -> dict[str, Values]:
    """Searches a second by the number of clients, a value for each turn; those that failed are added to `failed`."""
    rates: dict[str, Values] = {str(clients): [] for clients in options.clients}
    for _ in range(options.turns):
        for clients in options.clients:
            rate = searches_per_s(stack.service.url, ask, clients=clients, seconds=options.round_s)
            rates[str(clients)].append(rate.answers_per_s)
            failed[str(clients)] = failed.get(str(clients), 0) + rate.failed
    return rates


@contextmanager
def _ingesting(stack: Stack, options: Options) -> Iterator[None]:
    """Keep the ingest worker at full speed as long as the block lasts."""
    folder, _ = take(options.pictures, _SIZE, options.files)
    # Each names a collection of its own, so that every picture is new.
    jobs = [stack.service.ingest(folder, collection=f"beside{number}") for number in range(_JOBS)]
    try:
        yield
    finally:
        left = sum(not stack.service.job(job)["finished_at"] for job in jobs)
        for job in jobs:
            stack.service.http.post(f"/v1/jobs/{job}/cancel")
        for job in jobs:
            stack.service.finished(job)
        if not left:
            raise RuntimeError("the ingests ended before the searches did; these figures are of an idle service")


def _sum_up(part: Part, idle: dict[str, list[Values]], busy: dict[str, list[Values]], rates: dict[str, Values]) -> None:
    """Note the ratios, each turn's own."""
    for kind in ("upload", "path"):
        part.ratio(f"p50 by {kind} over p50 by id", *(_each(idle[one], 0.5) for one in (kind, "id")))
    for kind, turns in idle.items():
        part.ratio(f"p95 by {kind} beside an ingest over idle", _each(busy[kind], 0.95), _each(turns, 0.95))
    fewest, *others = rates
    for clients in others:
        part.ratio(f"searches/s of {clients} clients over {fewest}", rates[clients], rates[fewest])


def _each(turns: Sequence[Values], share: float) -> Values:
    return [percentile(values, share) for values in turns]


def _latency_table(title: str, taken: dict[str, list[Values]]) -> Table:
    rows = []
    for kind, turns in taken.items():
        every = [value for values in turns for value in values]
        rows.append((f"by {kind}", *(f"{percentile(every, share):.0f}" for share in _SHARES.values()), str(len(every))))
    return Table(title, ("query", *_SHARES, "searches"), rows)


def _rate_table(rows: int, idle: dict[str, Values], busy: dict[str, Values], failed: dict[str, int]) -> Table:
    lines = [(clients, shown(idle[clients]), shown(busy.get(clients, [])), str(failed[clients])) for clients in idle]
    return Table(
        f"Searches/s by path over {rows:,} stored vectors",
        ("clients", "idle", "beside an ingest at full speed", "failed"),
        lines,
        "The clients run on the same cores as the service.",
    )


def _memory_table(rows: int, peaks: dict[str, float]) -> Table:
    lines = [(process, f"{mb:,.0f}") for process, mb in peaks.items()]
    return Table(f"Peak memory in MB after all of this, over {rows:,} stored vectors", ("process", "MB"), lines)
