"""All pairs of 64-bit hashes that differ in few bits, without comparing each with each.

Multi-index hashing (M. Norouzi, A. Punjani, D. J. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012). Hashes are cut into bands. Where two differ in at most `r = m * a + b` bits, they differ in at most `a` of one of
the first `b + 1` of their `m` bands, or in at most `a - 1` of one of the others (its proposition 2); so each band is
looked up with that many of its bits flipped, and only what is found there is compared.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 64
_CANDIDATES: Final = 1 << 21  #: Compared at a time: some 100 MB of arrays.
_WORK: Final = 24_000_000  #: Look-ups and comparisons of one call: about a second.

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Place:
    """How far the search is: in which look-up, and from which hash on."""

    lookup: int = 0
    row: int = 0


@dataclass(frozen=True)
class _Lookup:
    band: int
    flips: int  #: Bits of the band.


def distances(left: Hashes, right: Hashes) -> NDArray[np.uint8]:
    """Count the bits that differ in each pair: (n,) and (n,)."""
    bits = left ^ right  # Counted in parallel, as in H. S. Warren, "Hacker's Delight", section 5-1.
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((bits * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


class Neighbours:
    """The pairs within `max_bits` of each other among hashes that all differ."""

    def __init__(self, hashes: Hashes, max_bits: int) -> None:
        self._hashes = hashes
        self._max_bits = max_bits
        # Bands about as wide as hashes are many: then few share one by chance.
        self._bands = min(8, max(3, round(BITS / math.log2(max(len(hashes), 4)))))
        self._edges = [BITS * band // self._bands for band in range(self._bands + 1)]
        self._lookups = list(self._all_lookups())
        self._sorted_by: int | None = None
        self._order: Any = None  #: Of the hashes, by the band at hand.
        self._keys: Any = None
        self._starts: Any = None  #: Where each value of the band begins in that order.

    def find(self, place: Place) -> tuple[Numbers, Numbers, Place | None]:
        """Look for pairs for about a second: their numbers, and where to go on, None at the end.

        A pair may be found more than once. From one place it is always the same pairs that are found.
        """
        left: list[Numbers] = []
        right: list[Numbers] = []
        work = 0
        while place.lookup < len(self._lookups) and work < _WORK:
            firsts, counts, rows = self._candidates(self._lookups[place.lookup], place.row)
            upto = max(1, int(np.searchsorted(np.cumsum(counts), _CANDIDATES, side="right")))
            firsts, some, rows = firsts[:upto], counts[:upto], rows[:upto]
            work += len(counts) + int(some.sum())
            one, other = self._compared(firsts, some, rows)
            left.append(one)
            right.append(other)
            is_over = upto >= len(counts)
            place = Place(place.lookup + 1) if is_over else Place(place.lookup, int(rows[-1]) + 1)
        nothing = np.zeros(0, np.int32)
        done = place.lookup == len(self._lookups)
        return np.concatenate([nothing, *left]), np.concatenate([nothing, *right]), None if done else place

    def _all_lookups(self) -> Iterator[_Lookup]:
        most, rest = divmod(self._max_bits, self._bands)
        for band in range(self._bands):
            width = self._edges[band + 1] - self._edges[band]
            for flipped in range((most if band <= rest else most - 1) + 1):
                for bits in combinations(range(width), flipped):
                    yield _Lookup(band, sum(1 << bit for bit in bits))

    def _candidates(self, lookup: _Lookup, begin: int) -> tuple[Any, Any, Any]:
        """Return for rows of the sorted order, from `begin` on: where their candidates begin, how many, and the row."""
        self._sort_by(lookup.band)
        rows = np.arange(begin, len(self._keys))
        if not lookup.flips:  # Those that come after in the same bucket.
            return rows + 1, self._starts[self._keys[begin:] + 1] - rows - 1, rows
        wanted = self._keys[begin:] ^ lookup.flips
        upwards = wanted > self._keys[begin:]  # From the other side the same pair would be found again.
        rows, wanted = rows[upwards], wanted[upwards]
        firsts = self._starts[wanted]
        return firsts, self._starts[wanted + 1] - firsts, rows

    def _compared(self, firsts: Any, counts: Any, rows: Any) -> tuple[Numbers, Numbers]:
        begins = np.cumsum(counts) - counts
        left = self._order[np.repeat(rows, counts)]
        right = self._order[np.arange(int(counts.sum())) + np.repeat(firsts - begins, counts)]
        near = distances(self._hashes[left], self._hashes[right]) <= self._max_bits
        return left[near], right[near]

    def _sort_by(self, band: int) -> None:
        if self._sorted_by == band:
            return
        low, high = self._edges[band], self._edges[band + 1]
        keys = ((self._hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)).astype(np.int64)
        self._order = np.argsort(keys, kind="stable").astype(np.int32)
        self._keys = keys[self._order]
        self._starts = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=1 << (high - low)))))
        self._sorted_by = band
