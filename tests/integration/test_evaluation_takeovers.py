"""Evaluations whose worker dies in every single step: the report is that of a run that nobody disturbed."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest_parts import MODEL, submit, work_off
from lookalike.jobstore import StepClaim
from lookalike.records import EvaluationRequest, JobKind, JobRecord, JobState
from lookalike_worker.context import Context
from lookalike_worker.steps import WORK
from lookalike_worker.sweeper import sweep_once
from service import until

NAME = "disturbed"
IMAGES = 24

Make = Callable[..., Context]


@pytest.fixture
def context(make_worker: Make, image_root: Path) -> Context:
    context = make_worker(decode_timeout_s=20.0, lease_s=1.0, max_attempts=100)
    rng = np.random.default_rng(5)
    for number in range(IMAGES):
        quarters = rng.integers(0, 250, (2, 2, 3), dtype=np.uint8)
        target = io.BytesIO()
        Image.fromarray(quarters).resize((60, 60), Image.Resampling.NEAREST).save(target, "PNG")
        place = image_root / ("even" if number % 2 else "odd") / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(target.getvalue())
    work_off(context, submit(context, NAME, label_from_folder=True))
    return context


def claimed(context: Context) -> StepClaim | None:
    sweep_once(context.jobs, context.doorbell)
    claim = context.jobs.claim_ingest(model=MODEL.fingerprint)
    assert claim is None or isinstance(claim, StepClaim)
    return claim


def disturbed(context: Context, request: EvaluationRequest) -> tuple[JobRecord, int]:
    """Work a job off, each step of which is done by a worker that dies before it says so, and then by another."""
    job_id = context.jobs.create(JobKind.EVALUATION, request)[0].id
    work, deaths = WORK[JobKind.EVALUATION], 0
    while not context.jobs.get(job_id).state.final:
        dies = until(lambda: claimed(context), 60)
        work(context, dies, partial(context.jobs.renew, dies))
        deaths += 1
        takes_over = until(lambda: claimed(context), 60)
        step = work(context, takes_over, partial(context.jobs.renew, takes_over))
        context.jobs.advance(takes_over, step)
    return context.jobs.get(job_id), deaths


def comparable(value: Any) -> Any:
    """What a report says, but for times."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if not key.endswith(("_ms", "_s"))}
    return [comparable(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "recall", "sample": IMAGES},
        {"type": "labels", "sample": IMAGES},
        {"type": "robustness", "sample": IMAGES, "alterations": ["crop_50", "mirror"]},
    ],
    ids=lambda wanted: str(wanted["type"]),
)
def test_an_evaluation_that_is_taken_over_in_every_step_reports_what_an_undisturbed_one_does(
    context: Context, wanted: dict[str, Any]
) -> None:
    request = EvaluationRequest.model_validate({"collection": NAME, **wanted})
    alone = work_off(context, context.jobs.create(JobKind.EVALUATION, request)[0].id)
    record, deaths = disturbed(context, request)
    assert deaths >= 2
    assert record.state is alone.state is JobState.SUCCEEDED, (alone.error, record.error)
    assert comparable(record.result) == comparable(alone.result)
    assert (record.progress.done, record.progress.total) == (alone.progress.done, alone.progress.total)
    assert context.artifacts.of(record.id)[0].name == context.artifacts.of(alone.id)[0].name
    context.vectors.drop(NAME)
