"""What the first search of a worker would pay, paid before the worker says that it is there."""

from typing import Final

import numpy as np

from lookalike.jobstore import Lane
from lookalike.warming import WarmUp, start_decoder
from lookalike_worker.context import Context

#: Collections, by name, that are loaded and looked through ahead: a service with more may want its memory for others.
_MOST_COLLECTIONS: Final = 4
READY_S: Final = 10.0  #: How long a worker waits for it before it says that it is there.


def warm_up(context: Context, lane: Lane) -> WarmUp:
    """Begin to warm a worker up; ends by itself."""
    if lane is not Lane.SEARCH:
        return WarmUp()
    return WarmUp(lambda: start_decoder(context.decoders), lambda: _search_each(context))


def _search_each(context: Context) -> None:
    """Search the collections of this worker's model once: Milvus Lite reads one from disk when it is first asked."""
    model = context.embedder.model
    own = [one for one in context.vectors.collections() if one.model and one.model.fingerprint == model.fingerprint]
    for collection in own[:_MOST_COLLECTIONS]:
        context.vectors.search(collection.name, np.ones((1, model.dim), np.float32), limit=1)
