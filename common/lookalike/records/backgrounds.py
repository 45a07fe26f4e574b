"""The background of a collection: how far apart pictures are that have nothing to do with each other.

With it a distance, which by itself says nothing, becomes a statement: closer than so many of a hundred random pairs,
and so many pictures would be as close by chance alone. docs/decisions/0015-scores.md has the method and its sources.
"""

import math
from bisect import bisect_right
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist
from typing import Final, Self

from pydantic import ConfigDict, Field, model_validator

from lookalike.records.base import Record
from lookalike.records.metrics import Metric, score

NEAR_DUPLICATE_FALSE: Final = 0.1  #: False matches expected in the whole collection: at most one query in ten has one.
SIMILAR_SHARE: Final = 0.01  #: Of random pairs: closer than 99 in 100.
_NORMAL: Final = NormalDist()
_STRAIGHT: Final = 1e-9  #: A bend of the tail below this, as a part of its slope, is none.


class Band(StrEnum):
    """How like a hit is, in words, closest first."""

    IDENTICAL = "identical"  #: The same bytes, or a distance that is none.
    NEAR_DUPLICATE = "near-duplicate"  #: So close that chance alone has a tenth of a picture there, or less.
    SIMILAR = "similar"  #: Closer than 99 of 100 random pairs.
    WEAK = "weak"  #: What chance finds, too.


class Threshold(Record):
    """How close a hit has to be for a query to have so many false ones."""

    false_matches: float  #: Expected by chance, of one query in the whole collection.
    distance: float
    score: float


class Background(Record):
    """Distances of random pairs of a collection's images, and the tail that goes on where there are too few pairs.

    Distances are as Milvus states them. Shares run from 1, the farthest pair, down to that of the tail.
    """

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has no way to say them, and a catalog has to be readable.

    metric: Metric
    fingerprint: str  #: Of the model whose vectors these are.
    rows: int = Field(ge=2)  #: Images in the collection when it was measured.
    sampled: int = Field(ge=2)  #: Images that pairs were made of.
    pairs: int = Field(ge=1)
    measured_at: datetime
    shares: tuple[float, ...]  #: Of the pairs that are at least as close as...
    distances: tuple[float, ...]  #: ...these, of the same number.
    #: Beyond the last share nearness grows by slope * (z - z0) + bend * (z**2 - z0**2), where z is the normal
    #: distribution's quantile of a share, and z0 that of the last one.
    tail_slope: float
    tail_bend: float

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        nearness = [self.metric.nearness(distance) for distance in self.distances]
        falling = all(more > less for more, less in pairwise(self.shares))
        if len(self.shares) != len(nearness) or len(nearness) < 2 or not falling or nearness != sorted(nearness):
            raise ValueError("a background has a distance for each of its shares, in order")
        return self

    def closer_share(self, distance: float) -> float:
        """Return the share of random pairs that are at least as close as this."""
        wanted = self.metric.nearness(distance)
        nearness = [self.metric.nearness(known) for known in self.distances]
        above = bisect_right(nearness, wanted)
        if above == 0:
            return 1.0
        if above == len(nearness):
            return self._share_beyond(wanted - nearness[-1])
        first, last = nearness[above - 1], nearness[above]
        part = (wanted - first) / (last - first)
        # Shares fall by factors from one to the next, not by amounts.
        return float(self.shares[above - 1] * (self.shares[above] / self.shares[above - 1]) ** part)

    def percentile(self, distance: float) -> float:
        """Return how many of a hundred random pairs are farther apart."""
        return 100.0 * (1.0 - self.closer_share(distance))

    def false_matches(self, distance: float) -> float:
        """Return how many images of the whole collection chance alone would have at least as close to a query."""
        return self.rows * self.closer_share(distance)

    def threshold(self, false_matches: float) -> Threshold:
        """Return how close a hit has to be for a query to expect so many false ones, or fewer."""
        distance = self._distance(min(1.0, false_matches / self.rows))
        return Threshold(false_matches=false_matches, distance=distance, score=score(distance, self.metric))

    def band(self, distance: float) -> Band:
        """Return the word for a distance that is not `identical`."""
        share = self.closer_share(distance)
        if share * self.rows <= NEAR_DUPLICATE_FALSE and share <= SIMILAR_SHARE:
            return Band.NEAR_DUPLICATE
        return Band.SIMILAR if share <= SIMILAR_SHARE else Band.WEAK

    def _distance(self, share: float) -> float:
        """Return the distance that this share of random pairs keeps within."""
        last = self.shares[-1]
        if share < last:
            nearness = self.metric.nearness(self.distances[-1]) + self._excess(share)
            # Nothing is closer than the same.
            best = {Metric.COSINE: 1.0, Metric.L2: 0.0, Metric.IP: math.inf}[self.metric]
            return min(nearness, best) if self.metric is not Metric.L2 else max(-nearness, best)
        below = next(place for place, known in enumerate(self.shares) if known <= share)
        if below == 0:
            return self.distances[0]
        more, less = self.shares[below - 1], self.shares[below]
        part = math.log(share / more) / math.log(less / more)
        return self.distances[below - 1] + part * (self.distances[below] - self.distances[below - 1])

    def _excess(self, share: float) -> float:
        """Return by how much a share smaller than the last one is nearer than that."""
        z, z0 = _z(share), _z(self.shares[-1])
        return self.tail_slope * (z - z0) + self.tail_bend * (z * z - z0 * z0)

    def _share_beyond(self, excess: float) -> float:
        """The inverse of `_excess`."""
        z0, slope, bend = _z(self.shares[-1]), self.tail_slope, self.tail_bend
        if excess <= 0:
            return self.shares[-1]
        if slope <= 0 and bend <= 0:
            return 0.0
        if abs(bend) <= _STRAIGHT * slope:
            z = z0 + excess / slope
        else:
            inner = slope * slope + 4 * bend * (slope * z0 + bend * z0 * z0 + excess)
            if inner < 0:
                return 0.0  # Past the end of a tail that has one.
            z = (math.sqrt(inner) - slope) / (2 * bend)
        return 0.5 * math.erfc(z / math.sqrt(2))


def _z(share: float) -> float:
    """Return what a normal variable exceeds with this probability."""
    return -_NORMAL.inv_cdf(min(max(share, 1e-300), 1 - 1e-12))
