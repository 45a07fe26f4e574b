"""The records: what jobs, requests, results and failures look like, inside and over HTTP.

Frozen pydantic models. Field names are the contract with every client: fields are added, never renamed.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

IMAGE_ID: Final = re.compile("[0-9a-f]{32}")  #: Use with `fullmatch`.

CollectionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z](?:_?[A-Za-z0-9])*$", max_length=48, strip_whitespace=True)
]  #: Letters, digits and single underscores: two underscores set off the model in the physical name.
ImageID = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
SHA256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Metadata = dict[str, Any]  #: The user's own fields of an image; filters compare them.


class Record(BaseModel):
    """What all records share: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(StrEnum):
    """How two vectors are compared. `distance` is what Milvus returns for it."""

    COSINE = "COSINE"  #: Cosine of the angle; 1 is the same direction.
    L2 = "L2"  #: Squared Euclidean distance; 0 is the same vector.
    IP = "IP"  #: Inner product; larger is closer.


class IndexKind(StrEnum):
    """How a collection is indexed."""

    AUTO = "AUTO"  #: Chosen by row count.
    FLAT = "FLAT"  #: Exact search.
    IVF_FLAT = "IVF_FLAT"
    HNSW = "HNSW"
    TUTORIAL = "tutorial"  #: The tutorial's preset: L2, IVF_FLAT, nlist 16384, nprobe 128.


class ModelInfo(Record):
    """The network that made a collection's vectors."""

    name: str  #: torchvision's name.
    weights: str  #: torchvision's name for them, a file's name, or `untrained`.
    trained: bool  #: False for the seeded network that knows no concepts.
    fingerprint: str  #: Hex digest over architecture, weights and preprocessing version.
    dim: int  #: Length of a vector.


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


# --- Requests -------------------------------------------------------------------------------------------------------


class FolderSource(Record):
    """A folder the service can read itself."""

    type: Literal["folder"] = "folder"
    path: str = Field(min_length=1, max_length=4096)  #: Relative to a root, or absolute under one.
    recursive: bool = True
    #: Globs on the name, or on the relative path where they hold a `/`; none takes all images.
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()  #: Globs, in the same way; they win over `include`.


class UploadedFile(Record):
    """One uploaded image: its content by hash, and the name its sender gave it, which is only a label."""

    sha256: SHA256
    name: str = Field("", max_length=1024)


class UploadSource(Record):
    """Images that came with the request and lie in the upload store."""

    type: Literal["upload"] = "upload"
    files: tuple[UploadedFile, ...] = Field(min_length=1)


class IngestRequest(Record):
    """Body of `POST /v1/ingests`."""

    collection: CollectionName = "default"
    source: Annotated[FolderSource | UploadSource, Field(discriminator="type")]
    metadata: Metadata = Field(default_factory=dict)  #: Stored with every image of the job.
    sync: Literal[False] = False  #: Part of the contract; removing what is gone from the source is not offered yet.
    dry_run: Literal[False] = False  #: Part of the contract; reporting the plan alone is not offered yet.


class Query(Record):
    """One thing to search for: exactly one of its fields is set."""

    path: str | None = Field(None, min_length=1, max_length=4096)
    image_id: ImageID | None = None
    vector: tuple[float, ...] | None = Field(None, min_length=1, max_length=32_768)
    upload: UploadedFile | None = None  #: Set by the front end for a multipart part; not accepted in JSON.

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.path, self.image_id, self.vector, self.upload)) != 1:
            raise ValueError("a query names exactly one of: path, image_id, vector")
        return self


class SearchRequest(Record):
    """Body of `POST /v1/searches`; a multipart request's fields in the same names."""

    collection: CollectionName = "default"
    queries: tuple[Query, ...] = Field(min_length=1)
    limit: int = Field(3, ge=1)  #: Hits per query.
    filter: str | None = Field(None, min_length=1, max_length=4096)  #: A Milvus expression over the images' fields.
    wait: float = Field(0.0, ge=0)  #: Seconds the answer may be held back until the job is final.


