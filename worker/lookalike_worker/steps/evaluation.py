"""Evaluations: a sample is taken, then measured as its type says, then judged by the pass mark."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from lookalike.jobstore import Step, StepClaim
from lookalike.records import (
    MEASURES,
    EvaluationRequest,
    EvaluationResult,
    EvaluationType,
    LabelsReport,
    RecallReport,
    RobustnessReport,
)
from lookalike_worker.context import Context
from lookalike_worker.steps import sampling
from lookalike_worker.steps.labels import measure_labels
from lookalike_worker.steps.recall import measure_recall
from lookalike_worker.steps.robustness import measure_robustness

Report = RecallReport | LabelsReport | RobustnessReport
#: Does the next step of a measurement. What it returns beside the step is the report, once there is one.
Measure = Callable[[Context, StepClaim, EvaluationRequest, Callable[[], None]], tuple[Step, Report | None]]

REPORT: Final = "report.json"
_MEASURES: Final[Mapping[EvaluationType, Measure]] = {
    EvaluationType.RECALL: measure_recall,
    EvaluationType.LABELS: measure_labels,
    EvaluationType.ROBUSTNESS: measure_robustness,
}
_LABELS_IN_RESULT: Final = 100


def evaluate(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Do the next step of an evaluation. The last one leaves `report.json`, and but of recall `report.html`."""
    request = claim.request
    assert isinstance(request, EvaluationRequest)  # noqa: S101
    if claim.checkpoint is None:
        return sampling.begin(context, claim)
    if claim.checkpoint["phase"] == sampling.SAMPLING:
        field = request.field if request.type is EvaluationType.LABELS else None
        return sampling.go_on(context, claim, keep, wanted=request.sample, seed=request.seed, field=field)
    step, report = _MEASURES[request.type](context, claim, request, keep)
    if report is None:
        return step
    result = judged(request, report, rows=claim.checkpoint["rows"])
    context.artifacts.write(claim.job_id, REPORT, result.model_dump_json(indent=2).encode())
    return Step(total=step.total, processed=step.processed, failures=step.failures, result=_bounded(result))


def judged(request: EvaluationRequest, report: Report, *, rows: int) -> EvaluationResult:
    """Put a report beside the pass mark. Of robustness, a measure's mark is for each alteration."""
    measured = _measured(report)
    missed = {
        name: round(value, 6)
        for name, least in request.pass_mark.items()
        if (value := measured.get(name)) is not None and value < least
    }
    unmeasured = [name for name in request.pass_mark if name not in measured]
    return EvaluationResult(
        collection=request.collection,
        type=request.type,
        sample=min(request.sample, rows),
        rows=rows,
        passed=not missed and not unmeasured if request.pass_mark else None,
        missed=missed | dict.fromkeys(unmeasured, 0.0),
        **{request.type.value: report},
    )


def _measured(report: Report) -> dict[str, float]:
    match report:
        case RecallReport():
            current = next((point for point in report.points if point.default), report.points[0])
            return {name: getattr(current, name) for name in MEASURES[EvaluationType.RECALL]}
        case LabelsReport():
            return {"map_at_10": report.map_at_10.mean, "precision_at_1": report.precision_at_1.mean}
        case RobustnessReport():
            own = {score.alteration.value: score.recall_at_1.mean for score in report.alterations}
            worst = {
                name: min((getattr(score, name).mean for score in report.alterations), default=0.0)
                for name in ("recall_at_1", "recall_at_10")
            }
            return own | worst


def _bounded(result: EvaluationResult) -> dict[str, Any]:
    """Return what is kept in the job's record: the table of labels cut to the worst."""
    if result.labels:
        shown = result.labels.model_copy(update={"labels": result.labels.labels[:_LABELS_IN_RESULT]})
        result = result.model_copy(update={"labels": shown})
    return result.model_dump(mode="json")
