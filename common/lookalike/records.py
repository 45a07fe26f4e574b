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


ServerPath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
URL = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


#: Each costs a comparison for every file of a listing.
Globs = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=1024)], ...], Field(max_length=100)]


class FolderSource(Record):
    """A folder the service can read itself."""

    type: Literal["folder"] = "folder"
    path: ServerPath  #: Relative to a root, or absolute under one.
    recursive: bool = True
    #: Globs on the name, or on the relative path where they hold a `/`; none takes all images.
    include: Globs = ()
    exclude: Globs = ()  #: Globs, in the same way; they win over `include`.
    hidden: bool = False  #: Take names that begin with a dot, too.
    symlinks: bool = False  #: Follow links to files and folders, as long as they lead to something under a root.


class UploadedFile(Record):
    """One uploaded file: its content by hash, and the name its sender gave it, which is only a label."""

    sha256: SHA256
    name: str = Field("", max_length=1024)


class UploadSource(Record):
    """Images that lie in the upload store: they came with the request, or were uploaded before it."""

    type: Literal["upload"] = "upload"
    files: tuple[UploadedFile, ...] = Field(min_length=1)


class UploadRequest(Record):
    """Body of `POST /v1/uploads`."""

    size: int = Field(ge=0)  #: Bytes of the whole file.
    name: str = Field("", max_length=1024)
    sha256: SHA256 | None = None  #: Of the whole file, where its sender knows it; checked at the end.


class UploadRecord(Record):
    """A file that is being uploaded in bounded requests, or has been."""

    id: str
    size: int  #: Bytes of the whole file.
    offset: int  #: Bytes that have arrived; the next request continues here.
    name: str = ""
    sha256: SHA256 | None = None  #: Of the whole file, once all of it has arrived: what an ingest names it by.


class _Placed(Record):
    """A file that is named in exactly one of three ways."""

    path: ServerPath | None = None  #: Relative to a root, or absolute under one.
    url: URL | None = None  #: Fetched by the service.
    upload: UploadedFile | None = None  #: Uploaded before.

    @model_validator(mode="after")
    def _exactly_one_place(self) -> Self:
        if sum(value is not None for value in (self.path, self.url, self.upload)) != 1:
            raise ValueError("name exactly one of: path, url, upload")
        return self


class ArchiveSource(_Placed):
    """The images in a zip, tar or tar.gz archive. A `NAME.json` beside `NAME.jpg` is that image's metadata."""

    type: Literal["archive"] = "archive"


class ManifestSource(_Placed):
    """A table with a line per image: one column is its address, the others become its metadata.

    An address is a path under a root, a URL, an object's address, or a path relative to the manifest's folder.
    """

    type: Literal["manifest"] = "manifest"
    format: Literal["auto", "jsonl", "csv", "parquet"] = "auto"  #: `auto` goes by the name's suffix.
    uri_column: str = Field("uri", min_length=1, max_length=255)


class URLsSource(Record):
    """Images on the web, fetched by the service."""

    type: Literal["urls"] = "urls"
    urls: tuple[URL, ...] = Field(min_length=1)


class ObjectsSource(Record):
    """The objects under a prefix of an object store, as `s3://bucket/prefix/`."""

    type: Literal["objects"] = "objects"
    prefix: URL
    recursive: bool = True
    include: Globs = ()  #: Globs, as of a folder.
    exclude: Globs = ()


class FailuresSource(Record):
    """What failed in an earlier ingest: its ledger, read while it lasts."""

    type: Literal["failures"] = "failures"
    job_id: str = Field(min_length=1, max_length=64, pattern="^[0-9A-Za-z]+$")


Source = Annotated[
    FolderSource | UploadSource | ArchiveSource | ManifestSource | URLsSource | ObjectsSource | FailuresSource,
    Field(discriminator="type"),
]

#: Sources that are a place, which can be compared with what was ingested from it before; `sync` needs one.
SYNCABLE: Final = (FolderSource, ObjectsSource)


class Priority(StrEnum):
    """How large a share of the workers an ingest gets while others run. None starves."""

    LOW = "low"
    NORMAL = "normal"  #: Four times the share of `low`.
    HIGH = "high"  #: Four times the share of `normal`.


class Webhook(Record):
    """Where the job's record is sent once it is final. The delivery is signed; docs/http-api.md says how."""

    url: URL


