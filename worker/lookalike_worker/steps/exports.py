"""Exports: a collection's images with their vectors into files of the job, a bounded number with each step."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.exports import ExportHeader
from lookalike.exports.npy import image_lines, npy_header, npy_values
from lookalike.exports.parquet import FILE_NAME, writing_parquet
from lookalike.jobstore import Step, StepClaim
from lookalike.records import ExportFormat, ExportRequest, ExportResult
from lookalike.records.exports import HEADER_FILE, IMAGES_FILE, VECTORS_FILE
from lookalike.vectorstore import StoredImage, physical_name
from lookalike_worker.context import Context

STEP_IMAGES = 2_000  #: 16 MB of vectors in a Parquet file; a million images are 500 files.
PAGE_IMAGES = 500  #: Milvus Lite makes Python floats of vectors, half a second's worth of these.

_Page = tuple[list[StoredImage], NDArray[np.float32]]


def export_collection(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Count what is to be exported, then write a part with each step, and the header last.

    A part is written whole in the place of what an earlier try left, so a step that is done twice leaves one.
    """
    request = claim.request
    assert isinstance(request, ExportRequest)  # noqa: S101
    if claim.checkpoint is None:
        return _begin(context, request)
    header = ExportHeader.model_validate(claim.checkpoint["header"])
    if header.model is None:
        return _finish(context, claim, header, images=0, files=0)
    part, done, after = (claim.checkpoint[name] for name in ("part", "done", "after"))
    pages = _Pages(context, request, header, after, keep)
    write = _write_npy if request.format is ExportFormat.NPY else _write_parquet
    write(context, claim.job_id, header, part, pages)
    done += pages.images
    if pages.ended:
        step = _finish(context, claim, header, images=done, files=part + bool(pages.images))
        return Step(total=done, processed=pages.images, result=step.result)
    checkpoint = {**claim.checkpoint, "part": part + 1, "done": done, "after": pages.after}
    return Step(processed=pages.images, checkpoint=checkpoint)


def _begin(context: Context, request: ExportRequest) -> Step:
    vectors = context.vectors
    record = vectors.collection(request.collection)
    if request.filter is None:
        total = vectors.count(request.collection)
    else:
        total = vectors.count_matching(request.collection, request.filter)
    header = ExportHeader.of(record, request.format, request.filter, context.jobs.now())
    checkpoint: Mapping[str, Any] = {"header": header.model_dump(mode="json"), "part": 0, "done": 0, "after": None}
    return Step(total=total, checkpoint=checkpoint)


class _Pages:
    """The pages of one step, read one at a time."""

    def __init__(
        self,
        context: Context,
        request: ExportRequest,
        header: ExportHeader,
        after: str | None,
        keep: Callable[[], None],
    ) -> None:
        assert header.model is not None  # noqa: S101
        self._context, self._filter, self._keep = context, request.filter, keep
        # By this address the vectors stay those of one model, whichever comes to serve the collection meanwhile.
        self._address = physical_name(request.collection, header.model.fingerprint)
        self.after = after
        self.images = 0
        self.ended = False

    def __iter__(self) -> Iterator[_Page]:
        while self.images < STEP_IMAGES:
            self._keep()
            images, vectors = self._context.vectors.matching_vectors(
                self._address, self._filter, after=self.after, limit=min(PAGE_IMAGES, STEP_IMAGES - self.images)
            )
            if not images:
                self.ended = True
                return
            self.after = images[-1].id
            self.images += len(images)
            yield images, vectors


def _write_parquet(context: Context, job_id: str, header: ExportHeader, part: int, pages: _Pages) -> None:
    assert header.model is not None  # noqa: S101
    name = FILE_NAME.format(part)
    with (
        context.artifacts.writing(job_id, name) as file,
        writing_parquet(file, header, header.model.dim) as write,
    ):
        for images, vectors in pages:
            write(images, vectors)
    if not pages.images:
        context.artifacts.discard(job_id, name)


def _write_npy(context: Context, job_id: str, header: ExportHeader, part: int, pages: _Pages) -> None:
    assert header.model is not None  # noqa: S101
    # Part 0 of the matrix is its header, which is written last.
    with (
        context.artifacts.writing(job_id, VECTORS_FILE, part=part + 1) as matrix,
        context.artifacts.writing(job_id, IMAGES_FILE, part=part) as lines,
    ):
        for images, vectors in pages:
            matrix.write(npy_values(vectors))
            lines.write(image_lines(images))


def _finish(context: Context, claim: StepClaim, header: ExportHeader, *, images: int, files: int) -> Step:
    request = claim.request
    assert isinstance(request, ExportRequest)  # noqa: S101
    if header.model is not None and request.format is ExportFormat.NPY:
        context.artifacts.write(claim.job_id, VECTORS_FILE, npy_header(images, header.model.dim))
        files = 2
    whole = header.model_copy(update={"images": images, "files": files})
    context.artifacts.write(claim.job_id, HEADER_FILE, whole.model_dump_json(indent=2).encode() + b"\n")
    result = ExportResult(collection=request.collection, format=request.format, images=images, model=header.model)
    return Step(total=images, result=result.model_dump(mode="json"))
