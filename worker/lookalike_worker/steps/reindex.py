"""Reindexing: a collection gets another index, or other search parameters, in one step that can be repeated."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from lookalike.jobstore import Step, StepClaim
from lookalike.records import ReindexRequest, ReindexResult
from lookalike_worker.context import Context
from lookalike_worker.keeping import result_of


def reindex(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Have the index built in a thread, while this one keeps the claim: it may take longer than a lease.

    A cancel comes too late for an index that is being built: that is waited for.
    """
    request = claim.request
    assert isinstance(request, ReindexRequest)  # noqa: S101
    work = partial(
        context.vectors.reindex,
        request.collection,
        index=request.index,
        build=request.build,
        search=request.search,
        offline=request.offline,
    )
    with ThreadPoolExecutor(1, thread_name_prefix="reindex") as pool:
        done = result_of(pool.submit(work), keep)
    result = ReindexResult(
        collection=request.collection,
        index=done.index,
        index_type=done.chosen.index_type,
        params=done.chosen.params,
        search=done.chosen.search,
        reason=done.chosen.reason,
        rebuilt=done.rebuilt,
    )
    return Step(result=result.model_dump(mode="json"))
