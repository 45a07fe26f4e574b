"""What users would pick instead of this service, each in a process of its own: `python -m speed.rivals NAME MODELS`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

#: Where each is, so that one that is not installed keeps none of the others from running.
RIVALS: Final = {
    "tutorial": "speed.rivals.tutorial:Tutorial",
    "fastembed": "speed.rivals.fast_embed:FastEmbed",
    "ray": "speed.rivals.ray_data:RayData",
}


class Rival(Protocol):
    """Another way from files to vectors, loaded and ready to run."""

    def __init__(self, models: Path) -> None:
        """Load the network; `models` is a folder for what has to be converted."""

    def run(self, paths: Sequence[Path]) -> int:
        """Embed pictures, and store them where that is part of it; returns how many vectors came of it."""

    def close(self) -> None:
        """End whatever was started."""
