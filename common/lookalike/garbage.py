"""Garbage: uploads that nothing needs any more, unfinished ones, old queries, copies of remote files, and artifacts.

An uploaded image is needed while a row of any collection or a job refers to it, and in any case for `upload_ttl_s`
after it was last sent or asked for by its hash. So whoever is about to name a file in a job asks for it first, and the
clean-up cannot take it from under them: the file's age is looked at once more, alone, at its removal. What cannot be
asked - the vector store, the job store - is never taken for a No: the error is raised.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from lookalike.artifacts import Artifacts
from lookalike.errors import JobExpired, JobNotFound
from lookalike.records import Collection, Garbage, JobRecord
from lookalike.remote.cache import prune_fetched
from lookalike.roots import image_id
from lookalike.settings import Settings
from lookalike.uploads import Area, Kept, UploadStore, upload_uri
from lookalike.uploads.partials import Partials
from lookalike.vectorstore import RowState

_SLAB: Final = 1000  #: Files looked up at a time.
_TRIES: Final = 5  #: For a look at all collections during which none came or went.
#: A job's record is there before its files are; what was written a short while ago is let be all the same.
_FRESH_S: Final = 3600.0
_SLACK_S: Final = 3600.0  #: A query is older than the end of its job, from which the job's time to live counts.


class Jobs(Protocol):
    """What is asked of the job store."""

    def uploads_in_use(self) -> frozenset[str]:
        """Return the SHA-256 of every upload that a job refers to."""

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raises `JobNotFound` or `JobExpired`."""


class Vectors(Protocol):
    """What is asked of the vector store."""

    def collections(self) -> list[Collection]:
        """Return all collections."""

    def states(self, name: str, ids: Sequence[str], *, settled: bool) -> Mapping[str, RowState]:
        """Return those of these images that are stored, by id; none where the collection is missing."""


@dataclass
class _Tally:
    files: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        self.files += 1
        self.size += size


def collect(
    settings: Settings, jobs: Jobs, vectors: Vectors, uploads: UploadStore, *, dry_run: bool, now: float | None = None
) -> Garbage:
    """Remove what nothing needs, or only say what would go; takes little memory for any number of files.

    Safe beside uploads, jobs and other clean-ups. Raises `QueueUnavailable`, `VectorStoreUnavailable` and the like
    before anything is removed that would have to be asked about.
    """
    now = time.time() if now is None else now
    older_than = now - settings.upload_ttl_s
    # Jobs first, then rows: what a job that ends in between has stored is found there. And both before any removal.
    in_use = jobs.uploads_in_use()
    vectors.collections()
    kept = _Tally()
    for slab in _slabs(_old(uploads, "images", older_than)):
        unused = _unused(vectors, slab, in_use)
        _remove(uploads, "images", unused, older_than=older_than, tally=kept, dry_run=dry_run)
        if not dry_run:
            _put_off(uploads, set(slab) - set(unused))
    _remove(
        uploads,
        "senders",
        _old(uploads, "senders", older_than),
        older_than=older_than,
        tally=_Tally(),
        dry_run=dry_run,
    )
    queries_older_than = now - settings.result_ttl_s - _SLACK_S
    queries = (file for file in _old(uploads, "queries", queries_older_than) if file.sha256 not in in_use)
    _remove(uploads, "queries", queries, older_than=queries_older_than, tally=kept, dry_run=dry_run)
    partials = Partials(uploads, max_bytes=settings.max_archive_bytes)
    parts, part_bytes = partials.expire(older_than=older_than, dry_run=dry_run)
    fetched = prune_fetched(settings, dry_run=dry_run)
    left_behind = _remove_artifacts(Artifacts.from_settings(settings), jobs, now=now, dry_run=dry_run)
    if settings.upload_quota_bytes and not dry_run:
        uploads.recount()
    return Garbage(
        dry_run=dry_run,
        uploads=kept.files,
        parts=parts,
        fetched=fetched.files,
        artifacts=left_behind.files,
        freed_bytes=kept.size + part_bytes + fetched.freed_bytes + left_behind.size,
    )


def _old(uploads: UploadStore, area: Area, older_than: float) -> Iterator[Kept]:
    return (file for file in uploads.walk(area) if file.renewed_at < older_than)


def _slabs(files: Iterator[Kept]) -> Iterator[list[Kept]]:
    while slab := list(islice(files, _SLAB)):
        yield slab


def _unused(vectors: Vectors, slab: Sequence[Kept], in_use: frozenset[str]) -> list[Kept]:
    """Return the files that neither a job nor a row of any collection refers to."""
    free = {image_id(upload_uri(file.sha256)): file for file in slab if file.sha256 not in in_use}
    for _ in range(_TRIES):
        names = _names(vectors)
        wanted = dict(free)
        for name in names:
            for found in vectors.states(name, list(wanted), settled=True) if wanted else ():
                del wanted[found]
        # A collection that was renamed meanwhile may have been missed under both of its names.
        if names == _names(vectors):
            return list(wanted.values())
    return []


def _names(vectors: Vectors) -> list[str]:
    return sorted(collection.name for collection in vectors.collections())


def _remove(
    uploads: UploadStore, area: Area, files: Iterable[Kept], *, older_than: float, tally: _Tally, dry_run: bool
) -> None:
    for file in files:
        size = file.size if dry_run else uploads.remove(file.sha256, area=area, older_than=older_than)
        if size is not None:
            tally.add(size)


def _remove_artifacts(artifacts: Artifacts, jobs: Jobs, *, now: float, dry_run: bool) -> _Tally:
    """Remove what jobs left behind whose records have expired, or are not there at all."""
    tally = _Tally()
    for job_id in artifacts.jobs():
        if artifacts.written_at(job_id) > now - _FRESH_S:
            continue
        try:
            jobs.get(job_id)
        except (JobNotFound, JobExpired):
            size = sum(file.size for file in artifacts.of(job_id)) if dry_run else artifacts.remove(job_id)
            tally.add(size)
    return tally


def _put_off(uploads: UploadStore, files: Iterable[Kept]) -> None:
    """Look at files that are needed only after another `upload_ttl_s`, instead of at a million every hour."""
    if uploads.is_local:
        for file in files:
            uploads.has(file.sha256)
