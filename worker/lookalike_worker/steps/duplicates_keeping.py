"""Clusters of duplicates as arrays, and which image of each is suggested to be kept, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.records import Keep
from lookalike_worker.steps.duplicates_state import Array, State

_Numbers = NDArray[np.int32]
_Key = tuple[str, Callable[[Array], Array]]

_PIXELS: Final[_Key] = ("the largest picture", lambda rows: -rows["pixels"])
_SIZE: Final[_Key] = ("the largest file", lambda rows: -rows["size"])
_OLD: Final[_Key] = ("the oldest file", lambda rows: rows["mtime_ns"])
_NEW: Final[_Key] = ("the newest file", lambda rows: -rows["mtime_ns"])
#: By what a keeper is chosen, one after another where those before do not tell; at last by id.
_KEYS: Final = {
    Keep.LARGEST: (_PIXELS, _SIZE, _OLD),
    Keep.OLDEST: (_OLD, _PIXELS, _SIZE),
    Keep.NEWEST: (_NEW, _PIXELS, _SIZE),
    Keep.FIRST: (),  # Addresses are looked up later.
}
_WHY: Final = (
    *dict.fromkeys(name for keys in _KEYS.values() for name, _ in keys),
    "the first by address",
    "the first by id; the others are no different",
)


@dataclass
class Clusters:
    """Clusters one after another, the largest first: their members, numbers of rows, and where each begins.

    The first member of each is its keeper.
    """

    members: _Numbers
    starts: NDArray[np.int64]  #: One more than clusters.
    reasons: NDArray[np.int8]  #: A number in `_WHY` for each cluster.

    @classmethod
    def load(cls, state: State, version: int) -> Self:
        """Return what was saved."""
        return cls(*(state.load(name, part=version) for name in ("members", "starts", "reasons")))

    def save(self, state: State, version: int) -> None:
        """Keep them for the next step; a version is never changed, only made again."""
        state.save("members", self.members, part=version)
        state.save("starts", self.starts, part=version)
        state.save("reasons", self.reasons, part=version)

    def of(self, begin: int, count: int) -> NDArray[np.int64]:
        """Return which cluster each of these members is in."""
        return np.searchsorted(self.starts, np.arange(begin, begin + count), side="right").astype(np.int64) - 1

    def why(self, cluster: int) -> str:
        """Say why a cluster's keeper was chosen."""
        return _WHY[int(self.reasons[cluster])]

    def put_first(self, clusters: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Make the members at these places the keepers of their clusters."""
        starts = self.starts[clusters]
        self.members[starts], self.members[places] = self.members[places], self.members[starts]


def choose(roots: _Numbers, rows: Array, keep: Keep) -> Clusters:
    """Gather the rows that belong together, and put the one to be kept first."""
    counts = np.bincount(roots, minlength=len(roots))
    members = np.flatnonzero(counts[roots] > 1).astype(np.int32)
    of, some = roots[members], rows[members]
    keys = [key(some) for _, key in _KEYS[keep]]
    order = np.lexsort((*reversed(keys), of, -counts[of]))  # Stable: at last by id, as the rows are.
    members, of = members[order], of[order]
    begins = np.flatnonzero(np.concatenate([[True], of[1:] != of[:-1]])) if len(of) else np.zeros(0, np.int64)
    reasons = np.full(len(begins), len(_WHY) - 1 - (keep is Keep.FIRST), np.int8)
    best, second = rows[members[begins]], rows[members[begins + 1]]
    for name, key in reversed(_KEYS[keep]):
        reasons[key(best) != key(second)] = _WHY.index(name)
    return Clusters(members, np.append(begins, len(members)).astype(np.int64), reasons)
