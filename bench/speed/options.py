"""What a run of the bench is asked for, and what is small enough for a build."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured; the defaults are those of a full run."""

    place: Path  #: Keeps pictures and converted networks from run to run.
    quick: bool = False
    turns: int = 3
    seconds: float = 6.0  #: What one ingest should take.
    round_s: float = 4.0  #: Searches of many clients, at once: several batches, since the answers of one come together.
    files: int = 512  #: Pictures of a size, at most.
    least: int = 96  #: Pictures of an ingest; with fewer, filling and draining a pipeline is what is measured.
    variants: tuple[str, ...] = ("fast", "exact", "int8")
    rivals: tuple[str, ...] = ("tutorial", "fastembed", "ray")
    clients: tuple[int, ...] = (1, 8, 32, 128)
    latencies: int = 30  #: Searches of each kind in a turn.

    @property
    def models(self) -> Path:
        """Converted networks: a conversion is no part of what is measured, save for the cold start."""
        return self.place / "models"

    @property
    def pictures(self) -> Path:
        """The root that the service reads."""
        return self.place / "pictures"


def quick(place: Path) -> Options:
    """Ratios only, in about two minutes."""
    return Options(
        place=place,
        quick=True,
        seconds=2.0,
        round_s=2.0,
        files=192,
        least=32,
        variants=("fast",),
        rivals=("tutorial",),
        clients=(1, 32),
        latencies=6,
    )
