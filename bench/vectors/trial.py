"""One collection with an index of the bench's choice, through the store that the service uses."""

import time
from typing import Any, Final

import numpy as np

from lookalike.records import IndexKind, Metric, ModelInfo
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike.vectorstore.checks import physical_name
from lookalike.vectorstore.indexes import IndexSpec, ServerKind, index_for, index_params
from vectors.data import BLOCK, Mixture, Neighbours, Vectors, recall
from vectors.service import Server

_NAME: Final = "bench"
LIMIT: Final = 10
_TOGETHER: Final = 32  #: Queries of one call, as a search worker makes it when many wait.
_CALL: Final = 1_000  #: Rows of one upsert, as many as the store sends at once.
_WARM: Final = 3
_INDEXED_ROWS: Final = 1024  #: A server compares all rows of a smaller segment.
_TIMEOUT_S: Final = 570.0  #: Building a large index is one call.

Figures = dict[str, Any]


def specs(server: ServerKind, rows: int, dim: int) -> dict[str, IndexSpec]:
    """The indexes to compare, by the names they have in the tables."""
    of = {kind.value: index_for(kind, rows, dim, server) for kind in (IndexKind.FLAT, IndexKind.HNSW)}
    cells = [64, 128] if server is ServerKind.LITE else [256, 512, 1024]
    for nlist in cells:
        of[f"IVF_{nlist}"] = IndexSpec(index_type="IVF_FLAT", build={"nlist": nlist}, search={"nprobe": 64}, reason="")
    if server is ServerKind.LITE:
        of["IVF_1"] = of.pop("FLAT")
        of["FLAT"] = IndexSpec(index_type="FLAT", reason="")
    return of


class Trial(VectorStore):
    """A store whose collection has this index, whatever the rule would choose."""

    def __init__(self, server: Server, dim: int, spec: IndexSpec) -> None:
        super().__init__(Settings(milvus_uri=server.uri, milvus_timeout_s=_TIMEOUT_S))
        self._server = server
        self._spec_here = spec
        self._model = ModelInfo(name="made-up", weights="none", trained=False, fingerprint=f"{dim:064x}", dim=dim)
        self._name = f"{_NAME}{dim}"
        self._physical = physical_name(self._name, self._model.fingerprint)
        self._mixture = Mixture(dim)
        self.bind(self._name, self._model)

    def _spec(self, *_: Any, **__: Any) -> IndexSpec:
        return self._spec_here

    def fill(self, rows: int) -> Figures:
        """Store rows up to this many, and wait until the server is done with them."""
        stored = self.count(self._name)
        first = stored - stored % BLOCK  # A run that was cut short may have left a part of a block.
        with _Metered(self._server) as metered:
            for start, block in self._mixture.blocks(first, rows):
                for offset in range(0, len(block), _CALL):
                    part = block[offset : offset + _CALL]
                    self.upsert(self._name, [_image(start + offset + row) for row in range(len(part))], part)
        stored_s, stored_cpu_s = metered.figures
        with _Metered(self._server) as metered:
            if self._server.kind is ServerKind.MILVUS:
                self._milvus.call("flush", self._physical, timeout_s=_TIMEOUT_S)
            self._settle()
        return {
            "stored": rows - first,
            "store_s": stored_s,
            "store_cpu_s": stored_cpu_s,
            "settle_s": metered.figures[0],
            "settle_cpu_s": metered.figures[1],
            "rss_mib": self._server.rss_mib(),
        }

    def index(self) -> Figures:
        """Replace the collection's index by the trial's, and wait until it is built."""
        params = index_params(Metric.COSINE, self._spec_here)
        with _Metered(self._server) as metered:
            self._milvus.replace_index(self._physical, params, alias=self._name, timeout_s=_TIMEOUT_S)
            self._settle()
        return {"build_s": metered.figures[0], "build_cpu_s": metered.figures[1], "rss_mib": self._server.rss_mib()}

    def load(self) -> Figures:
        """Have the collection loaded."""
        with _Metered(self._server) as metered:
            rows = self.count(self._name)
            self._settle()
        return {"rows": rows, "load_s": metered.figures[0], "rss_mib": self._server.rss_mib()}

    def search_all(self, asked: Vectors, exact: Neighbours) -> Figures:
        """Search for (nq, dim) vectors one by one and in calls of 32, and compare with what an exact search found."""
        rows = self.count(self._name)
        queries = len(asked)
        one = self._timed([asked[row : row + 1] for row in range(len(asked))])
        many = self._timed([np.roll(asked, -_TOGETHER * turn, axis=0)[:_TOGETHER] for turn in range(queries // 12)])
        found = [[(int(hit.image.id, 16), hit.distance) for hit in hits[0]] for hits in one.pop("answers")]
        del many["answers"]
        return {
            "rows": rows,
            "one": one,
            "many": many,
            "recall_1": recall(exact, found, 1),
            "recall_10": recall(exact, found, LIMIT),
            "rss_mib": self._server.rss_mib(),
        }

    def _timed(self, calls: list[Vectors]) -> dict[str, Any]:
        for call in calls[:_WARM]:
            self.search(self._name, call, limit=LIMIT)
        answers, taken_s = [], []
        with _Metered(self._server) as metered:
            for call in calls:
                began_s = time.perf_counter()
                answers.append(self.search(self._name, call, limit=LIMIT))
                taken_s.append(time.perf_counter() - began_s)
        return {
            "p50_ms": 1e3 * float(np.percentile(taken_s, 50)),
            "p95_ms": 1e3 * float(np.percentile(taken_s, 95)),
            "cpu_ms": 1e3 * metered.figures[1] / len(calls),
            "answers": answers,
        }

    def _settle(self) -> None:
        """Wait until nothing is built in the background: a server's indexes, or Lite's merging of its files."""
        if self._server.kind is ServerKind.LITE:
            self._idle()
            return
        while not self._indexed():
            time.sleep(0.2)

    def _indexed(self) -> bool:
        """Tell whether a server answers by the index: until it has loaded one, it makes do with one of its own."""
        index = self._milvus.call("describe_index", self._physical, "vector", timeout_s=_TIMEOUT_S)
        segments = self._milvus.call("list_loaded_segments", self._physical, timeout_s=_TIMEOUT_S)
        if int(index.get("pending_index_rows", 0)) or not segments:
            return False
        if self._spec_here.index_type == "FLAT":  # For which nothing is built or loaded.
            return all(one.state.name == "Sealed" for one in segments)
        return all(one.index_name for one in segments if one.num_rows >= _INDEXED_ROWS)

    def _idle(self) -> None:
        quiet = 0
        while quiet < 5:
            before = self._server.cpu_s()
            time.sleep(0.2)
            quiet = quiet + 1 if self._server.cpu_s() - before < 0.02 else 0


class _Metered:
    """Seconds by the clock, and of the server's processors, that a block takes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.figures = (0.0, 0.0)

    def __enter__(self) -> "_Metered":
        self._before = time.perf_counter(), self._server.cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        began_s, cpu_s = self._before
        self.figures = time.perf_counter() - began_s, self._server.cpu_s() - cpu_s


def _image(row: int) -> StoredImage:
    return StoredImage(
        id=f"{row:032x}",
        uri=f"file:///photos/{row // BLOCK}/{row}.jpg",
        name=f"{row}.jpg",
        sha256=f"{row:064x}",
        size=400_000 + row,
        mtime_ns=1_700_000_000_000_000_000 + row,
        width=1500,
        height=1000,
        metadata={"album": "bench"},
    )
