"""A plan: the processes to run and how to tell that together they serve."""

from collections.abc import Callable
from dataclasses import dataclass

from lookalike.supervisor.process import ProcessSpec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the supervisor runs. It knows nothing of what the processes are for."""

    specs: tuple[ProcessSpec, ...]  #: In the order of their start.
    lacking: Callable[[], str | None]  #: None when the whole serves, else what is missing. Asked from another thread.
    url: str
    run_id: str
    redis_url: str | None = None  #: Where the plan includes a Redis.
    milvus_uri: str | None = None  #: Where the plan includes a Milvus.
    ready_timeout_s: float = 60.0  #: From the last process being ready to the whole being ready.
