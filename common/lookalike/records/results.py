"""Results: stored images, hits, and what else the service tells."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from lookalike.records.backgrounds import Band, Threshold
from lookalike.records.base import SHA256, ImageID, Metadata, Record
from lookalike.records.collections import ModelInfo
from lookalike.records.jobs import JobError
from lookalike.records.metrics import Metric
from lookalike.records.searches import Variant


class Image(Record):
    """A stored image, without its vector."""

    id: ImageID
    uri: str
    name: str = ""  #: The last part of its path, or the name it was uploaded with.
    sha256: SHA256
    size: int  #: Bytes of the file.
    width: int  #: Pixels, after EXIF orientation.
    height: int
    duplicate_of: ImageID | None = None  #: The image of the same content that was stored first.
    metadata: Metadata = Field(default_factory=dict)
    thumbnail_url: str = ""
    content_url: str = ""


class ImagePage(Record):
    """One page of a collection's images, in the order of their ids."""

    images: tuple[Image, ...]
    next_cursor: str | None = None  #: Pass it as `cursor` for the page after this one; null on the last page.


class ImagePatch(Record):
    """Body of `PATCH /v1/images/{image_id}`."""

    metadata: Metadata  #: Values by key; null takes a key away, and keys that are not named stay.


class Hit(Record):
    """One image found."""

    rank: int  #: 1 is the closest.
    id: ImageID
    uri: str
    name: str = ""
    distance: float  #: What Milvus returned for the collection's metric.
    score: float  #: Grows with likeness, whatever the metric.
    percentile: float | None = None  #: Of 100 random pairs, how many are farther apart; null without a background.
    band: Band | None = None  #: The same in a word.
    group: Any = None  #: Its value of the field that was grouped by.
    variant: Variant | None = None  #: How the query was turned to be this close; null if it was not.
    #: The region that is this close, in a collection with tiles: left, top, width, height; null where it is the whole.
    box: tuple[float, float, float, float] | None = None
    sha256: str = ""  #: Of the file's bytes: equal for exact duplicates.
    width: int
    height: int
    duplicate_of: ImageID | None = None
    metadata: Metadata = Field(default_factory=dict)
    thumbnail_url: str = ""


class QueryResult(Record):
    """The answer to one query: its hits, or why there are none."""

    query: dict[str, Any]
    error: JobError | None = None
    hits: tuple[Hit, ...] = ()
    next_offset: int | None = None  #: The `offset` that goes on behind these hits; null where there are no more.
    #: True where the search gave up, after thousands of images that are no hits of their own, before it had `limit`.
    gave_up: bool = False


class BackgroundInfo(Record):
    """What `percentile` and `band` of a search were told by."""

    rows: int  #: Images in the collection when it was measured.
    pairs: int  #: Random pairs that were measured.
    measured_at: datetime
    thresholds: tuple[Threshold, ...]


class SearchResult(Record):
    """Result of a search job."""

    collection: str
    metric: Metric
    model: ModelInfo | None  #: Null while the collection is empty.
    took_ms: float = 0.0  #: From the claim of the job to its result, in the worker.
    background: BackgroundInfo | None = None  #: Null until the collection has enough images.
    queries: tuple[QueryResult, ...]


class IngestResult(Record):
    """Result of an ingest job; null where it had nothing to embed."""

    collection: str
    model: ModelInfo


class ArtifactRecord(Record):
    """A file that a job left behind."""

    name: str
    size: int  #: Bytes.
    url: str = ""


class ArtifactList(Record):
    """All files of a job, by name."""

    files: tuple[ArtifactRecord, ...]


class Garbage(Record):
    """What a clean-up removed, or would remove."""

    dry_run: bool
    uploads: int = 0  #: Uploaded files that no image and no job refers to.
    parts: int = 0  #: Uploads that were begun and never finished.
    fetched: int = 0  #: Copies of remote files, which are fetched again where they are needed.
    artifacts: int = 0  #: Jobs whose files were kept, and whose records are no more.
    freed_bytes: int = 0


class WorkerInfo(Record):
    """A live worker, as it describes itself."""

    name: str
    lane: Literal["ingest", "search"]
    host: str
    pid: int
    device: str  #: As `cpu` or `cuda:0`, with the product's name.
    engine: str
    precision: str
    engine_reason: str  #: Why `auto` chose this engine and precision.
    model: ModelInfo
    started_at: datetime