# --- Jobs -----------------------------------------------------------------------------------------------------------


class JobKind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    SEARCH = "search"


class JobState(StrEnum):
    """Where a job stands. A job only ever moves down this list, and ends in one of the last three."""

    QUEUED = "queued"  #: Accepted, not yet picked up by a worker.
    RUNNING = "running"  #: A worker has begun.
    SUCCEEDED = "succeeded"  #: Done; single files may have failed, see `progress.failed`.
    FAILED = "failed"  #: Could not be done; `error` says why.
    CANCELLED = "cancelled"  #: Stopped by request; what was stored stays stored.

    @property
    def final(self) -> bool:
        """True once nothing about the job will change."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


class Progress(Record):
    """How far a job is. For ingests, `done = stored + unchanged + failed`; a search counts its queries."""

    total: int | None = None  #: Null until the listing ends.
    done: int = 0
    stored: int = 0
    unchanged: int = 0
    failed: int = 0
    images_per_s: float | None = None  #: Over the last accounted chunks; over the whole job once it is final.
    eta_s: float | None = None


class JobError(Record):
    """Why a job, a query or a request failed."""

    code: str
    message: str


class JobRecord(Record):
    """A job, as every endpoint about jobs returns it."""

    id: str
    kind: JobKind
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested: bool = False  #: Set by cancel; the state follows when the work in hand is accounted.
    progress: Progress = Field(default_factory=Progress)
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: JobError | None = None
    links: dict[str, str] = Field(default_factory=dict)


class JobPage(Record):
    """One page of jobs, newest first."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None = None  #: Pass it as `cursor` for the page after this one; null on the last page.


class Stage(StrEnum):
    """Where a file failed."""

    LIST = "list"
    READ = "read"
    DECODE = "decode"
    EMBED = "embed"
    STORE = "store"


class Failure(Record):
    """One line of a job's failures ledger."""

    uri: str
    code: str
    message: str
    stage: Stage
    attempts: int = 1
    name: str = ""  #: The last part of its path, or the name it was uploaded with.


class FailurePage(Record):
    """One page of a failures ledger, in the order the failures were found."""

    failures: tuple[Failure, ...]
    next_cursor: str | None = None
    dropped: int = 0  #: Failures counted but not kept, because the ledger had reached its cap.


# --- Results --------------------------------------------------------------------------------------------------------


class Image(Record):
    """A stored image, without its vector."""

    id: ImageID
    uri: str
    name: str = ""  #: The last part of its path, or the name it was uploaded with.
    sha256: SHA256
    size: int  #: Bytes of the file.
    width: int  #: Pixels, after EXIF orientation.
    height: int
    metadata: Metadata = Field(default_factory=dict)
    thumbnail_url: str = ""
    content_url: str = ""


class Hit(Record):
    """One image found."""

    rank: int  #: 1 is the closest.
    id: ImageID
    uri: str
    name: str = ""
    distance: float  #: What Milvus returned for the collection's metric.
    score: float  #: Grows with likeness, whatever the metric.
    sha256: str = ""  #: Of the file's bytes: equal for exact duplicates.
    width: int
    height: int
    metadata: Metadata = Field(default_factory=dict)
    thumbnail_url: str = ""


class QueryResult(Record):
    """The answer to one query: its hits, or why there are none."""

    query: dict[str, Any]
    error: JobError | None = None
    hits: tuple[Hit, ...] = ()


class SearchResult(Record):
    """Result of a search job."""

    collection: str
    metric: Metric
    model: ModelInfo | None  #: Null while the collection is empty.
    took_ms: float = 0.0  #: From the claim of the job to its result, in the worker.
    queries: tuple[QueryResult, ...]


class IngestResult(Record):
    """Result of an ingest job."""

    collection: str
    model: ModelInfo


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


def score(distance: float, metric: Metric) -> float:
    """Turn Milvus' distance into a number that grows with likeness: L2 becomes 1 / (1 + d), the others stay."""
    return 1.0 / (1.0 + distance) if metric is Metric.L2 else distance
