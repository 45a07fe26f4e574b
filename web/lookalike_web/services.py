"""What the views work with. `wsgi.py` builds it for the service, the tests build theirs with fakes."""

from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from flask import current_app

from lookalike.artifacts import Artifacts
from lookalike.decodepool import DecodePool
from lookalike.jobstore import JobStore, Lane
from lookalike.remote import Remote
from lookalike.roots import OpenedFile, Roots
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.uploads import UploadStore
from lookalike.uploads.partials import Partials
from lookalike.vectorstore import VectorStore
from lookalike.warming import WarmUp, start_decoder
from lookalike_web.throttling import Throttle

EXTENSION = "lookalike"


class Bell(Protocol):
    """What the views need of a doorbell: it never raises, an unheard ring is repeated by the sweeper."""

    def ring(self, lane: Lane, times: int = 1) -> None:
        """Tell a lane's workers that work may be waiting."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of a front-end process, each made once and shared by its threads."""

    settings: Settings
    jobs: JobStore
    doorbell: Bell
    vectors: VectorStore
    roots: Roots
    uploads: UploadStore
    partials: Partials
    artifacts: Artifacts
    decoders: DecodePool
    remote: Remote
    throttle: Throttle | None = None  #: None sets no limit.

    def open(self, uri: str) -> OpenedFile:
        """Open an image, wherever it is; raises `ImageError` classes, and `SourceUnavailable`. The caller closes it."""
        return self.sources.open(self._here(uri))

    def thumbnail(self, uri: str) -> Future[bytes]:
        """Make a small picture of an image, wherever it is; raises as `open` does, now or with its result."""
        return self.decoders.thumbnail(self._here(uri))

    def probe(self, uri: str) -> None:
        """Look at an image's header, wherever it is; raises as `open` does, and what is wrong with it."""
        self.decoders.probe(self._here(uri)).result()

    def warm_up(self) -> None:
        """Begin to connect, and to start a decoder, in the background."""
        WarmUp(self.jobs.ping, self.vectors.collections, partial(start_decoder, self.decoders)).start()

    def close(self) -> None:
        """End what was started: decoders and fetches."""
        self.decoders.close()
        self.remote.close()

    def _here(self, uri: str) -> str:
        """Return the URI of an image on this machine: its own, or that of its copy, which is fetched if need be."""
        return self.remote.ensure(uri) if self.remote.is_remote(uri) else uri

    @property
    def sources(self) -> Sources:
        """Where an image's bytes come from, by its URI."""
        return Sources(self.roots, self.uploads)


def services() -> Services:
    """Return the services of the app that handles the current request."""
    return cast(Services, current_app.extensions[EXTENSION])
