"""Re-embedding: the images of a collection, listed from the model that serves it, for the vectors of another one.

It is an ingest whose source is the collection itself, and whose claims are aimed at the other model's vectors. In its
second phase, when all chunks are done, it removes what the collection has lost meanwhile, and then has the other model
serve, where that was asked for: nothing is behind it but the end of the job.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from lookalike.errors import JobExpired, JobNotFound, ReembeddingIncomplete
from lookalike.jobstore import Change, IngestItem, PlanClaim, Planned
from lookalike.listing import Listed
from lookalike.records import CollectionSource, IngestRequest
from lookalike.vectorstore import StoredImage, physical_name
from lookalike_worker.context import Context
from lookalike_worker.ingest.comparing import Verdict
from lookalike_worker.ingest.ledger import holds

PAGE_IMAGES: Final = 1_000

#: Hands a chunk to the job store; see `Planner.add`.
Add = Callable[[PlanClaim, list[IngestItem], str | None, Planned], int | None]


def list_images(
    context: Context, request: IngestRequest, source: CollectionSource, *, after: str | None, keep: Callable[[], None]
) -> Iterator[Verdict]:
    """List the images that are stored, by id, each with what it is to the vectors at `request.collection`."""
    origin = physical_name(source.collection, source.model)
    while True:
        keep()
        page = context.vectors.matching(origin, after=after, limit=PAGE_IMAGES)
        if not page:
            return
        there = context.vectors.known(request.collection, [image.id for image in page])
        for image in page:
            listed = Listed(image.uri, image.name, image.id, size=image.size, metadata=image.metadata)
            yield listed, _change(image, there.get(image.id))
        after = page[-1].id


def _change(image: StoredImage, there: StoredImage | None) -> Change | None:
    if there is None:
        return Change.ADDED
    return None if there.sha256 == image.sha256 and holds(there.metadata, image.metadata) else Change.CHANGED


def finish(context: Context, claim: PlanClaim, source: CollectionSource, *, keep: Callable[[], None], add: Add) -> bool:
    """Remove what the collection has lost meanwhile, and switch if that is asked for; False where it was stopped.

    Raises `ReembeddingIncomplete` where a switch is asked for and images failed.
    """
    serving = context.vectors.collection(source.collection).model
    if serving and serving.fingerprint == claim.request.model:
        return True  # By this job, whose worker died before it could say so, or by somebody else.
    if not _remove_lost(context, claim, source, keep, add):
        return False
    if source.switch:
        failed = context.jobs.get(claim.job_id).progress.failed
        if failed and not source.allow_missing:
            raise ReembeddingIncomplete(
                f"{failed} images could not be embedded with the new model, so the old one serves on. The failures say "
                "why; retry them and re-embed again, or allow that they are missing."
            )
        # What was ingested meanwhile is stored by jobs of its own, which may not be through.
        context.vectors.switch(source.collection, claim.request.model or "", force=source.allow_missing)
    return True


def _remove_lost(
    context: Context, claim: PlanClaim, source: CollectionSource, keep: Callable[[], None], add: Add
) -> bool:
    """Delete what a re-embedding stored of images that were deleted since it had listed them."""
    origin, after = physical_name(source.collection, source.model), claim.cursor

    @cache
    def is_ours(job_id: str) -> bool:
        # An ingest stores with each model in a job of its own, and the one that serves may come last.
        try:
            return dict(context.jobs.get(job_id).request.get("source", {})).get("type") == source.type
        except (JobExpired, JobNotFound):
            return True

    while page := context.vectors.matching(claim.request.collection, after=after, limit=PAGE_IMAGES):
        keep()
        there = context.vectors.known(origin, [image.id for image in page])
        lost = [image.id for image in page if image.id not in there and is_ours(image.job)]
        if lost:
            context.vectors.delete(claim.request.collection, lost)
        after = page[-1].id
        if add(claim, [], after, Planned(removed=len(lost))) is None:
            return False
    return True
