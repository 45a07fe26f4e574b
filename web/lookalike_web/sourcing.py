"""The checks of an ingest's source and options at submit: what can never be read is refused before there is a job.

What a source holds is the workers' to find out. Nothing here asks a host on the network, but for an object store that
uploads are kept in.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from lookalike import errors
from lookalike.records import (
    AnySource,
    ArchiveSource,
    FailuresSource,
    FolderSource,
    IngestRequest,
    JobKind,
    ManifestSource,
    ObjectsSource,
    UploadedFile,
    UploadSource,
    URLsSource,
    Webhook,
)
from lookalike.remote import check_webhook_url
from lookalike.uploads import UploadStore, query_uri, upload_uri
from lookalike.vectorstore import check_metadata
from lookalike_web.auth import caller
from lookalike_web.services import Services

_LOOKS: Final = 16  #: At a time, into an object store, where each is a request; in a folder it is next to nothing.


def check_ingest(services: Services, wanted: IngestRequest) -> None:
    """Refuse an ingest whose source or metadata can never work."""
    check_metadata(wanted.metadata)
    check_source(services, wanted.source)


def check_webhook(services: Services, webhook: Webhook | None) -> None:
    """Refuse a webhook that cannot be signed, or that leads nowhere; raises `InvalidRequest` and `InvalidURL`."""
    if webhook is None:
        return
    if services.settings.webhook_secret is None:
        raise errors.InvalidRequest(
            "This service sends no webhooks, because it has no key to sign them with. "
            "Set LOOKALIKE_WEBHOOK_SECRET, or leave `webhook` out."
        )
    check_webhook_url(webhook.url, services.settings)


def own_upload_place(services: Services, sha256: str) -> str:
    """Return the URI of a picture that the caller has uploaded, as `upload_place` does."""
    if not services.uploads.was_sent_by(caller().owner_seen, sha256):
        raise _not_here(sha256)
    return upload_place(services, sha256)


def upload_place(services: Services, sha256: str) -> str:
    """Return the URI of an uploaded picture, one that was searched with included; raises `UploadNotFound`."""
    if services.uploads.has(sha256, area="queries"):
        return query_uri(sha256)
    if services.uploads.has(sha256):
        return upload_uri(sha256)
    raise _not_here(sha256)


def check_source(services: Services, source: AnySource) -> None:
    """Refuse a source that can never be read, with the error that says why."""
    match source:
        case FolderSource():
            services.roots.resolve_folder(source.path)
        case UploadSource():
            _check_number(services, len(source.files), "uploads")
            _check_uploads(services, source.files)
        case URLsSource():
            _check_number(services, len(source.urls), "addresses")
            for url in source.urls:
                services.remote.check_url(url)
        case ObjectsSource():
            services.remote.check_prefix(source.prefix)
        case ArchiveSource() | ManifestSource():
            _check_place(services, source)
        case FailuresSource():
            check_failures(services, source)


def check_failures(services: Services, source: FailuresSource) -> None:
    """Refuse the failures of a job that has none, or not yet all of them.

    Raises `JobNotFound`, `JobExpired`, `JobNotFinal` and `InvalidRequest`.
    """
    record = services.jobs.get(source.job_id)
    if record.kind is not JobKind.INGEST:
        raise errors.InvalidRequest("Only ingests have a ledger of failures, and this job is a search.")
    if not record.state.final:
        raise errors.JobNotFinal
    if not record.progress.failed:
        raise errors.InvalidRequest("No file failed in this job, so there is nothing to ingest once more.")


def _check_place(services: Services, source: ArchiveSource | ManifestSource) -> None:
    if source.path is not None:
        services.roots.resolve_file(source.path)
    if source.url is not None:
        services.remote.check_url(source.url)
    if source.upload is not None:
        _check_uploads(services, [source.upload])


def _check_uploads(services: Services, files: Iterable[UploadedFile]) -> None:
    missing = _first_missing(services.uploads, list(dict.fromkeys(file.sha256 for file in files)))
    if missing is not None:
        raise _not_here(missing)


def _not_here(sha256: str) -> errors.UploadNotFound:
    return errors.UploadNotFound(
        f"There is no upload of yours with the SHA-256 {sha256}, or not any more. Upload the file again."
    )


def _first_missing(uploads: UploadStore, named: Sequence[str]) -> str | None:
    """Return the first of these contents that is not here, or not sent by the caller; those before it are renewed."""
    owner = caller().owner_seen

    def is_here(sha256: str) -> bool:
        return uploads.was_sent_by(owner, sha256) and uploads.has(sha256)

    if uploads.is_local or len(named) == 1:
        return next((sha256 for sha256 in named if not is_here(sha256)), None)
    with ThreadPoolExecutor(_LOOKS) as threads:
        looks = [threads.submit(is_here, sha256) for sha256 in named]
        try:
            return next((sha256 for sha256, look in zip(named, looks, strict=True) if not look.result()), None)
        finally:
            threads.shutdown(cancel_futures=True)


def _check_number(services: Services, found: int, what: str) -> None:
    limit = services.settings.max_urls
    if found > limit:
        raise errors.TooManyItems(
            f"The request names {found} {what}, and at most {limit} are taken (LOOKALIKE_MAX_URLS). "
            "Send longer lists as a manifest or an archive."
        )
