"""What the supervisor is asked to do, and what it says while it does it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from lookalike.settings import Settings


class EventKind(StrEnum):
    """What a line of the supervisor is about."""

    PROGRESS = "progress"
    READY = "ready"  #: Everything answers; sent once.
    TROUBLE = "trouble"  #: A process died or hung, and what is done about it.
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Event:
    """One line for whoever watches. As a string it is its message."""

    kind: EventKind
    message: str

    def __str__(self) -> str:
        return self.message


def _ignore(event: Event) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What `lookalike up` was asked for."""

    settings: Settings
    ingest_workers: int = 1
    search_workers: int = 1
    detach: bool = False  #: Return once the stack is ready, and leave it running.
    redis_url: str | None = field(default=None, repr=False)  #: A Redis to use instead of starting one.
    milvus_uri: str | None = None  #: A Milvus to use instead of starting one.
    on_event: Callable[[Event], None] = _ignore

    @classmethod
    def from_settings(cls, settings: Settings, **others: Any) -> Self:
        """Take the servers from the settings where the user named them there; the defaults do not count."""
        given = settings.model_fields_set
        return cls(
            settings=settings,
            redis_url=settings.redis_url.get_secret_value() if "redis_url" in given else None,
            milvus_uri=settings.milvus_uri if "milvus_uri" in given else None,
            **others,
        )
