"""Evaluations: how well a collection is searched, how well its network does, and where its images lie on a map."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

from lookalike.records.base import ImageID, Record
from lookalike.records.collections import IndexKind
from lookalike.records.steps import StepRequest

#: As a metadata field is named.
FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class EvaluationType(StrEnum):
    """What is measured."""

    RECALL = "recall"  #: What the index finds of what exact search finds.
    LABELS = "labels"  #: Whether images of one label find each other.
    ROBUSTNESS = "robustness"  #: Whether an altered copy of an image finds the image.


class Alteration(StrEnum):
    """What is done to a picture before it is searched for."""

    CROP_80 = "crop_80"  #: The middle, four fifths of each side.
    CROP_65 = "crop_65"  #: The middle, 65% of each side.
    CROP_50 = "crop_50"  #: The middle, half of each side: a quarter of the picture.
    JPEG_30 = "jpeg_30"  #: Saved as a JPEG of quality 30.
    RESCALE_50 = "rescale_50"  #: Half of each side.
    ROTATE_10 = "rotate_10"  #: Turned by 10 degrees, on white.
    ROTATE_90 = "rotate_90"  #: Turned by a quarter.
    MIRROR = "mirror"  #: Left and right swapped.
    BLUR = "blur"  #: Blurred with a radius of a hundredth of the shorter side.


#: What a pass mark may name, and what is printed first; each is a share between 0 and 1.
MEASURES: Final = {
    EvaluationType.RECALL: ("recall_at_10", "recall_at_1", "recall_at_100"),
    EvaluationType.LABELS: ("map_at_10", "precision_at_1"),
    EvaluationType.ROBUSTNESS: ("recall_at_1", "recall_at_10", *Alteration),
}
#: Which fields of a request belong to one type only.
_OWN: Final = {
    EvaluationType.RECALL: ("target", "grid"),
    EvaluationType.LABELS: ("field", "distinct"),
    EvaluationType.ROBUSTNESS: ("alterations",),
}


class EvaluationRequest(StepRequest):
    """Body of `POST /v1/evaluations`."""

    type: EvaluationType
    sample: int = Field(200, ge=1, le=2_000)  #: Images to search for, taken evenly over the ids; all where fewer.
    seed: int = Field(0, ge=0, lt=2**32)  #: The same collection and seed give the same sample.
    target: Share = 0.99  #: Of `recall`: the recall@10 that a parameter is suggested for.
    grid: tuple[Annotated[int, Field(ge=1, le=32_768)], ...] = Field((), max_length=16)
    field: FieldName = "label"  #: Of `labels`: the metadata field that says what belongs together.
    distinct: bool = False  #: Of `labels`: leave images of the query's own content out, besides the query.
    alterations: tuple[Alteration, ...] = ()  #: Of `robustness`: all where left out.
    pass_mark: dict[str, Share] = Field(default_factory=dict)  #: Least values, by measure; the result says `passed`.

    @model_validator(mode="after")
    def _fields_belong_to_the_type(self) -> Self:
        for kind, fields in _OWN.items():
            if kind is self.type:
                continue
            # Not by whether it was sent: stored with its default, a request is to be read again.
            foreign = [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]
            if foreign:
                raise ValueError(f"{foreign[0]} is for evaluations of the type {kind}")
        unknown = [name for name in self.pass_mark if name not in MEASURES[self.type]]
        if unknown:
            raise ValueError(f"a pass mark of this type names one of: {', '.join(MEASURES[self.type])}")
        return self


class RecallPoint(Record):
    """What one search parameter finds, and how long it takes. Latencies are of single queries with ten hits."""

    params: dict[str, int]  #: `ef` or `nprobe`; empty where the index has none.
    default: bool = False  #: What searches of this collection use now.
    recall_at_1: float
    recall_at_10: float
    recall_at_100: float
    p50_ms: float
    p95_ms: float


class RecallReport(Record):
    """Result of an evaluation of the type `recall`."""

    index_type: str  #: In Milvus' terms.
    exact: bool  #: The index compares every row, so that there is nothing to choose.
    points: tuple[RecallPoint, ...]  #: Cheapest first.
    target: float
    suggested: dict[str, int] | None = None  #: The cheapest that reaches the target; null where none does.


class Interval(Record):
    """A mean, and where it lies with a confidence of 95%: percentiles of 1,000 bootstrap samples."""

    mean: float
    low: float
    high: float


class LabelScore(Record):
    """How the images of one label do."""

    label: str
    images: int  #: In the collection.
    queries: int  #: Of the sample.
    map_at_10: float
    precision_at_1: float


class LabelsReport(Record):
    """Result of an evaluation of the type `labels`."""

    field: str
    queries: int  #: Images that were searched for and count.
    unlabelled: int  #: Images of the sample without the field.
    alone: int  #: Images of the sample that nothing else has the label of.
    map_at_10: Interval
    precision_at_1: Interval
    labels: tuple[LabelScore, ...]  #: Worst first, a hundred at most; `report.json` has all.
    worst: tuple[ImageID, ...]  #: The images that did worst.


class AlterationScore(Record):
    """How images are found again by copies with one alteration."""

    alteration: Alteration
    queries: int
    recall_at_1: Interval
    recall_at_10: Interval


class RobustnessReport(Record):
    """Result of an evaluation of the type `robustness`."""

    images: int  #: That were altered and searched for.
    alterations: tuple[AlterationScore, ...]


class EvaluationResult(Record):
    """Result of an evaluation; the report of its type is set. The whole of it is the job's file `report.json`."""

    collection: str
    type: EvaluationType
    sample: int  #: Images that were taken.
    rows: int  #: Images that the collection had.
    passed: bool | None = None  #: Whether each pass mark was reached; null where there is none.
    missed: dict[str, float] = Field(default_factory=dict)  #: What was measured where the mark was not reached.
    recall: RecallReport | None = None
    labels: LabelsReport | None = None
    robustness: RobustnessReport | None = None


