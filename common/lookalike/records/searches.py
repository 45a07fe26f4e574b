"""Requests of searches: what is searched for, and which of what is found is answered."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from lookalike.records.base import SHA256, CollectionName, ImageID, ModelName, Record
from lookalike.records.requests import Filter, Webhook
from lookalike.records.sources import URL, ServerPath, UploadedFile

MAX_EXAMPLES: Final = 64  #: Of a query, positive and negative ones together.

_SLACK: Final = 1e-6  #: What decimal fractions of a side may add up to beyond it: 0.7 + 0.3 is more than 1.


def _checked_box(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    if min(width, height) <= 0 or max(x + width, y + height) > 1 + _SLACK:
        raise ValueError("a box is [x, y, width, height] in parts of the picture, lies within it, and has an area")
    return box


def _named_upload(value: object) -> object:
    value = {"sha256": value} if isinstance(value, str) else value
    # A record, since where a request is read strictly a dict of this validator's would not be taken for one.
    return UploadedFile.model_validate(value, strict=True) if isinstance(value, dict) else value


_Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
#: A region of a picture: left, top, width and height, in parts of the upright picture's width and height.
Box = Annotated[tuple[_Part, _Part, _Part, _Part], AfterValidator(_checked_box)]
#: A file that was uploaded before, by its SHA-256.
Upload = Annotated[UploadedFile, BeforeValidator(_named_upload, json_schema_input_type=UploadedFile | SHA256)]
GroupField = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class Variant(StrEnum):
    """A way to turn a picture before it is searched with."""

    MIRROR = "mirror"  #: Left and right swapped.
    ROTATE90 = "rotate90"  #: A quarter turn clockwise.
    ROTATE180 = "rotate180"
    ROTATE270 = "rotate270"  #: A quarter turn counter-clockwise.


class Example(Record):
    """One picture, or the vector of one: exactly one of its fields is set, `box` apart."""

    path: ServerPath | None = None  #: Relative to a root, or absolute under one.
    url: URL | None = None  #: Fetched by the service.
    image_id: ImageID | None = None  #: Of a stored image.
    vector: tuple[float, ...] | None = Field(None, min_length=1, max_length=32_768)
    upload: Upload | None = None
    box: Box | None = None  #: Only this region of the picture counts.

    @property
    def _sources(self) -> tuple[object, ...]:
        return self.path, self.url, self.image_id, self.vector, self.upload

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(value is not None for value in self._sources) != 1:
            raise ValueError("an example names exactly one of: path, url, image_id, vector, upload")
        if self.box is not None and self.vector is not None:
            raise ValueError("a vector has no regions: leave `box` out")
        return self


class Query(Example):
    """One thing to search for: a picture, the vector of one, or examples of what is wanted and what is not."""

    positive: tuple[Example, ...] | None = Field(None, min_length=1, max_length=MAX_EXAMPLES)
    negative: tuple[Example, ...] = Field((), max_length=MAX_EXAMPLES)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(value is not None for value in (*self._sources, self.positive)) != 1:
            raise ValueError("a query names exactly one of: path, url, image_id, vector, upload, positive")
        if self.box is not None and (self.vector is not None or self.positive is not None):
            raise ValueError("only a picture has regions: leave `box` out, or give it to an example")
        if self.positive is None and self.negative:
            raise ValueError("negative examples need positive ones beside them, in `positive`")
        if len(self.examples) > MAX_EXAMPLES:
            raise ValueError(f"a query has {MAX_EXAMPLES} examples at most")
        return self

    @property
    def examples(self) -> tuple[Example, ...]:
        """Everything that it is made of: itself, or its examples, the positive ones first."""
        return (self,) if self.positive is None else (*self.positive, *self.negative)

    @property
    def is_combined(self) -> bool:
        """True of one that is made of examples."""
        return self.positive is not None


class SearchParams(Record):
    """How closely an approximate index is looked into: more finds more, and takes longer."""

    ef: int | None = Field(None, ge=1, le=32_768)  #: Candidates that HNSW follows.
    nprobe: int | None = Field(None, ge=1, le=65_536)  #: Cells that IVF_FLAT looks into.


class HitTerms(Record):
    """Where a search looks, and which of what it finds is answered."""

    collection: CollectionName = "default"
    limit: int = Field(3, ge=1)  #: Hits per query.
    filter: Filter | None = None  #: A Milvus expression over the images' fields.
    model: ModelName | None = None  #: Which of the collection's models is to answer; the serving one where left out.
    #: The distance of the farthest hit that counts: at most this where the metric is L2, at least this for the others.
    max_distance: float | None = Field(None, allow_inf_nan=False)
    min_score: float | None = Field(None, allow_inf_nan=False)  #: The score of the farthest hit that counts.
    group_by: GroupField | None = (
        None  #: A field of the images: of those with the same value only the closest is a hit.
    )
    exclude_self: bool = False  #: Leave out the images that are searched with.
    distinct: bool = False  #: Of images with the same content only the closest is a hit.
    params: SearchParams | None = None
    consistency: Literal["strong", "bounded"] | None = None  #: `strong` finds all that was stored before the search.
    variants: tuple[Variant, ...] = Field((), max_length=len(Variant))  #: Search with the picture turned, too.
    webhook: Webhook | None = None


class SearchTerms(HitTerms):
    """What is asked of all queries of a search alike."""

    offset: int = Field(0, ge=0)  #: Hits that are left out at the beginning; `next_offset` of the answer before.
    wait: float = Field(0.0, ge=0, allow_inf_nan=False)  #: Seconds the answer may be held back until the job is final.


class SearchRequest(SearchTerms):
    """Body of `POST /v1/searches`; a multipart request's fields in the same names."""

    queries: tuple[Query, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _only_pictures_turn(self) -> Self:
        if self.variants and any(query.is_combined or query.vector is not None for query in self.queries):
            raise ValueError("variants are of single pictures; search with vectors and examples without them")
        return self

    @property
    def examples(self) -> Iterator[Example]:
        """All pictures and vectors that are searched with."""
        return (example for query in self.queries for example in query.examples)
