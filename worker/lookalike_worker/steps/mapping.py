"""A map of a collection: a sample of its images in the plane of their two principal components."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.jobstore import Step, StepClaim
from lookalike.records import ImageMap, MapPoint, MapRequest, MapResult
from lookalike_worker.context import Context
from lookalike_worker.measures import plane
from lookalike_worker.steps import sampling
from lookalike_worker.steps.scratch import Scratch

FILE: Final = "map.json"
SLICE_IMAGES: Final = 500
_DIGITS: Final = 5


def draw_map(context: Context, claim: StepClaim, keep: Callable[[], None]) -> Step:
    """Take the sample; then, in one step, its vectors, of which a map has ten thousand at most, and their plane."""
    request = claim.request
    assert isinstance(request, MapRequest)  # noqa: S101
    if claim.checkpoint is None:
        return sampling.begin(context, claim)
    if claim.checkpoint["phase"] == sampling.SAMPLING:
        return sampling.go_on(context, claim, keep, wanted=request.limit, seed=request.seed)
    info, _ = Scratch(context, claim.job_id).load(claim.checkpoint["step"])
    return _draw(context, claim, request, info, keep)


def _draw(
    context: Context, claim: StepClaim, request: MapRequest, info: Mapping[str, Any], keep: Callable[[], None]
) -> Step:
    ids = [image["id"] for image in info["images"]]
    vectors: dict[str, NDArray[np.float32]] = {}
    for first in range(0, len(ids), SLICE_IMAGES):
        keep()
        vectors |= context.vectors.vectors(request.collection, ids[first : first + SLICE_IMAGES])
    if len(vectors) < 2:
        raise InvalidParameter("The images of the sample were deleted meanwhile. Make the map again.")
    keep()
    metric = context.vectors.collection(request.collection).metric
    points, shares = plane(np.stack(list(vectors.values())), metric, request.seed)
    keep()
    rounded = np.round(points, _DIGITS).tolist()
    explained = (round(shares[0], _DIGITS), round(shares[1], _DIGITS))
    drawn = ImageMap(
        points=tuple(MapPoint(id=name, x=x, y=y) for name, (x, y) in zip(vectors, rounded, strict=True)),
        explained=explained,
    )
    context.artifacts.write(claim.job_id, FILE, drawn.model_dump_json().encode())
    rows = (claim.checkpoint or {})["rows"]
    result = MapResult(collection=request.collection, images=len(vectors), rows=rows, explained=explained)
    return Step(total=len(vectors), processed=len(vectors), result=result.model_dump(mode="json"))
