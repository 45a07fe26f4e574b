"""Combining: several vectors into one that stands for what is wanted, and a picture into its turned versions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.records import Variant

#: What the mean of the negative examples weighs beside that of the positive ones: 0.15 to 0.75, the values that
#: Manning, Raghavan and Schütze give for Rocchio's formula (docs/decisions/0015-scores.md). Below 1, so that examples
#: of both kinds which are much alike leave what is wanted, and do not turn it around.
NEGATIVE_WEIGHT: Final = 0.2
_NOTHING_LEFT: Final = 1e-3  #: Of examples of length 1.


def combined(positive: Sequence[NDArray[np.float32]], negative: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Combine examples, each (dim,), by Rocchio's formula: what is like the positive ones and unlike the others.

    Each counts by its direction alone. The result has the mean length of the positive ones, which the metric COSINE
    does not see, L2 needs for its distances to mean what they do elsewhere, and IP's distances grow with.
    """
    wanted = _directions(positive).mean(axis=0)
    if negative:
        wanted -= NEGATIVE_WEIGHT * _directions(negative).mean(axis=0)
    length = float(np.linalg.norm(wanted))
    if length < _NOTHING_LEFT:
        raise InvalidParameter("The examples cancel each other out. Search with fewer of them.")
    usual = float(np.mean([np.linalg.norm(vector.astype(np.float64)) for vector in positive]))
    query: NDArray[np.float32] = (wanted * (usual / length)).astype(np.float32)
    return query


def turned(pixels: NDArray[np.uint8], variant: Variant | None) -> NDArray[np.uint8]:
    """Turn the network's input, (height, width, 3): a square from a picture's middle stays one."""
    match variant:
        case None:
            return pixels
        case Variant.MIRROR:
            return np.fliplr(pixels)
        case Variant.ROTATE90:
            return np.rot90(pixels, -1)
        case Variant.ROTATE180:
            return np.rot90(pixels, 2)
        case Variant.ROTATE270:
            return np.rot90(pixels, 1)


def _directions(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    rows = np.stack(vectors).astype(np.float64)
    directions: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return directions
