"""The recall meter: what the index finds of what an exact search finds, and how long it takes, by search parameter.

The exact search is made here, with numpy, page by page of the collection: it shares nothing with the index but the
stored vectors. Then each setting is tried with one query at a time, as a user would.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.jobstore import Step, StepClaim
from lookalike.records import EvaluationRequest, Metric, RecallPoint, RecallReport
from lookalike.vectorstore.reindexing import IndexFacts
from lookalike_worker.context import Context
from lookalike_worker.measures import likeness, recall_at
from lookalike_worker.steps.sampling import SAMPLED, STEP_S
from lookalike_worker.steps.scratch import Arrays, Scratch

PAGE_IMAGES: Final = 500  #: Milvus Lite makes Python floats of so many vectors in half a second.
KEPT: Final = 128  #: Neighbours kept for each query: a hundred, and room for equals at the end.
HITS: Final = 10  #: Of the timed searches.
MOST_HITS: Final = 100
_DISTANCE_NOISE: Final = 1e-4  #: By which Milvus' distances differ from numpy's (decision 2).
_EFS: Final = (16, 32, 64, 128, 256, 512)
_MOST_CELLS: Final = 256  #: Looked into; beyond, an exact search is as quick.
_COMPARING: Final = "comparing"
_TRYING: Final = "trying"

Keep = Callable[[], None]


def measure_recall(
    context: Context, claim: StepClaim, request: EvaluationRequest, keep: Keep
) -> tuple[Step, RecallReport | None]:
    """Take the sample's vectors; compare them with all others; try each setting; report."""
    state: Mapping[str, Any] = claim.checkpoint or {}
    scratch = Scratch(context, claim.job_id)
    info, arrays = scratch.load(state["step"])
    if state["phase"] == SAMPLED:
        return _begin(context, request, state, info, scratch), None
    if state["phase"] == _COMPARING:
        return _compare(context, request, state, (info, arrays, scratch), keep), None
    return _try(context, request, state, (info, arrays, scratch), keep)


def _begin(
    context: Context, request: EvaluationRequest, state: Mapping[str, Any], info: dict[str, Any], scratch: Scratch
) -> Step:
    vectors = context.vectors.vectors(request.collection, [image["id"] for image in info["images"]])
    facts = context.vectors.index_of(request.collection)
    if not vectors or facts is None:
        raise InvalidParameter("The images of the sample were deleted meanwhile. Evaluate the collection again.")
    settings = grid(facts, request.grid)
    info = {"facts": _as_json(facts), "settings": settings}
    shape = (len(vectors), KEPT)
    arrays: Arrays = {
        "ids": np.array(list(vectors), dtype="S32"),
        "vectors": np.stack(list(vectors.values())),
        "best": np.full(shape, -np.inf),
        "best_ids": np.zeros(shape, dtype="S32"),
        "ms": np.zeros((len(settings), shape[0])),
        "recalls": np.zeros((len(settings), shape[0], 3)),
    }
    scratch.save(state["step"] + 1, info, arrays)
    checkpoint = {"phase": _COMPARING, "step": state["step"] + 1, "rows": state["rows"], "after": None}
    return Step(total=state["rows"] + len(settings) * shape[0], checkpoint=checkpoint)


def _compare(
    context: Context,
    request: EvaluationRequest,
    state: Mapping[str, Any],
    kept: tuple[dict[str, Any], Arrays, Scratch],
    keep: Keep,
) -> Step:
    info, arrays, scratch = kept
    metric, after, compared = Metric(info["facts"]["metric"]), state["after"], 0
    phase, until_s = _COMPARING, time.monotonic() + STEP_S
    while phase == _COMPARING and time.monotonic() < until_s:
        keep()
        page, vectors = context.vectors.matching_vectors(request.collection, None, after=after, limit=PAGE_IMAGES)
        if page:
            ids = np.array([image.id for image in page], dtype="S32")
            merge(arrays, ids, likeness(arrays["vectors"], vectors, metric))
            after, compared = page[-1].id, compared + len(page)
        else:
            phase = _TRYING
    scratch.save(state["step"] + 1, info, arrays)
    checkpoint = {"phase": phase, "step": state["step"] + 1, "rows": state["rows"], "after": after, "tried": 0}
    return Step(processed=compared, checkpoint=checkpoint)


def merge(arrays: Arrays, ids: NDArray[np.bytes_], nearness: NDArray[np.float64]) -> None:
    """Take the closest of a page, (q, n), in among the closest so far; an image is no neighbour of itself."""
    nearness = np.where(arrays["ids"][:, None] == ids[None, :], -np.inf, nearness)
    scores = np.concatenate([arrays["best"], nearness], axis=1)
    names = np.concatenate([arrays["best_ids"], np.broadcast_to(ids, nearness.shape)], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :KEPT]
    arrays["best"] = np.take_along_axis(scores, order, axis=1)
    arrays["best_ids"] = np.take_along_axis(names, order, axis=1)


