"""Sources: the places an ingest takes images from, and uploads on their way to being one."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from lookalike.records.base import SHA256, CollectionName, Record

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


class CollectionSource(Record):
    """The images of a collection itself, to be embedded with another model: what a re-embedding reads."""

    type: Literal["collection"] = "collection"
    collection: CollectionName
    model: SHA256  #: Fingerprint of the model whose rows are read.
    switch: bool = False  #: Have the other model serve the collection once all is embedded.
    allow_missing: bool = False  #: Switch although some images could not be embedded.


Source = Annotated[
    FolderSource | UploadSource | ArchiveSource | ManifestSource | URLsSource | ObjectsSource | FailuresSource,
    Field(discriminator="type"),
]

#: As a job keeps it: what a request may name, and what the front end makes itself.
AnySource = Annotated[Source | CollectionSource, Field(discriminator="type")]

#: Sources that are a place, which can be compared with what was ingested from it before; `sync` needs one.
SYNCABLE: Final = (FolderSource, ObjectsSource)
