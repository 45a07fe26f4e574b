"""Which index a collection gets, and why. Pure functions; docs/decisions/0012-index-rule.md has the measurements."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from lookalike.errors import InvalidParameter
from lookalike.records import IndexKind, Metric

NPROBE: Final = 64  #: Of IVF_FLAT; fixed, because Milvus Lite keeps it in an object that searches share.
NLIST: Final = 1024  #: Milvus' FAQ: 4 * sqrt of a segment's rows; here of 65,536 rows of 2,048 values, 512 MiB.
TUTORIAL: Final = {"nlist": 16_384, "nprobe": 128}
LITE_MAX_NLIST: Final = 128  #: Milvus Lite indexes each flush of some hundred rows; more cells than rows is no index.
LITE_BYTES: Final = 1 << 30  #: Of vectors; beyond, Milvus Lite needs gigabytes, and a tenth of a second a search.
HNSW_BUILD: Final = {"M": 16, "efConstruction": 128}
HNSW_EF: Final = 128
_BOUNDS: Final = {  # As Milvus has them.
    "M": (4, 64),
    "efConstruction": (8, 512),
    "ef": (1, 32_768),
    "nlist": (2, 65_536),
    "nprobe": (1, 65_536),
}
_ASKED_FOR: Final = "asked for by the collection"
REBUILT_ROWS: Final = 10_000  #: Searches wait while an index is replaced: for so many rows 15 s at most.


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
    advice: str = ""  #: To whoever runs the service, where no index will do.

    @property
    def is_exact(self) -> bool:
        """True where every row is compared: nothing about it can be tuned."""
        return self.index_type == "FLAT" or self.build.get("nlist") == 1

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
    """Choose AUTO's index for so many rows of so many values; one that need not be replaced as they become more."""
    if server is ServerKind.MILVUS:
        return _hnsw("finds nearly all neighbours at every size, and need not be replaced by another as rows are added")
    spec = _exact(server)
    if 4 * rows * dim > LITE_BYTES:
        advice = f"{rows} images of {dim} values are more than Milvus Lite is good for; run a Milvus server for them"
        return replace(spec, advice=advice)
    return spec


def index_for(kind: IndexKind, rows: int, dim: int, server: ServerKind) -> IndexSpec:
    """Turn a collection's setting into an index this server takes; `reason` says what was clamped."""
    lite = server is ServerKind.LITE
    match kind:
        case IndexKind.AUTO:
            return choose_index(rows, dim, server)
        case IndexKind.FLAT:
            return _exact(server)
        case IndexKind.HNSW:
            return _hnsw(_ASKED_FOR)
        case IndexKind.IVF_FLAT:
            wanted, nprobe = NLIST, NPROBE
        case IndexKind.TUTORIAL:
            wanted, nprobe = TUTORIAL["nlist"], TUTORIAL["nprobe"]
    if not lite:
        return _ivf(wanted, nprobe, _ASKED_FOR)
    nlist = min(wanted, LITE_MAX_NLIST)
    return _ivf(nlist, min(nprobe, nlist), f"nlist {wanted} clamped to {nlist}: Milvus Lite indexes small segments")


def tuned(spec: IndexSpec, build: Mapping[str, int], search: Mapping[str, int]) -> IndexSpec:
    """Return an index with a collection's own parameters in the place of those it would get; others are left out."""
    if spec.is_exact:
        return spec
    own_build = {key: build.get(key, value) for key, value in spec.build.items()}
    own_search = {key: search.get(key, value) for key, value in spec.search.items()}
    if "nlist" in own_build:
        own_search["nprobe"] = min(own_search["nprobe"], own_build["nlist"])
    return replace(spec, build=own_build, search=own_search)


def check_tuning(spec: IndexSpec, build: Mapping[str, int], search: Mapping[str, int]) -> None:
    """Raise `InvalidParameter` for parameters that an index does not have, or that are out of its bounds."""
    for given, known, what in ((build, spec.build, "built"), (search, spec.search, "searched")):
        names = () if spec.is_exact else tuple(known)
        for name, value in given.items():
            if name not in names:
                fits = f"with {' and '.join(names)}" if names else "without parameters, since it compares every row"
                raise InvalidParameter(f"This index ({spec.index_type}) is {what} {fits}, and has no {name}.")
            least, most = _BOUNDS[name]
            if not least <= value <= most:
                raise InvalidParameter(f"{name} is between {least} and {most}.")


def is_built(current: Mapping[str, Any], wanted: IndexSpec) -> bool:
    """True where Milvus describes the index that is wanted."""
    params = current.get("params")
    described = {**current, **(params if isinstance(params, dict) else {})}
    return bool(current["index_type"] == wanted.index_type) and all(
        str(described.get(name)) == str(value) for name, value in wanted.build.items()
    )


def index_params(metric: Metric, spec: IndexSpec) -> dict[str, Any]:
    """Lay an index out as pymilvus wants it."""
    return {"index_type": spec.index_type, "metric_type": metric.value, "params": dict(spec.build)}


def _hnsw(reason: str) -> IndexSpec:
    return IndexSpec(index_type="HNSW", build=HNSW_BUILD, search={"ef": HNSW_EF}, reason=reason)


def _ivf(nlist: int, nprobe: int, reason: str) -> IndexSpec:
    return IndexSpec(index_type="IVF_FLAT", build={"nlist": nlist}, search={"nprobe": nprobe}, reason=reason)


def _exact(server: ServerKind) -> IndexSpec:
    if server is ServerKind.LITE:
        # One cell, always looked into: every row is compared. Lite's own FLAT copies all vectors for each search.
        return _ivf(1, 1, "exact, the quickest that Milvus Lite has at any size it is good for")
    return IndexSpec(index_type="FLAT", reason=_ASKED_FOR)
