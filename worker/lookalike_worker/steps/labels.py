"""Whether images of one label find each other: mAP@10 and P@1, with a metadata field for the truth."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from lookalike.jobstore import Step, StepClaim
from lookalike.records import EvaluationRequest, LabelScore, LabelsReport
from lookalike.vectorstore import Found
from lookalike_worker.context import Context
from lookalike_worker.measures import average_precision, mean_interval
from lookalike_worker.report import Case, write_report
from lookalike_worker.steps.sampling import SAMPLED, STEP_S
from lookalike_worker.steps.scratch import Scratch

K: Final = 10
COPIES: Final = 90  #: Hits of the query's own content that can be left out, where that is wished.
QUERIES: Final = 20  #: Searched for in one call.
WORST: Final = 20
_SEARCHING: Final = "searching"


def measure_labels(
    context: Context, claim: StepClaim, request: EvaluationRequest, keep: Callable[[], None]
) -> tuple[Step, LabelsReport | None]:
    """Search for the sample's images, some with each step; report with the last."""
    state: Mapping[str, Any] = claim.checkpoint or {}
    scratch = Scratch(context, claim.job_id)
    info, _ = scratch.load(state["step"])
    total = len(info["images"]) if state["phase"] == SAMPLED else None
    at, scores = state.get("at", 0), info.get("scores", [])
    until_s = time.monotonic() + STEP_S
    while at < len(info["images"]) and time.monotonic() < until_s:
        keep()
        some = info["images"][at : at + QUERIES]
        scores += _scored(context, request, [image for image in some if "value" in image], info["values"])
        at += len(some)
    processed = at - state.get("at", 0)
    if at == len(info["images"]):
        report = _report(request, info, scores)
        _show_worst(context, claim.job_id, request, scores, keep)
        return Step(total=total, processed=processed), report
    scratch.save(state["step"] + 1, {**info, "scores": scores})
    checkpoint = {"phase": _SEARCHING, "step": state["step"] + 1, "rows": state["rows"], "at": at}
    return Step(total=total, processed=processed, checkpoint=checkpoint), None


def _scored(
    context: Context, request: EvaluationRequest, images: Sequence[Mapping[str, Any]], values: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Score queries. One that was deleted meanwhile is left out."""
    vectors = context.vectors.vectors(request.collection, [image["id"] for image in images])
    asked = [image for image in images if image["id"] in vectors]
    if not asked:
        return []
    matrix = np.stack([vectors[image["id"]] for image in asked])
    limit = K + 1 + (COPIES if request.distinct else 0)
    answers = context.vectors.search(request.collection, matrix, limit=limit)
    return [score(request, image, hits, values) for image, hits in zip(asked, answers, strict=True)]


def score(
    request: EvaluationRequest, image: Mapping[str, Any], hits: Sequence[Found], values: Mapping[str, int]
) -> dict[str, Any]:
    """Return AP@10 and P@1 of one query. `values` counts the collection's images by label."""
    others = [hit.image for hit in hits if hit.image.id != image["id"]]
    total = values[image["value"]] - 1
    if request.distinct:
        copies = [one for one in others if one.sha256 == image["sha256"]]
        others = [one for one in others if one.sha256 != image["sha256"]]
        total -= sum(_label(one.metadata, request.field) == image["value"] for one in copies)
    relevant = [_label(one.metadata, request.field) == image["value"] for one in others[:K]]
    return {
        "image": image,
        "ap": average_precision(K, relevant, total),
        "p1": float(relevant[:1] == [True]),
        "others": total,
        "hits": [
            {"id": one.id, "uri": one.uri, "name": one.name, "label": _label(one.metadata, request.field)}
            for one in others[:5]
        ],
    }


def _label(metadata: Mapping[str, Any], field: str) -> str | None:
    return str(metadata[field]) if field in metadata else None


def _report(request: EvaluationRequest, info: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> LabelsReport:
    counted = [one for one in scores if one["others"] > 0]
    by_label: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in counted:
        by_label[one["image"]["value"]].append(one)
    table = [
        LabelScore(
            label=label,
            images=info["values"][label],
            queries=len(some),
            map_at_10=round(float(np.mean([one["ap"] for one in some])), 6),
            precision_at_1=round(float(np.mean([one["p1"] for one in some])), 6),
        )
        for label, some in by_label.items()
    ]
    return LabelsReport(
        field=request.field,
        queries=len(counted),
        unlabelled=sum("value" not in image for image in info["images"]),
        alone=len(scores) - len(counted),
        map_at_10=mean_interval([one["ap"] for one in counted], request.seed),
        precision_at_1=mean_interval([one["p1"] for one in counted], request.seed),
        labels=tuple(sorted(table, key=lambda row: (row.map_at_10, row.label))),
        worst=tuple(one["image"]["id"] for one in worst_of(scores)),
    )


def worst_of(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the queries that did worst."""
    counted = [one for one in scores if one["others"] > 0]
    return sorted(counted, key=lambda one: (one["ap"], one["image"]["id"]))[:WORST]


def _show_worst(
    context: Context,
    job_id: str,
    request: EvaluationRequest,
    scores: Sequence[Mapping[str, Any]],
    keep: Callable[[], None],
) -> None:
    cases = [
        Case(
            title=f"{one['image']['value']}: AP@10 {one['ap']:.3f}",
            asked=[(one["image"]["uri"], one["image"]["name"])],
            hits=[
                (hit["uri"], f"{hit['label']}: {hit['name']}", hit["label"] == one["image"]["value"])
                for hit in one["hits"]
            ],
        )
        for one in worst_of(scores)
    ]
    title = f"{request.collection}: the images that find their own label worst"
    write_report(context, job_id, title, cases, keep)
