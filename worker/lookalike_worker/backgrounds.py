"""The background of a collection: measured on a sample of its vectors, when it is new or has changed much.

docs/decisions/0015-scores.md says why it is done like this. What is concluded from a background is the record's own.
"""

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import LookalikeError
from lookalike.records import Background, Collection, Metric
from lookalike_worker.context import Context

log = logging.getLogger(__name__)

SAMPLE_ROWS: Final = 2_000  #: Two million pairs: what is rarer than one in 20,000 is the tail's to say.
FEWEST_ROWS: Final = 50  #: Of fewer there is nothing to say.
CHANGED_BY: Final = 1.5  #: A collection that grew, or shrank, by this factor is measured anew.
_PAGE_ROWS: Final = 500
_LADDER: Final = (1.0, 0.99, 0.95, *(tenths / 10 for tenths in range(9, 0, -1)), 0.05)
#: The tail begins where so many pairs are left: their share is known to a tenth.
_TAIL_PAIRS: Final = 100
#: And where true matches, of which a picture may have one or two, are a small part of what is so close.
_TAIL_MATCHES: Final = 5
_TAIL_SPAN: Final = 100.0  #: It is fitted to the pairs within so many times its share.
_TAIL_POINTS: Final = 16
_FARTHEST_Z: Final = 7.0  #: One pair in 10^12: up to there a tail has to go on.
_LENGTHS: Final = (1e-15, 1e15)  #: Of vectors.
_BLOCK_ROWS: Final = 500  #: Compared with all at a time.
_NORMAL: Final = NormalDist()


def refresh_background(context: Context, name: str) -> None:
    """Measure a collection's background if it has none that fits. For an ingest worker to call when a job ends."""
    try:
        collection = context.vectors.collection(name)
        if collection.model is None:
            return
        rows = context.vectors.count(name)
        if not is_due(collection, rows):
            return
        vectors, contents = _sample(context, name)
        background = measure(vectors, contents, collection.metric, rows=rows, fingerprint=collection.model.fingerprint)
        if background is not None:
            context.vectors.keep_background(name, background)
    except LookalikeError as error:
        log.warning("the background of collection %s is measured next time: %s", name, error)
    except Exception:  # What was just stored is not to suffer for what is said about it.
        log.exception("the background of collection %s could not be measured", name)


def is_due(collection: Collection, rows: int) -> bool:
    """Tell whether a collection of so many images needs a background, or another than it has."""
    known, model = collection.background, collection.model
    if known is None or model is None or known.fingerprint != model.fingerprint:
        return rows >= FEWEST_ROWS
    return not 1 / CHANGED_BY < rows / known.rows < CHANGED_BY


def _sample(context: Context, name: str) -> tuple[NDArray[np.float32], list[str]]:
    """Read images from a random place in the order of their ids: ids are digests, so neighbours have nothing in common.

    Returns their vectors (n, dim), and their contents' SHA-256.
    """
    start = secrets.token_hex(16)
    vectors: list[NDArray[np.float32]] = []
    contents: dict[str, str] = {}
    after: str | None = start
    while len(contents) < SAMPLE_ROWS:
        room = min(_PAGE_ROWS, SAMPLE_ROWS - len(contents))
        images, some = context.vectors.matching_vectors(name, after=after, limit=room)
        context.heart.beat()
        new = [number for number, image in enumerate(images) if image.id not in contents]
        if new:
            vectors.append(some[new])
        contents |= {images[number].id: images[number].sha256 for number in new}
        if len(new) < len(images) or (not images and after is None):
            break  # Once around.
        after = images[-1].id if images else None
    return np.concatenate(vectors or [np.zeros((0, 0), np.float32)]), list(contents.values())


