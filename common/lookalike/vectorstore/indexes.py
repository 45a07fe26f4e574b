"""Which index a collection gets, and why. Pure functions; docs/decisions/0002-collections.md has the measurements."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from lookalike.records import IndexKind, Metric

EXACT_ROWS: Final = 20_000  #: Up to here an exact search on a server takes tens of milliseconds, so AUTO stays exact.
SEGMENT_BYTES: Final = 512 << 20  #: A sealed segment of a Milvus server; each has an index of its own.
AUTO_NPROBE: Final = 64  #: Of AUTO and IVF_FLAT; fixed, because Milvus Lite keeps it in an object that searches share.
DEFAULT_NLIST: Final = 1024  #: 4 * sqrt of a full segment's 65,536 rows of 2,048 values.
TUTORIAL: Final = {"nlist": 16_384, "nprobe": 128}
LITE_MAX_NLIST: Final = 128  #: Milvus Lite indexes each flush of some hundred rows; more cells than rows is no index.
HNSW_BUILD: Final = {"M": 16, "efConstruction": 128}
HNSW_EF: Final = 128


class ServerKind(StrEnum):
    """What answers at the Milvus address."""

    LITE = "lite"  #: `milvus-lite server`: one process, for one machine.
    MILVUS = "milvus"  #: A Milvus server or cluster.


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """An index in Milvus' terms, with the reason for it."""

    index_type: str
    build: Mapping[str, int] = field(default_factory=dict)
    search: Mapping[str, int] = field(default_factory=dict)
    reason: str

    def search_params(self, limit: int) -> dict[str, int]:
        """Parameters of one search; HNSW looks at no fewer candidates than it is to return."""
        if "ef" in self.search:
            return {"ef": max(self.search["ef"], limit)}
        return dict(self.search)

    def __str__(self) -> str:
        return " ".join([self.index_type, *(f"{key}={value}" for key, value in self.build.items())])


def metric_for(index: IndexKind, metric: Metric) -> Metric:
    """The metric a collection gets: the tutorial's preset brings its own."""
    return Metric.L2 if index is IndexKind.TUTORIAL else metric


def choose_index(rows: int, dim: int, server: ServerKind) -> IndexSpec:
    """Choose AUTO's index for so many rows of so many values."""
    if server is ServerKind.LITE or rows <= EXACT_ROWS:
        return _exact(server)
    segment_rows = min(rows, SEGMENT_BYTES // (4 * dim))
    # Milvus' FAQ: nlist = 4 * sqrt(rows of a segment). As a power of two it changes rarely while a collection grows.
    nlist = 2 ** round(math.log2(4 * math.sqrt(segment_rows)))
    nlist = max(AUTO_NPROBE, nlist)
    return _ivf(nlist, AUTO_NPROBE, f"{rows} rows are above {EXACT_ROWS}; 4 * sqrt({segment_rows} rows per segment)")


def index_for(kind: IndexKind, rows: int, dim: int, server: ServerKind) -> IndexSpec:
    """Turn a collection's setting into an index this server takes; `reason` says what was clamped."""
    lite = server is ServerKind.LITE
    match kind:
        case IndexKind.AUTO:
            return choose_index(rows, dim, server)
        case IndexKind.FLAT:
            return _exact(server)
        case IndexKind.HNSW:
            return IndexSpec(
                index_type="HNSW", build=HNSW_BUILD, search={"ef": HNSW_EF}, reason="asked for by the collection"
            )
        case IndexKind.IVF_FLAT:
            wanted, nprobe = DEFAULT_NLIST, AUTO_NPROBE
        case IndexKind.TUTORIAL:
            wanted, nprobe = TUTORIAL["nlist"], TUTORIAL["nprobe"]
    if not lite:
        return _ivf(wanted, nprobe, "asked for by the collection")
    nlist = min(wanted, LITE_MAX_NLIST)
    return _ivf(nlist, min(nprobe, nlist), f"nlist {wanted} clamped to {nlist}: Milvus Lite indexes small segments")


def outgrown(current: Mapping[str, Any], wanted: IndexSpec) -> bool:
    """True where the index Milvus describes is not worth keeping: another type, or a quarter of the cells it needs."""
    if current["index_type"] != wanted.index_type:
        return True
    return "nlist" in wanted.build and 4 * int(current["nlist"]) <= wanted.build["nlist"]


def index_params(metric: Metric, spec: IndexSpec) -> dict[str, Any]:
    """Lay an index out as pymilvus wants it."""
    return {"index_type": spec.index_type, "metric_type": metric.value, "params": dict(spec.build)}


def _ivf(nlist: int, nprobe: int, reason: str) -> IndexSpec:
    return IndexSpec(index_type="IVF_FLAT", build={"nlist": nlist}, search={"nprobe": nprobe}, reason=reason)


def _exact(server: ServerKind) -> IndexSpec:
    if server is ServerKind.LITE:
        # One cell, always looked into: every row is compared, by FAISS. Lite's own FLAT copies all vectors per search.
        return _ivf(1, 1, "exact, and on Milvus Lite six times as fast as its FLAT")
    # AUTO turns to IVF_FLAT later, and FLAT ignores a parameter it does not know: one set fits both.
    return IndexSpec(index_type="FLAT", search={"nprobe": AUTO_NPROBE}, reason=f"exact, up to {EXACT_ROWS} rows")
