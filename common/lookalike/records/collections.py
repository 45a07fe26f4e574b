"""Collections: what a set of images is compared by, and the network that made its vectors."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from lookalike.records.backgrounds import Background
from lookalike.records.base import CollectionName, Record
from lookalike.records.metrics import Metric
from lookalike.records.tiles import Tiles


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


class ChosenIndex(Record):
    """The index that a collection has, in Milvus' terms, and why."""

    index_type: str
    params: dict[str, int]  #: It was built with these...
    search: dict[str, int]  #: ...and is searched with these, where a search names none.
    reason: str


class ModelState(StrEnum):
    """What one of a collection's models is there for."""

    SERVING = "serving"  #: Answers searches, and takes what is ingested.
    SHADOW = "shadow"  #: Is being filled, and takes what is ingested as well.
    RETIRED = "retired"  #: Served before; takes no images any more, and can be switched back to.


class CollectionModel(Record):
    """One of the models that a collection has vectors of."""

    model: ModelInfo
    state: ModelState
    count: int | None = None  #: Images stored with it; only where one collection is asked for.


class Collection(Record):
    """A named set of images with one model, metric and index."""

    name: CollectionName
    metric: Metric = Metric.COSINE
    index: IndexKind = IndexKind.AUTO
    model: ModelInfo | None = None  #: Bound by the first image stored; the one that serves.
    models: tuple[CollectionModel, ...] = ()  #: All, where it has vectors of several; none where of one.
    count: int | None = None  #: Images stored; only where one collection is asked for.
    background: Background | None = None  #: Once it was measured: distances of random pairs of its images.
    build: dict[str, int] = Field(default_factory=dict)  #: Of the index, where they are not its own.
    search: dict[str, int] = Field(default_factory=dict)  #: Search parameters that are not the index' own.
    index_chosen: ChosenIndex | None = None  #: Only where one collection is asked for that has a model.
    tiles: Tiles | None = None  #: How its images are cut into regions; null where they are compared as a whole only.


class CollectionRequest(Record):
    """Body of `POST /v1/collections`."""

    name: CollectionName
    metric: Metric = Metric.COSINE
    index: IndexKind = IndexKind.AUTO
    tiles: Tiles | None = None  #: For crops to find their originals. It cannot be changed later.
