"""What a lane works with: built once, in the composition root, and handed on."""

from dataclasses import dataclass, field

from lookalike.artifacts import Artifacts
from lookalike.broker import Doorbell
from lookalike.decodepool import DecodePool
from lookalike.jobstore import JobStore
from lookalike.listing import Lister
from lookalike.remote import Remote
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.vectorstore import VectorStore
from lookalike_worker.crashing import CrashPoints
from lookalike_worker.heart import Heart
from lookalike_worker.model import Embedder
from lookalike_worker.open_listing import OpenListing


@dataclass(frozen=True, kw_only=True)
class Context:
    """The parts of a worker process."""

    settings: Settings
    jobs: JobStore
    doorbell: Doorbell
    sources: Sources
    decoders: DecodePool
    embedder: Embedder
    vectors: VectorStore
    heart: Heart
    lister: Lister
    remote: Remote
    artifacts: Artifacts
    listing: OpenListing = field(default_factory=OpenListing)  #: That steps go on with.
    crash: CrashPoints = field(default_factory=lambda: CrashPoints(None))

    def close(self) -> None:
        """End the decoders, and let go of the servers."""
        self.heart.stop()
        self.listing.drop()
        self.remote.close()
        self.decoders.close()
        self.vectors.close()
