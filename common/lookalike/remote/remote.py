"""The door to everything that is not on this machine: fetches, lists, and says what may be fetched at all."""

import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lookalike.errors import (
    FileMissing,
    InvalidPath,
    InvalidURL,
    PermissionDenied,
    SourceUnavailable,
    URLBlocked,
    URLIngestDisabled,
    URLTimeout,
)
from lookalike.fetched import fetched_uri
from lookalike.remote.addresses import Resolver, system_resolver
from lookalike.remote.cache import Cache, Pruned
from lookalike.remote.downloads import Downloads
from lookalike.remote.fetching import IMPATIENT_S, Fetched, Fetcher
from lookalike.remote.http import HTTPFetcher
from lookalike.remote.objects import ObjectInfo, ObjectStores, load_filesystem
from lookalike.remote.politeness import OwnTimetable, SharedTimetable, Timetable
from lookalike.remote.urls import HTTP_PORTS, OBJECT_SCHEMES, allowed_ports, check_below, object_prefix, web_address
from lookalike.roots import OpenedFile
from lookalike.settings import Settings
from lookalike.uploads.names import parse_uri, relative_path

_WEB: Final = tuple(f"{scheme}://" for scheme in HTTP_PORTS)
_OBJECTS: Final = tuple(f"{scheme}://" for scheme in OBJECT_SCHEMES)


