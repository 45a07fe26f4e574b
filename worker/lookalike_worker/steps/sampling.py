"""Sampling: images of a collection, one from each of as many equal stretches of it in the order of ids.

Ids are digests, so their order has nothing to do with what the images show. Walks the whole collection, some pages with
each step; on the way it can count the values of a metadata field.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.jobstore import Step, StepClaim
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.steps.scratch import Scratch

STEP_S: Final = 1.0
PAGE_IMAGES: Final = 4_000
MAX_VALUES: Final = 100_000  #: Of the field that is counted: what groups images has fewer.

SAMPLING: Final = "sampling"  #: The phase in a checkpoint.
SAMPLED: Final = "sampled"  #: The phase that follows; its scratch has `images`, and `values` where a field is counted.


def begin(context: Context, claim: StepClaim) -> Step:
    """Count the collection; raises `CollectionNotFound`, and `InvalidParameter` for one of less than two images."""
    rows = context.vectors.count(claim.request.collection)
    if rows < 2:
        raise InvalidParameter(f"The collection has {rows} images, and two are the least. Ingest some first.")
    Scratch(context, claim.job_id).save(0, {"images": [], "values": {}})
    return Step(checkpoint={"phase": SAMPLING, "step": 0, "rows": rows, "seen": 0, "after": None})


def go_on(
    context: Context,
    claim: StepClaim,
    keep: Callable[[], None],
    *,
    wanted: int,
    seed: int,
    field: str | None = None,
) -> Step:
    """Walk on for about a second. With the last page the phase becomes `SAMPLED`."""
    state: Mapping[str, Any] = claim.checkpoint or {}
    name, after, seen = claim.request.collection, state["after"], state["seen"]
    scratch = Scratch(context, claim.job_id)
    info, _ = scratch.load(state["step"])
    values = Counter(info["values"])
    chosen = set(ranks(state["rows"], wanted, seed).tolist())
    phase, until_s = SAMPLING, time.monotonic() + STEP_S
    while phase == SAMPLING and time.monotonic() < until_s:
        keep()
        page = context.vectors.matching(name, None, after=after, limit=PAGE_IMAGES)
        info["images"] += [_kept(image, field) for rank, image in enumerate(page, seen) if rank in chosen]
        if field is not None:
            values.update(str(image.metadata[field]) for image in page if field in image.metadata)
        if len(values) > MAX_VALUES:
            raise InvalidParameter(f"The field {field} has over {MAX_VALUES} values. Name one that groups images.")
        if page:
            after, seen = page[-1].id, seen + len(page)
        else:
            phase = SAMPLED
    scratch.save(state["step"] + 1, {"images": info["images"], "values": values})
    checkpoint = {"phase": phase, "step": state["step"] + 1, "rows": state["rows"], "seen": seen, "after": after}
    return Step(checkpoint=checkpoint)


def ranks(rows: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Choose `wanted` of `rows` numbers, one at random from each of as many stretches; all where there are no more."""
    if rows <= wanted:
        return np.arange(rows)
    edges = np.arange(wanted + 1) * rows // wanted
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _kept(image: StoredImage, field: str | None) -> dict[str, Any]:
    kept = {"id": image.id, "uri": image.uri, "name": image.name, "sha256": image.sha256}
    if field is not None and field in image.metadata:
        kept["value"] = str(image.metadata[field])
    return kept
