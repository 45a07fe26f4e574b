"""Deletion by filter: images are looked for in the order of their ids, and deleted a page at a time."""

from collections.abc import Callable, Sequence

from lookalike.jobstore import Step, StepClaim
from lookalike.records import DeletionRequest, DeletionResult
from lookalike_worker.context import Context

PAGE_IMAGES = 1_000


def delete_matching(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Count what the filter matches first, then with each step delete a page of it and look for the next.

    The page stands in the checkpoint, so that a step that is done twice counts what it deletes as it did before. What
    is stored while the job runs is deleted only where its id comes after those that were looked at.
    """
    request = claim.request
    assert isinstance(request, DeletionRequest)  # noqa: S101
    if claim.checkpoint is None:
        matched = context.vectors.count_matching(request.collection, request.filter)
        if request.dry_run:
            return Step(total=matched, processed=matched, result=_result(request, matched, 0))
        return Step(total=matched, checkpoint={"matched": matched, "deleted": 0, "page": _page(context, request, None)})
    page, matched, deleted = (claim.checkpoint[name] for name in ("page", "matched", "deleted"))
    if not page:
        return Step(total=deleted, result=_result(request, max(matched, deleted), deleted))
    spared = _spared(context, request, page)
    gone = [image_id for image_id in page if image_id not in spared]
    context.vectors.delete(request.collection, gone)
    keep()
    following = _page(context, request, page[-1])
    deleted += len(gone)
    return Step(processed=len(gone), checkpoint={"matched": matched, "deleted": deleted, "page": following})


def _spared(context: Context, request: DeletionRequest, page: Sequence[str]) -> set[str]:
    """Return what is stored and matches no more: the job may have been paused since the page was looked up."""
    stored = set(context.vectors.known(request.collection, page))
    return stored - context.vectors.matching_among(request.collection, request.filter, page)


def _page(context: Context, request: DeletionRequest, after: str | None) -> Sequence[str]:
    page = context.vectors.matching(request.collection, request.filter, after=after, limit=PAGE_IMAGES)
    return [image.id for image in page]


def _result(request: DeletionRequest, matched: int, deleted: int) -> dict[str, object]:
    result = DeletionResult(collection=request.collection, dry_run=request.dry_run, matched=matched, deleted=deleted)
    return result.model_dump(mode="json")
