"""What a key may ask for in a job: its collection, the places it reads from, and the jobs it refers to.

What is not there, or is in no root of the service at all, is said as to anybody else: these checks come on top.
"""

from lookalike.errors import JobNotFound, RootNotAllowed
from lookalike.records import (
    AnySource,
    ArchiveSource,
    BulkSearchRequest,
    FailuresSource,
    FolderSource,
    IngestRequest,
    JobRecord,
    ManifestSource,
    ObjectsSource,
    Request,
    SearchRequest,
    URLsSource,
)
from lookalike.remote.urls import OBJECT_SCHEMES
from lookalike_web.auth import caller
from lookalike_web.services import Services


def check_permitted(services: Services, wanted: Request) -> None:
    """Refuse a job that the caller's key may not have; raises `Forbidden`, `RootNotAllowed` and `JobNotFound`."""
    caller().require_collection(wanted.collection)
    if isinstance(wanted, SearchRequest):
        for example in wanted.examples:
            _check_file(services, example.path)
            _check_object(services, example.url)
    elif isinstance(wanted, IngestRequest | BulkSearchRequest):
        _check_source(services, wanted.source)


def own(record: JobRecord) -> JobRecord:
    """Return a job that the caller may see; raises `JobNotFound`, as for one that never was, for another's."""
    if not caller().sees(record.owner):
        raise JobNotFound
    return record


def _check_source(services: Services, source: AnySource) -> None:
    match source:
        case FolderSource():
            _check_folder(services, source)
        case ArchiveSource():
            _check_file(services, source.path)
            _check_object(services, source.url)
        case ManifestSource():
            if caller().roots is not None:
                raise RootNotAllowed(
                    "This API key is for certain roots only, and a manifest may name files anywhere. "
                    "Name a folder, a prefix or addresses instead."
                )
        case URLsSource():
            for url in source.urls:
                _check_object(services, url)
        case ObjectsSource():
            _check_object(services, services.remote.check_prefix(source.prefix))
        case FailuresSource():
            _check_ledger(own(services.jobs.get(source.job_id)))


def _check_ledger(record: JobRecord) -> None:
    if caller().roots is not None and record.owner != caller().name:
        raise RootNotAllowed(
            "This API key is for certain roots only, and the files that failed in the job of another may lie anywhere. "
            "Name a folder, a prefix or addresses instead."
        )


def _check_folder(services: Services, source: FolderSource) -> None:
    if caller().roots is None:
        return
    caller().require_folder(services.roots.resolve_folder(source.path))
    if source.symlinks:
        raise RootNotAllowed(
            "This API key is for certain roots only, and links may lead out of them. Leave `symlinks` out."
        )


def _check_file(services: Services, path: str | None) -> None:
    if path is not None and caller().roots is not None:
        caller().require_file(services.roots.resolve_file(path))


def _check_object(services: Services, url: str | None) -> None:
    """Check an address, if it is that of an object; where the web may be read from is the service's own setting."""
    if url is not None and url.lower().startswith(tuple(f"{scheme}://" for scheme in OBJECT_SCHEMES)):
        caller().require_object(services.remote.check_object(url))
