"""Members: what archives of every format are made of, and the limits that all of them are read under."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Self

from lookalike.errors import ArchiveTooLarge
from lookalike.uploads import Stream

if TYPE_CHECKING:  # The client lists folders too, and reads no settings of the service.
    from lookalike.settings import Settings

BLOCK_BYTES: Final = 1 << 20  #: What is read at a time; `keep` is called for each.
_RATIO_FROM_BYTES: Final = 64 << 20  # Less than this is no bomb, however well it was packed.


class MemberKind(Enum):
    """What a member is."""

    FILE = auto()
    FOLDER = auto()
    OTHER = auto()  #: A link or a device.
    ENCRYPTED = auto()


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive. It is opened before the next one is asked for, or not at all."""

    number: int  #: From 0, folders and links included.
    name: str  #: A label: nothing is ever written under it.
    kind: MemberKind
    size: int | None  #: Unpacked bytes as the archive claims; None where it does not.
    open: Callable[[], Stream]  #: What it holds; reading raises `ArchiveInvalid`.
    alone: bool = False  #: Damage to it says nothing of the members behind it.


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of an archive is unpacked."""

    members: int
    unpacked_bytes: int
    ratio: float  #: Unpacked over packed bytes.
    file_bytes: int  #: One member.

    @classmethod
    def from_settings(cls, settings: "Settings") -> Self:
        """Return the limits that the settings name."""
        return cls(
            members=settings.max_archive_members,
            unpacked_bytes=settings.max_archive_bytes,
            ratio=settings.max_archive_ratio,
            file_bytes=settings.max_file_bytes,
        )


class Meter:
    """Counts what is unpacked; raises `ArchiveTooLarge` at the limits."""

    def __init__(self, limits: Limits, packed_bytes: Callable[[], int]) -> None:
        self._limits = limits
        self._packed_bytes = packed_bytes
        self._unpacked = 0

    def count(self, number: int) -> None:
        """Note that a member begins."""
        if number >= self._limits.members:
            raise ArchiveTooLarge(
                f"The archive has more than {self._limits.members} members. "
                "Split it, or raise LOOKALIKE_MAX_ARCHIVE_MEMBERS."
            )

    def add(self, unpacked_bytes: int) -> None:
        """Note that this much more is unpacked."""
        self._unpacked += unpacked_bytes
        if self._unpacked > self._limits.unpacked_bytes:
            raise ArchiveTooLarge(
                f"The archive unpacks to more than {self._limits.unpacked_bytes} bytes. "
                "Split it, or raise LOOKALIKE_MAX_ARCHIVE_BYTES."
            )
        if self._unpacked > max(_RATIO_FROM_BYTES, self._limits.ratio * self._packed_bytes()):
            raise ArchiveTooLarge(
                f"The archive unpacks to more than {self._limits.ratio:g} times its size, as no archive of images "
                "does. Raise LOOKALIKE_MAX_ARCHIVE_RATIO if it is meant to."
            )
