"""Storing: a chunk's rows into the vector store, and the rows they take the place of out of it."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from lookalike.errors import VectorStoreRejected
from lookalike.records import Failure, Stage
from lookalike_worker.context import Context
from lookalike_worker.ingest.ledger import failure_of
from lookalike_worker.ingest.work import Work, Written

log = logging.getLogger(__name__)


def store(context: Context, work: Work, keep: Callable[[], None]) -> None:
    """Write a chunk's rows; where Milvus refuses some for good, find those one by one and put them into the ledger.

    `keep` is called before each write, and raises where that must not be made any more.
    """
    if not work.rows:
        return
    name = work.claim.request.collection
    keep()
    context.crash.reach("before_upsert")
    with work.timed(Stage.STORE):
        try:
            _write(context, name, work.rows)
        except VectorStoreRejected:
            log.warning(
                "chunk %d of job %s was rejected; storing its rows one by one", work.claim.number, work.claim.job_id
            )
            _write_singly(context, work, keep)
        keep()
        _retire(context, name, [row for row in work.rows if row.takes_over])
    context.crash.reach("after_upsert")


def _write(context: Context, name: str, rows: Sequence[Written]) -> None:
    fresh = [(row.image, row.vector) for row in rows if row.vector is not None]
    if fresh:
        context.vectors.upsert(name, [image for image, _ in fresh], np.stack([vector for _, vector in fresh]))
    kept = [row.image for row in rows if row.vector is None]
    if kept:
        missing = context.vectors.rewrite(name, kept)
        if missing:  # By somebody else, since they were looked at, and so it shall be.
            log.info("%d images of %s were deleted or replaced meanwhile", len(missing), name)


def _write_singly(context: Context, work: Work, keep: Callable[[], None]) -> None:
    # Both are handed over at the end: the whole is done again where the job store is away in between.
    taken: list[Written] = []
    refused: list[Failure] = []
    for row in work.rows:
        keep()
        try:
            _write(context, work.claim.request.collection, [row])
        except VectorStoreRejected as error:
            refused.append(failure_of(row.item, error, Stage.STORE, attempts=work.claim.attempts))
        else:
            taken.append(row)
    work.rows = taken
    work.failures += refused


def _retire(context: Context, name: str, moved: Sequence[Written]) -> None:
    """Delete the rows that moved files had before."""
    if not moved:
        return
    context.vectors.delete(name, [row.takes_over for row in moved if row.takes_over])
    # While the old rows were there, theirs were the images on record for these contents; now the new ones become that.
    _write(context, name, moved)
