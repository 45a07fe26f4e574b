"""The composition root of a front-end process. gunicorn imports it after the fork, in each of its workers."""

from lookalike.artifacts import Artifacts
from lookalike.broker import Doorbell
from lookalike.decodepool import DecodePool
from lookalike.jobstore.redis import RedisJobStore
from lookalike.remote import Remote
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.uploads.partials import Partials
from lookalike.vectorstore import VectorStore
from lookalike_web.app import create_app
from lookalike_web.services import Services
from lookalike_web.throttling import Throttle

#: Thumbnails and probes; each is a process of its own, started when it is first needed.
DECODE_PROCESSES = 2


def build_services(settings: Settings) -> Services:
    """Make the services of one process. Nothing connects before its first use."""
    sources = Sources.from_settings(settings)
    return Services(
        settings=settings,
        jobs=RedisJobStore.connect(settings),
        doorbell=Doorbell.connect(settings),
        vectors=VectorStore.connect(settings),
        roots=sources.roots,
        uploads=sources.uploads,
        partials=Partials(sources.uploads, max_bytes=settings.max_archive_bytes),
        artifacts=Artifacts.from_settings(settings),
        decoders=DecodePool(settings, processes=DECODE_PROCESSES),
        remote=Remote.from_settings(settings),
        throttle=Throttle.connect(settings),
    )


app = create_app(build_services(Settings()))
