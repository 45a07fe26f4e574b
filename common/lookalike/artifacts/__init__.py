"""Files that jobs leave behind beside their records."""

from lookalike.artifacts.reading import ArtifactFile
from lookalike.artifacts.store import Artifact, Artifacts

__all__ = ["Artifact", "ArtifactFile", "Artifacts"]
