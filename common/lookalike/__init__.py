"""lookalike: asynchronous image-similarity search.

    from lookalike import Client

    with Client() as client:
        client.ingest("photos")
        for hit in client.search("query.jpg").queries[0].hits:
            print(hit.score, hit.uri)

The names are imported at their first use, so that `import lookalike` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.client import AsyncClient, AsyncJob, Client, IngestSummary, Job, JobGroup
    from lookalike.errors import JobCancelled, JobFailed, LookalikeError, ServiceUnreachable, WaitTimeout
    from lookalike.records import (
        Collection,
        Failure,
        Hit,
        Image,
        JobRecord,
        JobState,
        Progress,
        QueryResult,
        SearchResult,
    )

_HOMES = {
    "lookalike.client": ("AsyncClient", "AsyncJob", "Client", "IngestSummary", "Job", "JobGroup"),
    "lookalike.errors": ("JobCancelled", "JobFailed", "LookalikeError", "ServiceUnreachable", "WaitTimeout"),
    "lookalike.records": (
        "Collection",
        "Failure",
        "Hit",
        "Image",
        "JobRecord",
        "JobState",
        "Progress",
        "QueryResult",
        "SearchResult",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Collection",
    "Failure",
    "Hit",
    "Image",
    "IngestSummary",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobGroup",
    "JobRecord",
    "JobState",
    "LookalikeError",
    "Progress",
    "QueryResult",
    "SearchResult",
    "ServiceUnreachable",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
