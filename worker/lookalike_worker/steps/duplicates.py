"""Duplicates: images that are the same, by their bytes, by their picture, or by their vectors, in clusters.

    scan -> pairs (by picture: look-ups; by vector: pages of searches) -> merge -> write -> delete -> sheet

Each phase is done in steps. A step leaves arrays for the next in the job's state and little in its checkpoint, so
that one that is done twice leaves the same. A worker holds some hundred bytes for each image, and a page of what it
reads.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ModelMismatch
from lookalike.jobstore import Step, StepClaim
from lookalike.picture_hash import PICTURE_HASH
from lookalike.records import Collection, DuplicateLevel, DuplicatesRequest, DuplicatesResult, Metric
from lookalike.records.duplicates import NEAR_COSINE
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.forest import Forest
from lookalike_worker.hamming import Neighbours, Place
from lookalike_worker.steps.duplicates_files import Found, write_page, write_sheet
from lookalike_worker.steps.duplicates_keeping import Clusters, choose
from lookalike_worker.steps.duplicates_state import ROW, Array, State, image_ids

PAGE_IMAGES = 1_000  #: With the largest metadata a page stays below Milvus' 100 MB.
SCAN_PAGES = 4  #: Of one step.
PAGE_VECTORS = 256  #: Searched with in one step.
FIRST_LIMIT = 32  #: Neighbours looked for; where all of them are near enough, more of them, up to...
MOST_LIMIT = 1_024
_HITS: Final = 32_768  #: Of one call.
WRITE_IMAGES = 500  #: As many vectors as are looked up together.
_NO_ADDRESS: Final = "\U0010ffff"  #: After all others: of an image that was deleted meanwhile.

Keep = Callable[[], None]
_Edges = NDArray[np.int32]


@dataclass(frozen=True)
class _Turn:
    """One step: what it is of, what it begins from, and where it leaves things."""

    context: Context
    request: DuplicatesRequest
    job_id: str
    at: Mapping[str, Any]
    state: State
    keep: Keep

    def then(self, phase: str, **changes: Any) -> dict[str, Any]:
        """Return the checkpoint for the next step."""
        return {**self.at, "phase": phase, **changes}


def find_duplicates(context: Context, claim: StepClaim, keep: Keep) -> Step:
    """Do the next step of the phase that the job is in."""
    request = claim.request
    assert isinstance(request, DuplicatesRequest)  # noqa: S101
    model = context.vectors.collection(request.collection).model
    fingerprint = model and model.fingerprint
    at = claim.checkpoint or {
        **{"phase": "scan", "after": None, "parts": 0, "pairs": 0, "deleted": 0},
        "model": fingerprint,
    }
    if request.level is DuplicateLevel.NEAR and at["model"] != fingerprint:
        raise ModelMismatch(
            "The collection changed its model while it was looked through. Ask for its duplicates again."
        )
    return _PHASES[at["phase"]](_Turn(context, request, claim.job_id, at, State(context, claim.job_id), keep))


# --- Scan ---


def _scan(turn: _Turn) -> Step:
    vectors, name, after = turn.context.vectors, turn.request.collection, turn.at["after"]
    total = vectors.count(name) if after is None else None
    pages: list[Array] = [np.zeros(0, ROW)]
    is_over = False
    while len(pages) <= SCAN_PAGES and not is_over:
        turn.keep()
        page = vectors.matching(name, after=after, limit=PAGE_IMAGES)
        pages.append(_rows_of(page))
        after, is_over = (page[-1].id, False) if page else (after, True)
    rows = np.concatenate(pages)
    turn.state.save("rows", rows, part=turn.at["parts"])
    following = turn.then("scan", after=after, parts=turn.at["parts"] + 1)
    if is_over:
        begin = {"lookup": 0, "row": 0} if turn.request.level is DuplicateLevel.PICTURE else {"row": 0}
        following |= {"phase": turn.request.level.value, **begin}
    is_near = turn.request.level is DuplicateLevel.NEAR  # Those images are done once their neighbours are known.
    return Step(total=total, processed=0 if is_near else len(rows), checkpoint=following)


def _rows_of(images: Sequence[StoredImage]) -> Array:
    rows = np.zeros(len(images), ROW)
    for row, image in zip(rows, images, strict=True):
        hashed = PICTURE_HASH.fullmatch(image.picture_hash) is not None
        row["id"] = bytes.fromhex(image.id)
        row["sha256"] = np.frombuffer(bytes.fromhex(image.sha256), "<u8")
        row["hash"], row["hashed"] = (int(image.picture_hash, 16), True) if hashed else (0, False)
        row["size"], row["mtime_ns"], row["pixels"] = image.size, image.mtime_ns, image.width * image.height
    return rows


# --- Pairs ---


def _by_content(turn: _Turn) -> Step:
    _save_pairs(turn, *_equal(turn.state.rows(turn.at["parts"])))
    return Step(checkpoint=turn.then("merge", pairs=1))


def _equal(rows: Array) -> tuple[_Edges, _Edges]:
    """Pair each row with the next of the same bytes."""
    words = rows["sha256"]
    order = np.lexsort(tuple(words.T)).astype(np.int32)
    same = (words[order[1:]] == words[order[:-1]]).all(axis=1)
    return order[:-1][same], order[1:][same]


def _by_picture(turn: _Turn) -> Step:
    rows = turn.state.rows(turn.at["parts"])
    hashed = np.flatnonzero(rows["hashed"]).astype(np.int32)
    hashes, firsts, of = np.unique(rows["hash"][hashed], return_index=True, return_inverse=True)
    place = Place(turn.at["lookup"], turn.at["row"])
    left, right, following = Neighbours(hashes, turn.request.max_bits).find(place)
    left, right = hashed[firsts[left]], hashed[firsts[right]]
    if place == Place():  # Equal hashes are looked up as one.
        left, right = np.concatenate([left, hashed[firsts[of]]]), np.concatenate([right, hashed])
    _save_pairs(turn, left, right, size=len(rows))
    if following is None:
        return Step(checkpoint=turn.then("merge", pairs=turn.at["pairs"] + 1))
    where = {"lookup": following.lookup, "row": following.row}
    return Step(checkpoint=turn.then("picture", pairs=turn.at["pairs"] + 1, **where))


def _by_vector(turn: _Turn) -> Step:
    vectors, name, begin = turn.context.vectors, turn.request.collection, turn.at["row"]
    rows = turn.state.rows(turn.at["parts"])
    page = rows[begin : begin + PAGE_VECTORS]
    left, right = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    if not begin:  # The same bytes have the same vector, of however many rows.
        one, other = _equal(rows)
        left, right = [one], [other]
    found = vectors.vectors(name, image_ids(page))
    turn.keep()
    numbers = [number for number, image_id in enumerate(image_ids(page)) if image_id in found]
    if numbers:
        ids = image_ids(page[numbers])
        record = vectors.collection(name)
        queries = np.stack([found[image_id] for image_id in ids])
        for query, near in _near(turn, record, queries):
            digests = np.array([bytes.fromhex(image_id) for image_id in near], "S16")
            places = np.searchsorted(rows["id"], digests)
            known = places < len(rows)
            known[known] = rows["id"][places[known]] == digests[known]
            left.append(np.full(int(known.sum()), begin + numbers[query], np.int32))
            right.append(places[known].astype(np.int32))
    _save_pairs(turn, np.concatenate(left), np.concatenate(right), size=len(rows))
    is_over = begin + len(page) >= len(rows)
    following = turn.then("merge" if is_over else "near", pairs=turn.at["pairs"] + 1, row=begin + len(page))
    return Step(processed=len(page), checkpoint=following)


def _near(turn: _Turn, record: Collection, queries: NDArray[np.float32]) -> Iterable[tuple[int, list[str]]]:
    """Yield for each query the ids of those within the threshold, of the closest 1,024.

    Only of those that have more neighbours than were asked for, more are.
    """
    farthest = _farthest(turn.request, record.metric)
    if farthest is None:
        return
    waiting, limit = list(range(len(queries))), FIRST_LIMIT
    while waiting:
        full: list[int] = []
        together = max(1, _HITS // limit)
        for start in range(0, len(waiting), together):
            some = waiting[start : start + together]
            turn.keep()
            answers = turn.context.vectors.within(turn.request.collection, queries[some], farthest, limit=limit)
            for query, hits in zip(some, answers, strict=True):
                if len(hits) == limit and limit < MOST_LIMIT:
                    full.append(query)
                else:
                    yield query, [image_id for image_id, _ in hits]
        waiting, limit = full, min(8 * limit, MOST_LIMIT)


def _farthest(request: DuplicatesRequest, metric: Metric) -> float | None:
    """Return the distance of the farthest that counts, None where none does."""
    if request.max_distance is not None:
        return request.max_distance
    least = NEAR_COSINE if request.min_score is None else request.min_score
    if metric is not Metric.L2:
        return least
    # The score of a squared distance d is 1 / (1 + d): above 0, and 1 at most.
    return None if least > 1 else float(np.finfo(np.float32).max) if least <= 0 else 1 / least - 1


def _save_pairs(turn: _Turn, left: _Edges, right: _Edges, *, size: int | None = None) -> None:
    """Keep what pairs say of who belongs together: each thing with the first of its own, however many the pairs are."""
    if size is not None:
        forest = Forest(size)
        forest.join(left, right)
        roots = forest.roots()
        right = np.flatnonzero(roots != np.arange(size)).astype(np.int32)
        left = roots[right]
    turn.state.save("pairs", np.stack([left, right]).astype(np.int32), part=turn.at["pairs"])


# --- Clusters ---


def _merge(turn: _Turn) -> Step:
    rows = turn.state.rows(turn.at["parts"])
    forest = Forest(len(rows))
    for left, right in turn.state.parts("pairs", turn.at["pairs"]):
        turn.keep()
        forest.join(left, right)
    clusters = choose(forest.roots(), rows, turn.request.keep)
    clusters.save(turn.state, 0)
    is_kept = np.zeros(len(clusters.members), np.bool_)
    is_kept[clusters.starts[:-1]] = True
    counted = {
        "looked_at": len(rows),
        "clusters": len(clusters.starts) - 1,
        "images": len(clusters.members),
        "largest_cluster": int(np.diff(clusters.starts).max(initial=0)),
        "deletable": int((~is_kept).sum()),
        "deletable_bytes": int(rows["size"][clusters.members[~is_kept]].sum()),
        "unhashed": int((~rows["hashed"]).sum()) if turn.request.level is DuplicateLevel.PICTURE else 0,
    }
    phase = "first" if turn.request.keep.value == "first" else "write"
    return Step(checkpoint=turn.then(phase, counted=counted, member=0, best=None, firsts=0, version=0))


def _first(turn: _Turn) -> Step:
    """Choose keepers by address, a page of members at a time; a cluster may reach over pages."""
    rows, clusters, begin = turn.state.rows(turn.at["parts"]), Clusters.load(turn.state, 0), turn.at["member"]
    members = clusters.members[begin : begin + WRITE_IMAGES]
    ids = image_ids(rows[members])
    stored = turn.context.vectors.known(turn.request.collection, ids)
    best: tuple[int, str, int] | None = turn.at["best"]  # Cluster, address, place among the members.
    firsts: list[tuple[int, int]] = []
    for place, (image_id, cluster) in enumerate(zip(ids, clusters.of(begin, len(ids)).tolist(), strict=True), begin):
        uri = stored[image_id].uri if image_id in stored else _NO_ADDRESS
        if best and best[0] != cluster:
            firsts.append((best[0], best[2]))
        if best is None or best[0] != cluster or uri < best[1]:
            best = (cluster, uri, place)
    is_over = begin + len(members) >= len(clusters.members)
    if is_over and best:
        firsts.append((best[0], best[2]))
    turn.state.save("firsts", np.array(firsts, np.int64).reshape(-1, 2), part=turn.at["firsts"])
    if not is_over:
        return Step(checkpoint=turn.then("first", member=begin + len(ids), best=best, firsts=turn.at["firsts"] + 1))
    for pairs in turn.state.parts("firsts", turn.at["firsts"] + 1):
        clusters.put_first(*pairs.T)
    clusters.save(turn.state, 1)
    return Step(checkpoint=turn.then("write", member=0, best=None, version=1))


def _write(turn: _Turn) -> Step:
    rows, clusters, begin = (
        turn.state.rows(turn.at["parts"]),
        Clusters.load(turn.state, turn.at["version"]),
        turn.at["member"],
    )
    count = min(WRITE_IMAGES, len(clusters.members) - begin)
    write_page(Found(turn.context, turn.job_id, turn.request, rows, clusters), begin, count)
    if begin + count < len(clusters.members):
        return Step(checkpoint=turn.then("write", member=begin + count))
    is_deleting = turn.request.delete and not turn.request.dry_run
    return Step(checkpoint=turn.then("delete" if is_deleting else "sheet", member=0, page=[]))


def _delete(turn: _Turn) -> Step:
    """Delete the page in the checkpoint, and look for the next: a step that is done twice counts what it did before."""
    vectors, name, page = turn.context.vectors, turn.request.collection, turn.at["page"]
    gone = []
    if page:
        # The job may have been paused since: where the keeper is gone by now, what is left is not to follow it.
        keepers_left = vectors.known(name, [keeper_id for _, keeper_id in page])
        gone = [image_id for image_id, keeper_id in page if keeper_id in keepers_left]
        vectors.delete(name, gone)
        turn.keep()
    rows, clusters, begin = (
        turn.state.rows(turn.at["parts"]),
        Clusters.load(turn.state, turn.at["version"]),
        turn.at["member"],
    )
    members = clusters.members[begin : begin + WRITE_IMAGES]
    keepers = clusters.members[clusters.starts[clusters.of(begin, len(members))]]
    ids, kept = image_ids(rows[members]), image_ids(rows[keepers])
    stored = vectors.known(name, [*ids, *kept])

    def is_as_seen(image_id: str, number: int) -> bool:
        image = stored.get(image_id)
        return image is not None and bytes.fromhex(image.sha256) == rows["sha256"][number].tobytes()

    following = [
        [image_id, keeper_id]
        for image_id, member, keeper_id, keeper in zip(ids, members, kept, keepers, strict=True)
        if member != keeper and is_as_seen(image_id, member) and is_as_seen(keeper_id, keeper)
    ]
    deleted = turn.at["deleted"] + len(gone)
    is_over = begin >= len(clusters.members)
    phase = "sheet" if is_over else "delete"
    return Step(checkpoint=turn.then(phase, deleted=deleted, page=following, member=begin + len(members)))


def _sheet(turn: _Turn) -> Step:
    rows, clusters = turn.state.rows(turn.at["parts"]), Clusters.load(turn.state, turn.at["version"])
    write_sheet(Found(turn.context, turn.job_id, turn.request, rows, clusters), turn.keep)
    return Step(checkpoint=turn.then("end"))


def _end(turn: _Turn) -> Step:
    """Sum up; a step of its own, as the one before may have to be done again with what this one drops."""
    turn.state.clear()
    request, counted = turn.request, turn.at["counted"]
    note = ""
    if counted["unhashed"]:
        note = (
            f"{counted['unhashed']} images have no perceptual hash: they were stored before there was one, and were "
            "not compared. Ingest them again with `checksum`: they are decoded anew, and not embedded."
        )
    result = DuplicatesResult(
        collection=request.collection,
        level=request.level,
        keep=request.keep,
        dry_run=request.dry_run,
        deleted=turn.at["deleted"],
        note=note,
        **counted,
    )
    return Step(total=counted["looked_at"], result=result.model_dump(mode="json"))


_PHASES: Final[Mapping[str, Callable[[_Turn], Step]]] = {
    "scan": _scan,
    "content": _by_content,
    "picture": _by_picture,
    "near": _by_vector,
    "merge": _merge,
    "first": _first,
    "write": _write,
    "delete": _delete,
    "sheet": _sheet,
    "end": _end,
}
