"""Requests of duplicates jobs, and their results."""

from enum import StrEnum
from typing import Final, Self

from pydantic import Field, model_validator

from lookalike.records.base import Record
from lookalike.records.steps import StepRequest

MAX_BITS: Final = 6  #: Why so many: docs/decisions/0016-duplicates.md.
NEAR_COSINE: Final = 0.95


class DuplicateLevel(StrEnum):
    """What makes two images duplicates. The levels are never mixed."""

    CONTENT = "content"  #: The same bytes, by their SHA-256.
    PICTURE = "picture"  #: The same picture, recompressed or rescaled, by a perceptual hash.
    NEAR = "near"  #: Alike to the model, by the distance of their vectors.


class Keep(StrEnum):
    """Which image of a cluster is suggested to be kept."""

    LARGEST = "largest"  #: Of the most pixels, then of the most bytes, then the oldest.
    OLDEST = "oldest"  #: Whose file was changed first.
    NEWEST = "newest"  #: Whose file was changed last.
    FIRST = "first"  #: Whose address comes first.


class DuplicatesRequest(StepRequest):
    """Body of `POST /v1/duplicates`."""

    level: DuplicateLevel = DuplicateLevel.CONTENT
    max_bits: int = Field(MAX_BITS, ge=0, le=12)  #: Of the level `picture`: how many of 64 bits may differ.
    #: Of the level `near`: the distance of the farthest that counts, at most this for L2, at least this for the others.
    max_distance: float | None = Field(None, allow_inf_nan=False)
    min_score: float | None = Field(None, allow_inf_nan=False)  #: Likewise, as a score; 0.95 by default for COSINE.
    keep: Keep = Keep.LARGEST
    delete: bool = False  #: Take all but the keepers out of the collection. The files stay where they are.
    dry_run: bool = False  #: Delete nothing: `deletable` in the result says how many would be.

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if self.max_distance is not None and self.min_score is not None:
            raise ValueError("a threshold is either `max_distance` or `min_score`: leave one of them out")
        if self.level is not DuplicateLevel.NEAR and (self.max_distance is not None or self.min_score is not None):
            raise ValueError("`max_distance` and `min_score` are for the level `near`; `picture` has `max_bits`")
        return self


class DuplicatesResult(Record):
    """Result of a duplicates job."""

    collection: str
    level: DuplicateLevel
    keep: Keep
    looked_at: int = Field(ge=0)  #: Images.
    clusters: int = Field(ge=0)
    images: int = Field(ge=0)  #: In clusters, keepers included.
    largest_cluster: int = Field(ge=0)
    deletable: int = Field(ge=0)  #: Those of them that are no keepers.
    deletable_bytes: int = Field(ge=0)  #: The size of their files.
    unhashed: int = Field(0, ge=0)  #: Of the level `picture`: images that could not be compared.
    deleted: int = Field(0, ge=0)
    dry_run: bool
    note: str = ""  #: What to do about what could not be compared.
