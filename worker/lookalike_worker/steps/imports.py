"""Imports: the rows of an export into a collection, a bounded number with each step, without embedding anything."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import (
    CollectionExists,
    CollectionNotFound,
    ExportInvalid,
    ImageError,
    InvalidRequest,
    LookalikeError,
    ModelMismatch,
    VectorStoreRejected,
)
from lookalike.exports import ExportedRow, ExportHeader, ExportReader, stored_image, usable_vector
from lookalike.jobstore import Step, StepClaim
from lookalike.records import CollectionRequest, Failure, ImportRequest, ImportResult, ModelInfo, Stage
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.steps.import_files import files_of

STEP_IMAGES: Final = 1_000

_Pair = tuple[ExportedRow, StoredImage, NDArray[np.float32]]


def import_collection(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Make the collection ready first, then store a page of rows with each step.

    Rows replace what is stored under their ids, so a step that is done twice stores the same.
    """
    request = claim.request
    assert isinstance(request, ImportRequest)  # noqa: S101
    reader = ExportReader(files_of(context, request, keep))
    if claim.checkpoint is None:
        return _begin(context, request, reader)
    checkpoint = claim.checkpoint
    header = ExportHeader.model_validate(checkpoint["header"])
    stored, failed = checkpoint["stored"], checkpoint["failed"]
    if header.model is None:
        return Step(result=_result(request, header, stored, failed))
    _check_bound(context, request.collection, header.model)
    rows, cursor = reader.page(header, checkpoint["cursor"], limit=STEP_IMAGES, keep=keep)
    if not rows:
        _check_complete(header, stored + failed)
        return Step(total=stored + failed, result=_result(request, header, stored, failed))
    good, failures = _checked(rows, header.model.dim, claim.job_id)
    keep()
    failures += _store(context, request.collection, good, keep)
    done = len(rows) - len(failures)
    following = {**checkpoint, "cursor": dict(cursor), "stored": stored + done, "failed": failed + len(failures)}
    return Step(processed=done, failures=tuple(failures), checkpoint=following)


def _begin(context: Context, request: ImportRequest, reader: ExportReader) -> Step:
    header = reader.header()
    total = reader.count(header)
    _make_ready(context, request.collection, header)
    checkpoint: dict[str, Any] = {"header": header.model_dump(mode="json"), "cursor": {}, "stored": 0, "failed": 0}
    return Step(total=total, checkpoint=checkpoint)


def _make_ready(context: Context, name: str, header: ExportHeader) -> None:
    """Create a missing collection as the exported one was; raises `ModelMismatch` for one of another model."""
    vectors = context.vectors
    try:
        record = vectors.collection(name)
    except CollectionNotFound:
        try:
            record = vectors.create(CollectionRequest(name=name, metric=header.metric, index=header.index))
        except CollectionExists:  # Somebody was faster.
            record = vectors.collection(name)
    if record.tiles is not None:
        raise InvalidRequest(
            f"The collection {name} has tiles, which an export does not hold. Import into a collection without tiles, "
            "or ingest the images themselves."
        )
    if header.model is None:
        return
    if record.model is not None and record.model.fingerprint != header.model.fingerprint:
        raise ModelMismatch(
            f"The export was made with {_named(header.model)}, and the collection {name} with {_named(record.model)}. "
            "Import into a new collection, or into one of the same model."
        )
    vectors.bind(name, header.model)


def _check_bound(context: Context, name: str, model: ModelInfo) -> None:
    """Have this process write for the export's model; raises `CollectionNotFound` for what was deleted meanwhile."""
    context.vectors.collection(name)
    context.vectors.bind(name, model)


def _checked(rows: Sequence[ExportedRow], dim: int, job: str) -> tuple[list[_Pair], list[Failure]]:
    good: list[_Pair] = []
    failures: list[Failure] = []
    for row in rows:
        try:
            good.append((row, stored_image(row, job=job), usable_vector(row, dim)))
        except ImageError as error:
            failures.append(_failure(row, error, Stage.READ))
    return good, failures


def _store(context: Context, name: str, rows: Sequence[_Pair], keep: Callable[[], None]) -> list[Failure]:
    """Write rows; where Milvus refuses some for good, find those one by one and return what became of them."""
    if not rows:
        return []
    try:
        context.vectors.upsert(name, [image for _, image, _ in rows], np.stack([vector for _, _, vector in rows]))
    except VectorStoreRejected as error:
        keep()
        if len(rows) == 1:
            return [_failure(rows[0][0], error, Stage.STORE)]
        middle = len(rows) // 2
        return _store(context, name, rows[:middle], keep) + _store(context, name, rows[middle:], keep)
    return []


def _failure(row: ExportedRow, error: LookalikeError, stage: Stage) -> Failure:
    return Failure(uri=row.uri, code=error.code, message=error.message, stage=stage, name=row.place)


def _check_complete(header: ExportHeader, rows: int) -> None:
    if header.images is not None and rows < header.images:
        raise ExportInvalid(
            f"The export says that it has {header.images} images, and {rows} were there. Those are stored. "
            "Copy its files again, and import them once more."
        )


def _result(request: ImportRequest, header: ExportHeader, stored: int, failed: int) -> dict[str, Any]:
    result = ImportResult(
        collection=request.collection, images=stored + failed, stored=stored, failed=failed, model=header.model
    )
    return result.model_dump(mode="json")


def _named(model: ModelInfo) -> str:
    return f"{model.name} ({model.weights}, {model.fingerprint[:12]})"
