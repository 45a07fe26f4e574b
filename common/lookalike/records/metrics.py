"""Metrics: how two vectors are compared, and which of two distances is the closer."""

from enum import StrEnum


class Metric(StrEnum):
    """How two vectors are compared. `distance` is what Milvus returns for it."""

    COSINE = "COSINE"  #: Cosine of the angle; 1 is the same direction.
    L2 = "L2"  #: Squared Euclidean distance; 0 is the same vector.
    IP = "IP"  #: Inner product; larger is closer.

    def nearness(self, distance: float) -> float:
        """Turn Milvus' distance around where less of it is closer. What is closer has more nearness."""
        return -distance if self is Metric.L2 else distance


def score(distance: float, metric: Metric) -> float:
    """Turn Milvus' distance into a number that grows with likeness: L2 becomes 1 / (1 + d), the others stay."""
    return 1.0 / (1.0 + distance) if metric is Metric.L2 else distance
