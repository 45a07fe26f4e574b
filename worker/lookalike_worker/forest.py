"""Union-find over arrays: which things belong together, told by pairs of them. Four bytes a thing."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]


class Forest:
    """Things numbered from 0, each at first alone."""

    def __init__(self, size: int) -> None:
        self._parents: Numbers = np.arange(size, dtype=np.int32)

    def join(self, left: Numbers, right: Numbers) -> None:
        """Join the things of each pair, all pairs at once: (n,) and (n,).

        Roots hang themselves under the smallest root that they are paired with, and paths are halved until they are
        flat, again and again: the parallel algorithm of Y. Shiloach and U. Vishkin, 1982, in whole arrays.
        """
        while True:
            left, right = self._parents[left], self._parents[right]
            apart = left != right
            if not apart.any():
                return
            left, right = left[apart], right[apart]
            np.minimum.at(self._parents, np.maximum(left, right), np.minimum(left, right))
            self._flatten()

    def roots(self) -> Numbers:
        """Return for each thing the smallest number of those it belongs with."""
        return self._parents

    def _flatten(self) -> None:
        while True:
            above = self._parents[self._parents]
            if np.array_equal(above, self._parents):
                return
            self._parents = above
