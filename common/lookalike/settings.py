"""Every setting, its default and its reason; the only module that reads the environment.

A setting `chunk_images` is read from `LOOKALIKE_CHUNK_IMAGES`. Settings are frozen: a process reads them once, in its
composition root, and hands them on.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lookalike.records import CollectionName, IndexKind, Metric

UNTRAINED = "untrained"  #: The value of `weights` that asks for a seeded network without training.


class EngineKind(StrEnum):
    """What runs the network."""

    AUTO = "auto"  #: torch on CUDA where there is a GPU, else OpenVINO where it is installed, else torch.
    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """The number format the network computes in. What it returns is always float32."""

    AUTO = "auto"  #: fp16 on CUDA, bf16 where the processor computes in it natively, else fp32.
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"  #: OpenVINO only. By choice, never by `auto`: its vectors are further from the reference's.


class Decoding(StrEnum):
    """How exactly pixels are what the tutorial's script makes of a file."""

    FAST = "fast"  #: No more is decoded and resized than the network's input needs: vectors of cosine 0.999 and more.
    EXACT = "exact"  #: Pixel for pixel.


def _split_paths(value: object) -> object:
    if isinstance(value, str):
        return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
    return value


def _split_words(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class Settings(BaseSettings):
    """What the service's processes run with. Printing it masks the secrets."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", frozen=True, extra="ignore", env_ignore_empty=True)

    # --- Servers ---
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")  #: The queue and the job store; may hold a password.
    milvus_uri: str = "http://127.0.0.1:19530"  #: A Milvus server, or a `milvus-lite server`.
    milvus_token: SecretStr | None = None  #: `user:password` or an API key of Milvus.
    milvus_timeout_s: float = Field(30.0, gt=0)  #: For one write; a read gets a third of it.
    consistency: Literal["Strong", "Bounded", "Session", "Eventually"] = "Bounded"  #: Of searches, on a Milvus server.

    # --- Files ---
    data_dir: Path = Path("~/.local/share/lookalike")  #: Uploads, compiled models, and everything `lookalike up` keeps.
    roots: Annotated[tuple[Path, ...], NoDecode] = ()  #: Folders the service may read, separated by `:`.
    min_free_bytes: int = Field(1 << 30, ge=0)  #: Uploads are refused when the data folder's disk has less than this.
    #: Where uploads are kept instead of in the data folder, as `s3://bucket/prefix`; for workers without a shared disk.
    uploads_url: str | None = None
    upload_quota_bytes: int = Field(0, ge=0)  #: All uploads together; 0 sets no quota.
    upload_ttl_s: float = Field(86_400.0, gt=0)  #: How long an unfinished upload, or one that nothing uses, is kept.
    object_roots: Annotated[tuple[str, ...], NoDecode] = ()  #: Prefixes of object stores the service may read, by `,`.

    # --- Fetching ---
    url_ingest: bool = False  #: Whether jobs may name addresses on the web.
    fetch_timeout_s: float = Field(30.0, gt=0)  #: One image, redirects included.
    fetch_retries: int = Field(3, ge=0)  #: More tries after a failure that may pass.
    fetch_redirects: int = Field(3, ge=0)  #: Followed, each checked like the first address.
    fetch_threads: int = Field(8, ge=1)  #: Addresses a worker fetches at a time.
    fetch_host_interval_s: float = Field(0.1, ge=0)  #: Between two requests to one host, over all workers.
    fetch_ports: Annotated[tuple[int, ...], NoDecode] = (80, 443)
    fetch_private: bool = False  #: Whether private and loopback addresses may be fetched.
    fetch_cache_bytes: int = Field(5 << 30, ge=0)  #: Copies of remote files kept for thumbnails; the oldest go first.

    # --- Archives and manifests ---
    max_urls: int = Field(10_000, ge=1)  #: Addresses in one request; longer lists come as a manifest.
    max_archive_members: int = Field(5_000_000, ge=1)
    max_archive_bytes: int = Field(1 << 40, ge=1)  #: Of all members together, unpacked.
    max_archive_ratio: float = Field(200.0, ge=1)  #: Unpacked over packed bytes, beyond which an archive is a bomb.

    # --- Webhooks ---
    webhook_secret: SecretStr | None = None  #: Signs deliveries; without one, requests that name a webhook are refused.
    webhook_private: bool = False  #: Whether webhooks may go to private and loopback addresses.
    webhook_attempts: int = Field(8, ge=1)  #: Then a delivery is given up; the pauses between them double.

    # --- Front end ---
    host: str = "127.0.0.1"  #: The address gunicorn binds.
    port: int = Field(8000, ge=1, le=65535)  #: The port gunicorn binds.
    web_processes: int = Field(2, ge=1)  #: gunicorn workers; each holds `web_threads` requests at a time.
    web_threads: int = Field(32, ge=2)  #: Three quarters of them may hold a long-poll, so the rest always answer.
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()  #: When set, every `/v1` request needs one of these.
    keys_file: Path | None = None  #: More keys, each with a name, and with rights, collections and roots of its own.
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )  #: Host headers that are answered, separated by commas; `*` for any. Keeps web pages from rebinding to us.
    max_wait_s: float = Field(60.0, ge=0)  #: The longest long-poll; longer ones are shortened to it.
    max_upload_bytes: int = Field(64 << 20, ge=1 << 16)  #: One request's body.
    max_upload_images: int = Field(200, ge=1)  #: Images in one multipart ingest.
    max_queries: int = Field(64, ge=1)  #: Queries in one search.
    max_limit: int = Field(1000, ge=1, le=16384)  #: Hits per query.
    rate_limit: int = Field(
        0, ge=0
    )  #: Submits a minute from one API key, or address where there are none; 0: no limit.
    event_stream_s: float = Field(300.0, gt=0)  #: The life of one stream of events; its client then connects again.
    max_waiting_jobs: int = Field(10_000, ge=1)  #: Jobs of one lane not yet finished, before submits answer 503.
    max_waiting_bytes: int = Field(256 << 20, ge=4 << 20)  #: The same for their requests, which Redis holds as JSON.

    # --- Images ---
    max_file_bytes: int = Field(128 << 20, ge=1)  #: One image file.
    max_pixels: int = Field(178_956_970, ge=1)  #: Width times height; Pillow's own hard limit.
    min_side_px: int = Field(2, ge=1)  #: Shorter images carry nothing to compare.
    decode: Decoding = Decoding.FAST
    decode_timeout_s: float = Field(20.0, gt=0)  #: One image; then its decoder is killed.
    decode_memory_bytes: int = Field(2 << 30, ge=1 << 28)  #: Address space of one decoder process, where the OS has it.
    decode_processes: int = Field(0, ge=0)  #: Decoder processes of a worker; 0 takes one per core, 8 at most.
    thumbnail_px: int = Field(320, ge=16, le=2048)  #: The longer side of a thumbnail.

    # --- Model ---
    model: str = "resnet50"  #: Any torchvision classification network by name.
    weights: str = "IMAGENET1K_V1"  #: torchvision's name, a path to a .pth or .safetensors file, or `untrained`.
    weights_timeout_s: float = Field(120.0, gt=0)  #: For downloading torchvision's weights.
    device: str = "auto"  #: `auto`, `cpu`, `cuda` or `cuda:N`.
    engine: EngineKind = EngineKind.AUTO
    precision: Precision = Precision.AUTO
    batch_images: int = Field(0, ge=0)  #: Images per forward pass of an ingest; 0 lets the engine choose.

    # --- Collections ---
    collection: CollectionName = "default"  #: Where requests go that name none.
    metric: Metric = Metric.COSINE  #: Of a collection that an ingest creates.
    index: IndexKind = IndexKind.AUTO  #: Of a collection that an ingest creates.

    # --- Jobs ---
    chunk_images: int = Field(128, ge=1, le=1000)  #: Files per chunk: one upsert, one accounting, one redo.
    lookahead_chunks: int = Field(32, ge=1)  #: Chunks of one job that are planned and not done; bounds Redis' memory.
    search_batch: int = Field(32, ge=1)  #: Queries a search worker serves with one forward pass.
    lease_s: float = Field(120.0, gt=0)  #: A worker silent for longer than this has lost its work.
    search_lease_s: float = Field(30.0, gt=0)  #: The same for searches, which are short.
    sweep_s: float = Field(15.0, gt=0)  #: How often lapsed leases are looked for.
    max_attempts: int = Field(3, ge=1)  #: Times a chunk or search is tried before it is halved or set aside.
    task_limit_s: float = Field(240.0, gt=0)  #: A worker without progress for longer than this ends itself.
    heartbeat_s: float = Field(5.0, gt=0)  #: How often a worker's loop shows that it turns.
    heartbeat_ttl_s: float = Field(30.0, gt=0)  #: A worker is live while its last sign is younger than this.
    result_ttl_s: float = Field(86_400.0, gt=0)  #: A finished job's record and result stay this long.
    tombstone_ttl_s: float = Field(604_800.0, gt=0)  #: Then its id answers `job_expired` this long.
    max_failures: int = Field(100_000, ge=1)  #: Lines kept in one job's failures ledger.
    max_failures_bytes: int = Field(64 << 20, ge=1)  #: Of those lines together.
    crash_at: str | None = None  #: Set by tests only: the point in its work at which a worker kills itself.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    _paths = field_validator("roots", mode="before")(_split_paths)
    _words = field_validator("api_keys", "allowed_hosts", "object_roots", "fetch_ports", mode="before")(_split_words)

    @field_validator("data_dir", "keys_file")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def uploads_dir(self) -> Path:
        """Where uploaded bytes are kept; web and workers need to share it."""
        return self.data_dir / "uploads"

    @property
    def artifacts_dir(self) -> Path:
        """Where jobs leave files; web and workers need to share it."""
        return self.data_dir / "artifacts"

    @property
    def models_dir(self) -> Path:
        """Where downloaded weights and compiled networks are kept."""
        return self.data_dir / "models"


class ClientSettings(BaseSettings):
    """What the command line and the Python client run with."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", frozen=True, extra="ignore", env_ignore_empty=True)

    url: str = "http://127.0.0.1:8000"  #: The service.
    api_key: SecretStr | None = None  #: Sent as a bearer token.
    timeout_s: float = Field(30.0, gt=0)  #: One request; a wait for a job is made of many.
    collection: CollectionName = "default"