class IngestRequest(Record):
    """Body of `POST /v1/ingests`."""

    collection: CollectionName = "default"
    source: Source
    metadata: Metadata = Field(default_factory=dict)  #: Stored with every image; a manifest's or archive's own wins.
    label_from_folder: bool = False  #: Store the name of the folder an image lies in as its metadata field `label`.
    checksum: bool = False  #: Tell changed files by their content instead of by size and time.
    sync: bool = False  #: Also remove what is gone from the source, and recognise what was moved within it.
    dry_run: bool = False  #: Store nothing: the progress says what would be done.
    priority: Priority = Priority.NORMAL
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _sync_has_a_place(self) -> Self:
        if self.sync and not isinstance(self.source, SYNCABLE):
            raise ValueError("sync compares a collection with a place: its source has to be a folder or a prefix")
        return self


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
    webhook: Webhook | None = None


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


class StageTimes(Record):
    """Seconds of work, added up over all workers and their decoders: where the time of an ingest goes."""

    read_s: float = 0.0  #: Fetching and reading files.
    decode_s: float = 0.0
    embed_s: float = 0.0
    store_s: float = 0.0  #: Looking rows up, writing and deleting them.


class Progress(Record):
    """How far a job is. For ingests, `done = stored + unchanged + failed`; a search counts its queries.

    `stored = added + changed + moved`. Of a dry run all these say what would be.
    """

    total: int | None = None  #: Null until the listing ends.
    done: int = 0
    stored: int = 0
    added: int = 0  #: Stored, and not in the collection before.
    changed: int = 0  #: Stored in the place of an older version.
    moved: int = 0  #: Stored under a new address, with the vector and metadata it had under one that is gone.
    duplicates: int = 0  #: Those of the stored that have the content of another image, whose vector they share.
    unchanged: int = 0
    failed: int = 0
    removed: int = 0  #: Gone from the source and from the collection; not part of `done`.
    images_per_s: float | None = None  #: Over the last accounted chunks; over the whole job once it is final.
    eta_s: float | None = None
    position: int | None = None  #: Of a queued job: how many jobs of its lane come before it.
    stages: StageTimes | None = None  #: Of an ingest.


class JobError(Record):
    """Why a job, a query or a request failed."""

    code: str
    message: str


class WaitingFor(StrEnum):
    """What holds a running job up."""

    VECTOR_STORE = "vector_store"  #: Milvus cannot be reached; the work is tried again until it can.
    SOURCE = "source"  #: The place the images are read from cannot be reached.
    WORKER = "worker"  #: Something on the worker's machine is missing; see its log.


class WebhookState(Record):
    """What became of a job's webhook."""

    state: Literal["waiting", "delivered", "failed"]
    attempts: int = 0
    error: str | None = None  #: Of the last attempt.


class JobRecord(Record):
    """A job, as every endpoint about jobs returns it."""

    id: str
    kind: JobKind
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested: bool = False  #: Set by cancel; the state follows when the work in hand is accounted.
    paused: bool = False  #: Set by pause, taken back by resume; work in hand is given back after its batch.
    waiting_for: WaitingFor | None = None  #: Null while work goes on.
    version: int = 0  #: Grows with every change; the id of the job's server-sent events.
    progress: Progress = Field(default_factory=Progress)
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: JobError | None = None
    failure_counts: dict[str, int] = Field(default_factory=dict)  #: Failed files by their code.
    failures_dropped: int = 0  #: Failures counted but not kept in the ledger, which had reached its cap.
    webhook: WebhookState | None = None
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
    metadata: Metadata = Field(default_factory=dict)  #: Of this file alone, from a manifest or archive; for a retry.


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
    duplicate_of: ImageID | None = None  #: The image of the same content that was stored first.
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
    duplicate_of: ImageID | None = None
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
    """Result of an ingest job; null where it had nothing to embed."""

    collection: str
    model: ModelInfo


class Garbage(Record):
    """What a clean-up removed, or would remove."""

    dry_run: bool
    uploads: int = 0  #: Uploaded files that no image and no job refers to.
    parts: int = 0  #: Uploads that were begun and never finished.
    fetched: int = 0  #: Copies of remote files, which are fetched again where they are needed.
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


def score(distance: float, metric: Metric) -> float:
    """Turn Milvus' distance into a number that grows with likeness: L2 becomes 1 / (1 + d), the others stay."""
    return 1.0 / (1.0 + distance) if metric is Metric.L2 else distance