def measure(
    vectors: NDArray[np.float32], contents: Sequence[str], metric: Metric, *, rows: int, fingerprint: str
) -> Background | None:
    """Measure the pairs of (n, dim) vectors sampled from so many rows; None where too few differ in content.

    `contents` says which of them are of the same bytes: those are no random pairs.
    """
    # Milvus squares and adds in float32, where the length of some is nothing or infinite: they are like nothing.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = (lengths > _LENGTHS[0]) & (lengths < _LENGTHS[1])
    vectors, contents = vectors[usable], [content for content, good in zip(contents, usable, strict=True) if good]
    nearness = _pairs(vectors, contents, metric)
    if len(vectors) < FEWEST_ROWS or len(nearness) < FEWEST_ROWS * (FEWEST_ROWS - 1) // 4:
        return None
    nearness.sort()
    last = min(max(_TAIL_PAIRS / len(nearness), _TAIL_MATCHES / (rows - 1)), 0.1)
    shares = _shares(last)
    levels = _quantiles(nearness, shares)
    slope, bend = _tail(nearness, last)
    signs = -1.0 if metric is Metric.L2 else 1.0
    if not np.isfinite([*levels, slope, bend]).all():
        return None
    return Background(
        metric=metric,
        fingerprint=fingerprint,
        rows=max(rows, len(vectors)),
        sampled=len(vectors),
        pairs=len(nearness),
        measured_at=datetime.now(UTC),
        shares=tuple(shares),
        distances=tuple(float(f"{signs * level:.7g}") for level in levels),
        tail_slope=slope,
        tail_bend=bend,
    )


def _pairs(vectors: NDArray[np.float32], contents: Sequence[str], metric: Metric) -> NDArray[np.float32]:
    """Return the nearness of each pair of rows with different contents: Milvus' distance, larger is closer."""
    rows = vectors.astype(np.float32)
    if metric is Metric.COSINE:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squares = np.einsum("ij,ij->i", rows, rows)
    _, kinds = np.unique(np.asarray(contents), return_inverse=True)
    found = []
    for begin in range(0, len(rows), _BLOCK_ROWS):
        block = slice(begin, begin + _BLOCK_ROWS)
        near = rows[block] @ rows.T
        if metric is Metric.L2:
            near = 2 * near - squares - squares[block, None]
        places = np.arange(len(rows))
        counts = (places > places[block, None]) & (kinds != kinds[block, None])
        found.append(near[counts])
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _shares(last: float) -> list[float]:
    """Return the shares that a background keeps distances of: down to `last`, ever finer."""
    shares = [share for share in _LADDER if share > 1.2 * last]
    share = _LADDER[-1]
    while (share := share / 2) > 1.2 * last:
        shares.append(share)
    return [*shares, last]


def _quantiles(nearness: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.float64]:
    """Return what these shares of sorted values are at least."""
    places = np.clip(np.rint(len(nearness) * (1 - np.asarray(shares))), 0, len(nearness) - 1)
    levels: NDArray[np.float64] = nearness[places.astype(np.intp)].astype(np.float64)
    return levels


def _tail(nearness: NDArray[np.float32], last: float) -> tuple[float, float]:
    """Fit what goes on beyond the share `last`: a parabola in the normal quantile, through the point at that share.

    These are the first terms of Cornish and Fisher's expansion. A normal tail is straight in it, an exponential one
    nearly a parabola.
    """
    shares = np.geomspace(min(_TAIL_SPAN * last, 0.4), last, _TAIL_POINTS)
    levels = _quantiles(nearness, [float(share) for share in shares])
    z = np.asarray([-_NORMAL.inv_cdf(share) for share in shares])
    rises = levels[:-1] - levels[-1]
    straight, bent = z[:-1] - z[-1], z[:-1] ** 2 - z[-1] ** 2
    slope, bend = np.linalg.lstsq(np.stack([straight, bent], axis=1), rises, rcond=None)[0]
    if slope + 2 * bend * _FARTHEST_Z <= 0:
        # It would turn back. This is the closest one that does not before the farthest pair there is.
        level = straight - bent / (2 * _FARTHEST_Z)
        slope = max(0.0, float(level @ rises / (level @ level)))
        bend = -slope / (2 * _FARTHEST_Z)
    return float(f"{slope:.6g}"), float(f"{bend:.6g}")
