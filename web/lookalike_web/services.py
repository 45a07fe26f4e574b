"""What the views work with. `wsgi.py` builds it for the service, the tests build theirs with fakes."""

from dataclasses import dataclass
from typing import Protocol, cast

from flask import current_app

from lookalike.decodepool import DecodePool
from lookalike.jobstore import JobStore, Lane
from lookalike.roots import Roots
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.uploads import UploadStore
from lookalike.vectorstore import VectorStore

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
    decoders: DecodePool

    @property
    def sources(self) -> Sources:
        """Where an image's bytes come from, by its URI."""
        return Sources(self.roots, self.uploads)


def services() -> Services:
    """Return the services of the app that handles the current request."""
    return cast(Services, current_app.extensions[EXTENSION])