class MapRequest(StepRequest):
    """Body of `POST /v1/maps`."""

    limit: int = Field(5_000, ge=3, le=10_000)  #: Images on the map, taken evenly over the ids.
    seed: int = Field(0, ge=0, lt=2**32)


class MapPoint(Record):
    """Where an image lies."""

    id: ImageID
    x: float
    y: float


class ImageMap(Record):
    """The file `map.json`: images in the plane of their vectors' two principal components."""

    points: tuple[MapPoint, ...]
    explained: tuple[float, float]  #: The share of the vectors' variance that lies along x, and along y.


class MapResult(Record):
    """Result of a map; the points are in the job's file `map.json`."""

    collection: str
    images: int  #: On the map.
    rows: int  #: In the collection.
    explained: tuple[float, float]


class Reindexing(Record):
    """Body of `POST /v1/collections/{name}/reindex`: what is left out stays as it is."""

    index: IndexKind | None = None
    build: dict[str, int] | None = Field(None, max_length=4)  #: `M` and `efConstruction`, or `nlist`.
    search: dict[str, int] | None = Field(None, max_length=4)  #: `ef`, or `nprobe`: of searches that name none.
    offline: bool = False  #: Also where it is so large that searches fail until the index is built.


class ReindexRequest(StepRequest):
    """A reindexing as a job."""

    index: IndexKind | None = None
    build: dict[str, int] | None = None
    search: dict[str, int] | None = None
    offline: bool = False


class ReindexResult(Record):
    """Result of a reindexing."""

    collection: str
    index: IndexKind
    index_type: str  #: In Milvus' terms.
    params: dict[str, int]  #: It was built with these...
    search: dict[str, int]  #: ...and is searched with these.
    reason: str
    rebuilt: bool  #: False where only search parameters changed, or nothing.
