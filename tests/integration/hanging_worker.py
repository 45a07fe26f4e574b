"""A real ingest worker, but for its network, which hangs in a call of C that does not let go of Python's lock."""

import ctypes
import sys

import numpy as np
from numpy.typing import NDArray

from ingest_parts import MODEL, MeanColours
from lookalike.jobstore import Lane
from lookalike.settings import Settings
from lookalike_worker import celery_app
from lookalike_worker.model import Embedder


class Hanging(MeanColours):
    """What a driver does at its worst."""

    def embed(self, _: NDArray[np.uint8]) -> NDArray[np.float32]:
        ctypes.PyDLL(None).sleep(600)
        raise AssertionError


if __name__ == "__main__":
    celery_app.load_embedder = lambda _: Embedder(engine=Hanging(), model=MODEL, reason="")  # type: ignore[attr-defined]
    sys.exit(celery_app.run_worker(Settings(), Lane.INGEST, "worker-hanging"))