class Remote:
    """Remote files of all kinds. One for each process; safe to use from many threads; connects when first needed.

    What fails for one file is an `ImageError`. `SourceUnavailable` says that a whole object store is out of reach,
    `InsufficientStorage` that this machine's disk is full, `MissingExtra` that a driver is not installed: none of them
    is the file's fault.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timetable: Timetable | None = None,
        resolve: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
        load: Callable[[str], Any] = load_filesystem,
    ) -> None:
        self._settings = settings
        self._ports = allowed_ports(settings, private=settings.fetch_private)
        self._object_roots = tuple(object_prefix(root) for root in settings.object_roots)
        self._uploads = object_prefix(settings.uploads_url) if settings.uploads_url else None
        self._closing = threading.Event()
        self._timetable = timetable or OwnTimetable(settings.fetch_host_interval_s)
        self._stores = ObjectStores(load)
        self.cache = Cache.from_settings(settings)
        http = HTTPFetcher(
            ports=self._ports,
            private=settings.fetch_private,
            redirects=settings.fetch_redirects,
            timetable=self._timetable,
            wait=self._wait,
            resolve=resolve,
            tls=tls,
        )
        self._fetcher = Fetcher(
            self.cache,
            http,
            timeout_s=settings.fetch_timeout_s,
            retries=settings.fetch_retries,
            max_file_bytes=settings.max_file_bytes,
            wait=self._wait,
        )
        self._downloads = Downloads(
            self.cache,
            http,
            self._stores,
            timeout_s=settings.fetch_timeout_s,
            retries=settings.fetch_retries,
            max_bytes=settings.max_archive_bytes,
            wait=self._wait,
        )
        self._threads = ThreadPoolExecutor(settings.fetch_threads, thread_name_prefix="fetch")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the remote that the settings name; its politeness is shared by all that use the same Redis."""
        timetable = SharedTimetable(settings.redis_url.get_secret_value(), settings.fetch_host_interval_s)
        return cls(settings, timetable=timetable)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what waits; what runs ends within its time limit, or at its next pause."""
        self._closing.set()
        self._threads.shutdown(cancel_futures=True)
        self._stores.close()
        self._timetable.close()

    # --- What may be fetched: looks nothing up, so that a request can wait for it ---

    def is_remote(self, uri: str) -> bool:
        """Tell whether an image has to be fetched before it can be decoded."""
        return uri.startswith((*_WEB, *_OBJECTS)) or (self._uploads is not None and parse_uri(uri) is not None)

    def check_url(self, url: str) -> str:
        """Return the address of a web page or object in canonical spelling.

        Raises `URLIngestDisabled` and `InvalidURL`; `InvalidPath` for an object outside the object roots.
        """
        if url.lower().startswith(_OBJECTS):
            return self.check_object(url)
        if not self._settings.url_ingest:
            raise URLIngestDisabled
        return str(web_address(url, ports=self._ports))

    def check_prefix(self, prefix: str) -> str:
        """Return an object prefix in canonical spelling, ending in `/`; raises `InvalidPath`."""
        return check_below(object_prefix(prefix), self._object_roots)

    def check_object(self, uri: str) -> str:
        """Return an object's address in canonical spelling; raises `InvalidPath`."""
        return check_below(uri, self._object_roots)

    # --- Images ---

    def fetch(self, uri: str, *, etag: str = "", mtime_ns: int = 0, patient: bool = True) -> Future[Fetched]:
        """Copy an image into the cache, unless it is still the version that `etag`, or else `mtime_ns`, names.

        Who is not patient, because a person waits, gets one try of ten seconds at most.
        """
        return self._threads.submit(self._fetch, uri, etag=etag, mtime_ns=mtime_ns, patient=patient)

    def ensure(self, uri: str) -> str:
        """Return the `fetched:` URI of an image's copy, which is made where there is none; raises as a fetch does.

        For when a person waits: there is one try, of ten seconds at most.
        """
        if not self.cache.has(uri):
            fetch = self._threads.submit(self._fetch, uri, patient=False)
            try:
                # Its place in the queue and the name servers take time that is not the fetch's own.
                fetch.result(timeout=IMPATIENT_S)
            except TimeoutError as error:
                fetch.cancel()
                raise URLTimeout from error
        return fetched_uri(uri)

    def local(self, uri: str) -> OpenedFile:
        """Open an image's copy, which is made as `ensure` does where there is none. The caller closes it."""
        self.ensure(uri)
        return self.cache.open(uri)

    # --- Large files ---

    def download(self, url: str, *, keep: Callable[[], None]) -> Path:
        """Bring a large file here, whole and as it is now, going on with what is here of it; returns its place.

        `keep` is called all along, and may raise to give up: what has come so far stays. The file is disposable an hour
        after it was last asked for. Raises as a fetch does, and `ArchiveTooLarge`.
        """
        place = self._place(url)
        return self._downloads.get(place, is_object=place.startswith(_OBJECTS), keep=keep)

    # --- Object stores ---

    def objects(self, prefix: str, *, after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield what lies under a prefix in the order of its keys, behind the URI `after`; memory is a page's.

        Raises `FolderNotFound` for a missing bucket, `PermissionDenied` and `SourceUnavailable`.
        """
        return self._stores.walk(self.check_prefix(prefix), after=after)

    def exists(self, uri: str) -> bool:
        """Tell whether an object is still there; raises `PermissionDenied` and `SourceUnavailable`."""
        try:
            self._stores.info(self._place(uri))
        except FileMissing:
            return False
        return True

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Bring the cache within its bound."""
        return self.cache.prune(dry_run=dry_run)

    def _fetch(self, uri: str, *, etag: str = "", mtime_ns: int = 0, patient: bool = True) -> Fetched:
        place = self._place(uri)
        if place.startswith(_OBJECTS):
            return self._fetcher.fetch_object(uri, place, self._stores, etag=etag)
        return self._fetcher.fetch_url(place, etag=etag, mtime_ns=mtime_ns, patient=patient)

    def _place(self, uri: str) -> str:
        """Return the address that a URI's bytes are fetched from, where that is allowed now, whatever it was before."""
        if uri.startswith(_WEB):
            if not self._settings.url_ingest:
                raise URLBlocked(
                    "This service does not fetch addresses any more. Set LOOKALIKE_URL_INGEST=true for it."
                )
            try:
                web_address(uri, ports=self._ports)
            except InvalidURL as error:
                raise URLBlocked(error.message) from error
            return uri
        upload = parse_uri(uri)
        if upload is not None and self._uploads is not None:
            area, sha256 = upload
            return f"{self._uploads}{area}/{relative_path(sha256)}"
        try:
            return self.check_object(uri)
        except InvalidPath as error:
            raise PermissionDenied(error.message) from error

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise SourceUnavailable("This process is ending. The work goes on in another.")
