"""Collections: what a set of images is compared by, and the network that made its vectors."""

from enum import StrEnum
from typing import Literal

from lookalike.records.base import CollectionName, Record


class Metric(StrEnum):
    """How two vectors are compared. `distance` is what Milvus returns for it."""

    COSINE = "COSINE"  #: Cosine of the angle; 1 is the same direction.
    L2 = "L2"  #: Squared Euclidean distance; 0 is the same vector.
    IP = "IP"  #: Inner product; larger is closer.


class IndexKind(StrEnum):
    """How a collection is indexed."""

    AUTO = "AUTO"  #: HNSW on a Milvus server, exact on Milvus Lite.
    FLAT = "FLAT"  #: Exact search.
    IVF_FLAT = "IVF_FLAT"
    HNSW = "HNSW"
    TUTORIAL = "tutorial"  #: The tutorial's preset: L2, IVF_FLAT, nlist 16384, nprobe 128.


class ModelInfo(Record):
    """The network that made a collection's vectors, and how it made them.

    How a file is decoded, and in which precision by which engine its vector is computed, is recorded and no part of the
    fingerprint: each way's vectors have a cosine of at least 0.999 to the reference's (fp32, decoded exactly), so they
    may stand in one collection. A collection's record says how its first ones were made.
    """

    name: str  #: torchvision's name.
    weights: str  #: torchvision's name for them, a file's name, or `untrained`.
    trained: bool  #: False for the seeded network that knows no concepts.
    fingerprint: str  #: Hex digest over architecture, weights and preprocessing version.
    dim: int  #: Length of a vector.
    decode: Literal["fast", "exact"] = "exact"  #: As in the setting. Records from before there was one are exact.
    precision: str | None = None  #: `fp32`, `fp16`, `bf16` or `int8`; None in records from before it was kept.
    engine: str | None = None  #: `torch` or `openvino`, likewise.


class Collection(Record):
    """A named set of images with one model, metric and index."""

    name: CollectionName
    metric: Metric = Metric.COSINE
    index: IndexKind = IndexKind.AUTO
    model: ModelInfo | None = None  #: Bound by the first image stored.
    count: int | None = None  #: Images stored; only where one collection is asked for.


class CollectionRequest(Record):
    """Body of `POST /v1/collections`."""

    name: CollectionName
    metric: Metric = Metric.COSINE
    index: IndexKind = IndexKind.AUTO


def score(distance: float, metric: Metric) -> float:
    """Turn Milvus' distance into a number that grows with likeness: L2 becomes 1 / (1 + d), the others stay."""
    return 1.0 / (1.0 + distance) if metric is Metric.L2 else distance