def _try(
    context: Context,
    request: EvaluationRequest,
    state: Mapping[str, Any],
    kept: tuple[dict[str, Any], Arrays, Scratch],
    keep: Keep,
) -> tuple[Step, RecallReport | None]:
    """Try the settings on, a query at a time, for about a second."""
    info, arrays, scratch = kept
    queries, settings = len(arrays["ids"]), info["settings"]
    tried, until_s = state["tried"], time.monotonic() + STEP_S
    while tried < len(settings) * queries and time.monotonic() < until_s:
        keep()
        setting, query = divmod(tried, queries)
        params = settings[setting]
        vector = arrays["vectors"][query : query + 1]
        if query == 0:
            context.vectors.try_search(request.collection, vector, limit=HITS + 1, params=_with(params, HITS + 1))
        began_s = time.perf_counter()
        few = context.vectors.try_search(request.collection, vector, limit=HITS + 1, params=_with(params, HITS + 1))[0]
        arrays["ms"][setting, query] = 1000 * (time.perf_counter() - began_s)
        most = MOST_HITS + 1
        many = context.vectors.try_search(request.collection, vector, limit=most, params=_with(params, most))[0]
        arrays["recalls"][setting, query] = recalls(arrays, query, few, many, Metric(info["facts"]["metric"]))
        tried += 1
    processed = tried - state["tried"]
    if tried == len(settings) * queries:
        return Step(processed=processed), _report(request, info, arrays)
    scratch.save(state["step"] + 1, info, arrays)
    checkpoint = {"phase": _TRYING, "step": state["step"] + 1, "rows": state["rows"], "tried": tried}
    return Step(processed=processed, checkpoint=checkpoint), None


def recalls(
    arrays: Arrays,
    query: int,
    few: Sequence[tuple[str, float]],
    many: Sequence[tuple[str, float]],
    metric: Metric,
) -> tuple[float, float, float]:
    """Return recall@1 and @10 of the shorter answer, and @100 of the longer one, both without the query itself."""
    best = arrays["best"][query]
    exact = best[best > -np.inf]
    known = {name.decode(): score for name, score in zip(arrays["best_ids"][query], best, strict=True) if name}
    own = arrays["ids"][query].decode()

    def found(hits: Sequence[tuple[str, float]]) -> NDArray[np.float64]:
        return np.array([_nearness(hit, known, exact, metric) for hit in hits if hit[0] != own])

    short, long = found(few), found(many)
    return recall_at(1, exact, short), recall_at(HITS, exact, short), recall_at(MOST_HITS, exact, long)


def _nearness(hit: tuple[str, float], known: Mapping[str, float], exact: NDArray[np.float64], metric: Metric) -> float:
    """Say how close a hit is, exactly; one that is not among the nearest counts only where it ties with the last."""
    if hit[0] in known:
        return known[hit[0]]
    reported = -hit[1] if metric is Metric.L2 else hit[1]
    last = float(exact[-1]) if len(exact) else -np.inf
    return last if reported >= last - _DISTANCE_NOISE * max(1.0, abs(last)) else -np.inf


def grid(facts: IndexFacts, wanted: Sequence[int]) -> list[dict[str, int]]:
    """Return the settings to try, cheapest first, the collection's own among them; one without parameters if exact."""
    if facts.is_exact:
        return [dict(facts.chosen.search)]
    ((name, own),) = facts.chosen.search.items()
    cells = facts.chosen.params.get("nlist")
    usual = _EFS if cells is None else tuple(_doubled(cells))
    values = {*(wanted or usual), own}
    return [{name: value} for value in sorted(values) if cells is None or value <= cells]


def _doubled(cells: int) -> Iterator[int]:
    value = 1
    while value <= min(cells, _MOST_CELLS):
        yield value
        value *= 2


def _with(params: Mapping[str, int], limit: int) -> dict[str, int]:
    """HNSW looks at no fewer candidates than it is to return; as searches do it."""
    return {name: max(value, limit) if name == "ef" else value for name, value in params.items()}


def _report(request: EvaluationRequest, info: Mapping[str, Any], arrays: Arrays) -> RecallReport:
    own, settings = info["facts"]["search"], info["settings"]
    points = []
    for params, ms, shares in zip(settings, arrays["ms"], arrays["recalls"], strict=True):
        p50, p95 = np.percentile(ms, (50, 95))
        means = (round(float(mean), 6) for mean in shares.mean(axis=0))
        names = dict(zip(("recall_at_1", "recall_at_10", "recall_at_100"), means, strict=True))
        times = {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}
        is_exact = info["facts"]["is_exact"]
        points.append(
            RecallPoint(params={} if is_exact else params, default=is_exact or params == own, **names, **times)
        )
    reaching = [point.params for point in points if point.recall_at_10 >= request.target]
    return RecallReport(
        index_type=info["facts"]["index_type"],
        exact=info["facts"]["is_exact"],
        points=tuple(points),
        target=request.target,
        suggested=reaching[0] if reaching else None,
    )


def _as_json(facts: IndexFacts) -> dict[str, Any]:
    return {
        "index_type": facts.chosen.index_type,
        "search": facts.chosen.search,
        "metric": facts.metric.value,
        "is_exact": facts.is_exact,
    }
