"""Self-retrieval: whether altered copies of stored images find their originals."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import EmbeddingInvalid, ImageError, ModelMismatch
from lookalike.jobstore import Step, StepClaim
from lookalike.records import (
    Alteration,
    AlterationScore,
    EvaluationRequest,
    Failure,
    RobustnessReport,
    Stage,
)
from lookalike.vectorstore import Found
from lookalike_worker.context import Context
from lookalike_worker.engines import invalid_rows
from lookalike_worker.keeping import result_of
from lookalike_worker.measures import mean_interval
from lookalike_worker.report import Case, readable, write_report
from lookalike_worker.steps.sampling import SAMPLED, STEP_S
from lookalike_worker.steps.scratch import Scratch

K: Final = 10
WORST: Final = 24
_HITS_SHOWN: Final = 4
_SEARCHING: Final = "searching"

Keep = Callable[[], None]


def measure_robustness(
    context: Context, claim: StepClaim, request: EvaluationRequest, keep: Keep
) -> tuple[Step, RobustnessReport | None]:
    """Alter, embed and search for the sample's images, some with each step; report with the last.

    Raises `ModelMismatch` where this worker's network did not make the collection. An image whose file cannot be read
    is a line of the failures ledger, and does not count.
    """
    state: Mapping[str, Any] = claim.checkpoint or {}
    scratch = Scratch(context, claim.job_id)
    info, _ = scratch.load(state["step"])
    model = context.vectors.collection(request.collection).model
    if model is None or model.fingerprint != context.embedder.model.fingerprint:
        raise ModelMismatch
    total = len(info["images"]) if state["phase"] == SAMPLED else None
    at, trials, failures = state.get("at", 0), info.get("trials", []), []
    until_s = time.monotonic() + STEP_S
    while at < len(info["images"]) and time.monotonic() < until_s:
        image = info["images"][at]
        at += 1
        try:
            trials += _tried(context, request, image, keep)
        except ImageError as error:
            failures.append(_failure(image, error))
    processed = at - state.get("at", 0) - len(failures)
    if at == len(info["images"]):
        _show_worst(context, claim.job_id, request, trials, keep)
        return Step(total=total, processed=processed, failures=tuple(failures)), _report(request, trials)
    scratch.save(state["step"] + 1, {**info, "trials": trials})
    checkpoint = {"phase": _SEARCHING, "step": state["step"] + 1, "rows": state["rows"], "at": at}
    return Step(total=total, processed=processed, failures=tuple(failures), checkpoint=checkpoint), None


def _tried(context: Context, request: EvaluationRequest, image: Mapping[str, Any], keep: Keep) -> list[dict[str, Any]]:
    names = request.alterations or tuple(Alteration)
    pixels = _pixels(context, image["uri"], names, keep)
    vectors = context.embedder.engine.embed(pixels)
    if invalid_rows(vectors).any():
        raise EmbeddingInvalid
    keep()
    answers = context.vectors.search(request.collection, vectors, limit=K)
    return [
        {"image": image, "alteration": name.value, "rank": rank_of(image, hits), "hits": _shown(hits)}
        for name, hits in zip(names, answers, strict=True)
    ]


def rank_of(image: Mapping[str, Any], hits: Sequence[Found]) -> int | None:
    """Return the rank of the first hit that is the image, or as close as it; None where none of the hits is it.

    An image of the same content is as good as the image: nothing can tell them apart. Hits of equal distance share
    the rank of the first of them.
    """
    right = next((hit for hit in hits if image["id"] == hit.image.id or image["sha256"] == hit.image.sha256), None)
    if right is None:
        return None
    return next(rank for rank, hit in enumerate(hits, 1) if hit.distance == right.distance)


def _pixels(context: Context, uri: str, names: Sequence[Alteration], keep: Keep) -> NDArray[np.uint8]:
    """Return altered copies as the network takes them, (n, 224, 224, 3)."""
    return result_of(context.decoders.altered(readable(context, uri, keep), names), keep)


def _shown(hits: Sequence[Found]) -> list[dict[str, str]]:
    return [
        {"id": hit.image.id, "uri": hit.image.uri, "name": hit.image.name, "sha256": hit.image.sha256}
        for hit in hits[:_HITS_SHOWN]
    ]


def _failure(image: Mapping[str, Any], error: ImageError) -> Failure:
    return Failure(uri=image["uri"], name=image["name"], code=error.code, message=error.message, stage=Stage.DECODE)


def _report(request: EvaluationRequest, trials: Sequence[Mapping[str, Any]]) -> RobustnessReport:
    scores = []
    for name in request.alterations or tuple(Alteration):
        ranks = [trial["rank"] for trial in trials if trial["alteration"] == name.value]
        first = [float(rank == 1) for rank in ranks]
        ten = [float(rank is not None) for rank in ranks]
        intervals = {
            "recall_at_1": mean_interval(first, request.seed),
            "recall_at_10": mean_interval(ten, request.seed),
        }
        scores.append(AlterationScore(alteration=name, queries=len(ranks), **intervals))
    return RobustnessReport(images=len({trial["image"]["id"] for trial in trials}), alterations=tuple(scores))


def worst_of(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the trials that did not find their original first: not at all, then late; mixed over the alterations."""
    missed = [trial for trial in trials if trial["rank"] != 1]
    missed.sort(key=lambda trial: (-(trial["rank"] or K + 1), trial["image"]["id"], trial["alteration"]))
    seen: dict[str, int] = {}
    turns = []
    for trial in missed:
        seen[trial["alteration"]] = turn = seen.get(trial["alteration"], 0) + 1
        turns.append((turn, trial))
    return [trial for _, trial in sorted(turns, key=lambda pair: pair[0])][:WORST]


def _show_worst(
    context: Context, job_id: str, request: EvaluationRequest, trials: Sequence[Mapping[str, Any]], keep: Keep
) -> None:
    cases = []
    for trial in worst_of(trials):
        image = trial["image"]
        try:
            pixels = _pixels(context, image["uri"], [Alteration(trial["alteration"])], keep)[0]
        except ImageError:
            continue
        rank = f"found at rank {trial['rank']}" if trial["rank"] else f"not among the first {K}"
        cases.append(
            Case(
                title=f"{trial['alteration']}: {rank}",
                asked=[(image["uri"], f"stored: {image['name']}"), (pixels, f"asked: {trial['alteration']}")],
                hits=[
                    (hit["uri"], hit["name"], image["sha256"] == hit["sha256"] or image["id"] == hit["id"])
                    for hit in trial["hits"]
                ],
            )
        )
    write_report(context, job_id, f"{request.collection}: altered copies that do not find their original", cases, keep)
