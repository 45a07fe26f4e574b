"""The lister: every kind of source as one stream of what is in it."""

from collections.abc import Iterator
from typing import Final, assert_never

from lookalike.errors import (
    FileMissing,
    ImageError,
    InvalidRequest,
    NotRegularFile,
    PermissionDenied,
    SourceUnavailable,
)
from lookalike.listing.addresses import Addresses
from lookalike.listing.archive import count_archive, list_archive
from lookalike.listing.counting import count_folder
from lookalike.listing.failures import list_failures
from lookalike.listing.folder import FolderOptions, walk_folder
from lookalike.listing.listed import Listed
from lookalike.listing.manifest import count_rows, list_manifest
from lookalike.listing.material import opened_material
from lookalike.listing.members import Limits
from lookalike.listing.objects import list_objects
from lookalike.listing.stores import Keep, Ledger, RemoteFiles, UploadFiles
from lookalike.listing.uploads import list_uploads
from lookalike.listing.urls import list_urls
from lookalike.records import (
    ArchiveSource,
    CollectionSource,
    FailuresSource,
    FolderSource,
    IngestRequest,
    ManifestSource,
    ObjectsSource,
    UploadSource,
    URLsSource,
)
from lookalike.roots import FILE_SCHEME, Roots, file_uri
from lookalike.uploads import upload_uri

#: What is read of an archive where nobody says otherwise: the settings' own defaults.
DEFAULT_LIMITS: Final = Limits(members=5_000_000, unpacked_bytes=1 << 40, ratio=200.0, file_bytes=128 << 20)


class Lister:
    """Lists sources. Knows nothing of collections: what of a listing is new is for the planner to find out."""

    def __init__(
        self,
        roots: Roots,
        uploads: UploadFiles,
        remote: RemoteFiles,
        jobs: Ledger,
        *,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._roots = roots
        self._uploads = uploads
        self._remote = remote
        self._jobs = jobs
        self._limits = limits

    def list(self, request: IngestRequest, *, after: str | None, keep: Keep) -> Iterator[Listed]:
        """List what a request's source holds behind the cursor `after`.

        `keep` is called about once a second or more often, and may raise to give up. What is wrong with one file is in
        its `error`. A source that cannot be listed at all raises, at once or at the first step: `InvalidPath`,
        `FolderNotFound`, `PermissionDenied`, `FileMissing` for an archive or manifest, `ManifestInvalid`,
        `JobNotFound` and `JobExpired`, and what fetching raises. So does a full disk, with `InsufficientStorage`, and
        a place that does not answer, with `SourceUnavailable`; the listing goes on behind its last cursor later.
        """
        source = request.source
        labels = request.label_from_folder
        found: Iterator[Listed]
        match source:
            case FolderSource():
                found = self._folder(source, labels, after, keep)
            case UploadSource():
                found = list_uploads(source, self._uploads, folder_labels=labels, after=after, keep=keep)
            case ArchiveSource():
                found = self._archive(source, labels, after, keep)
            case ManifestSource():
                found = self._manifest(source, after, keep)
            case URLsSource():
                found = list_urls(source, self._remote, after=after, keep=keep)
            case ObjectsSource():
                found = list_objects(source, self._remote, folder_labels=labels, after=after, keep=keep)
            case FailuresSource():
                found = list_failures(source.job_id, self._jobs, self._remote, after=after, keep=keep)
            case CollectionSource():
                raise InvalidRequest("A collection is listed by the planner, from the vector store.")
            case _:
                assert_never(source)
        return found

    def count(self, request: IngestRequest, *, keep: Keep) -> int | None:
        """Count about how many files a request's source holds, fast; None where only listing it tells.

        `keep` may raise to give up. Raises as `list` does.
        """
        match request.source:
            case FolderSource() as source:
                folder = self._roots.resolve_folder(source.path)
                return count_folder(folder, self._folder_options(source, labels=False), keep=keep)
            case (ArchiveSource() | ManifestSource()) as source if self._is_here(source):
                with opened_material(source, self._roots, self._uploads, self._remote, keep) as material:
                    if isinstance(source, ManifestSource):
                        return count_rows(material, source, keep=keep)
                    return count_archive(material.file, self._limits, keep=keep)
            case _:
                return None

    def _is_here(self, source: ArchiveSource | ManifestSource) -> bool:
        """Tell whether a source is a file on this machine, so that looking at it first costs little."""
        if source.upload is not None:
            return not self._remote.is_remote(upload_uri(source.upload.sha256))
        return source.path is not None

    def exists(self, uri: str) -> bool:
        """Tell whether the image with this canonical URI is still at its place, whatever a source's globs say.

        What cannot be told counts as there. Raises `SourceUnavailable` where the place itself does not answer.
        """
        try:
            if not uri.startswith(FILE_SCHEME):
                return self._remote.exists(uri)
            with self._roots.open(uri):
                return True
        except (FileMissing, NotRegularFile):
            return False
        except PermissionDenied:
            return True
        except ImageError as error:
            raise SourceUnavailable from error

    def span(self, source: FolderSource | ObjectsSource) -> tuple[str, str]:
        """Return the range of URIs, from the first up to but not with the second, that lie under a source.

        Raises `InvalidPath` and `FolderNotFound`.
        """
        if isinstance(source, ObjectsSource):
            return _span(self._remote.check_prefix(source.prefix))
        return _span(file_uri(self._roots.resolve_folder(source.path)).rstrip("/") + "/")

    def _archive(self, source: ArchiveSource, labels: bool, after: str | None, keep: Keep) -> Iterator[Listed]:
        with opened_material(source, self._roots, self._uploads, self._remote, keep) as material:
            yield from list_archive(material, self._uploads, self._limits, folder_labels=labels, after=after, keep=keep)

    def _manifest(self, source: ManifestSource, after: str | None, keep: Keep) -> Iterator[Listed]:
        with opened_material(source, self._roots, self._uploads, self._remote, keep) as material:
            addresses = Addresses(self._roots, self._remote, material.folder)
            yield from list_manifest(material, source, addresses, after=after, keep=keep)

    def _folder(self, source: FolderSource, labels: bool, after: str | None, keep: Keep) -> Iterator[Listed]:
        options = self._folder_options(source, labels=labels)
        return walk_folder(self._roots.resolve_folder(source.path), options, after=after, keep=keep)

    def _folder_options(self, source: FolderSource, *, labels: bool) -> FolderOptions:
        return FolderOptions(
            recursive=source.recursive,
            include=source.include,
            exclude=source.exclude,
            hidden=source.hidden,
            roots=self._roots if source.symlinks else None,
            label=labels,
            stat=True,
        )


def _span(prefix: str) -> tuple[str, str]:
    """Return the range of the strings that begin with a prefix."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)
