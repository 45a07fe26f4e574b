"""Comparing: what a listing found against what the collection holds, ahead of the planner, in large slabs.

While one slab is looked up by a thread, the next is listed, so neither waits for the other. Memory is bounded by two
slabs. An unchanged file costs this and nothing else: it is neither opened nor put into a chunk.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

from lookalike.decodepool import DecodePool, Probe
from lookalike.errors import CollectionNotFound, ImageError
from lookalike.jobstore import Change
from lookalike.listing import Listed
from lookalike.records import IngestRequest
from lookalike.roots import image_id
from lookalike.uploads import UPLOAD_SCHEME
from lookalike.vectorstore import RowState, VectorStore
from lookalike_worker.ingest.ledger import holds, wanted_metadata
from lookalike_worker.keeping import result_of

_FIRST_SLAB: Final = 256  #: Small, so that the first chunk comes soon; each slab after it is twice the last.
_LARGEST_SLAB: Final = 4_096
_SLAB_S: Final = 0.5  #: A slow listing, as of a bucket, is looked up in as small slabs as it gives in this time.

Verdict = tuple[Listed, Change | None]  #: None: unchanged. Of no meaning where the listing has an error.
_States = Mapping[str, RowState]


@dataclass(frozen=True, kw_only=True)
class Comparer:
    """Tells new, changed and unchanged files apart."""

    vectors: VectorStore
    decoders: DecodePool
    executor: Executor  #: Of one thread: one slab is looked up at a time.

    def compare(self, listing: Iterator[Listed], request: IngestRequest, keep: Callable[[], None]) -> Iterator[Verdict]:
        """Judge every file of a listing, in its order.

        Goes by size and time, or with `checksum` by content; a row whose metadata lacks what is wanted is changed.
        """
        if self._is_empty(request.collection):
            # What this job itself stores meanwhile lies behind its listing.
            for listed in listing:
                yield listed, Change.ADDED
            return
        ahead: deque[tuple[Sequence[Listed], Future[_States]]] = deque()
        for slab in _slabs(listing):
            ahead.append((slab, self.executor.submit(self._look_up, request.collection, slab)))
            if len(ahead) > 1:
                yield from self._judge(*ahead.popleft(), request, keep)
        while ahead:
            yield from self._judge(*ahead.popleft(), request, keep)

    def _is_empty(self, collection: str) -> bool:
        try:
            return self.vectors.count(collection) == 0
        except CollectionNotFound:
            return True

    def _look_up(self, collection: str, slab: Sequence[Listed]) -> _States:
        # Settled: a row that is hidden by the write under way would be embedded again, and lose its metadata.
        ids = [image_id(listed.uri) for listed in slab if listed.error is None]
        return self.vectors.states(collection, ids, settled=True)

    def _judge(
        self, slab: Sequence[Listed], looked_up: Future[_States], request: IngestRequest, keep: Callable[[], None]
    ) -> Iterator[Verdict]:
        states = result_of(looked_up, keep)
        if request.checksum:
            yield from self._judge_by_content(slab, states, request, keep)
            return
        for listed in slab:
            state = states.get(image_id(listed.uri))
            if state is None:
                yield listed, Change.ADDED
            elif is_same_file(listed, state) and holds(state.metadata, wanted_metadata(request, listed.metadata)):
                yield listed, None
            else:
                yield listed, Change.CHANGED

    def _judge_by_content(
        self, slab: Sequence[Listed], states: _States, request: IngestRequest, keep: Callable[[], None]
    ) -> Iterator[Verdict]:
        """Hash what is stored with the size that it has now; all of a slab at once, in the decoders."""
        judged: deque[tuple[Listed, RowState | None, Future[Probe] | None]] = deque()
        for listed in slab:
            state = states.get(image_id(listed.uri))
            hashed = state is not None and listed.size == state.size and listed.uri.startswith("file:")
            judged.append((listed, state, self.decoders.probe(listed.uri) if hashed else None))
        try:
            while judged:
                listed, state, probe = judged.popleft()
                if state is None:
                    yield listed, Change.ADDED
                    continue
                same = listed.uri.startswith(UPLOAD_SCHEME) or (
                    probe is not None and _sha256(probe, keep) == state.sha256
                )
                kept = same and holds(state.metadata, wanted_metadata(request, listed.metadata))
                # Rows from before there was a hash are looked at once more, which does not embed them.
                yield listed, None if kept and state.picture_hash else Change.CHANGED
        finally:
            for _, _, probe in judged:
                if probe:
                    probe.cancel()


def is_same_file(listed: Listed, state: RowState) -> bool:
    """Tell by an object's tag, or where there is none by size and time, whether a file is as it was stored."""
    if listed.uri.startswith(UPLOAD_SCHEME):
        return True  # Its name is its content; its time only tells when it was last sent.
    if listed.size is None or listed.size != state.size:
        return False
    if listed.etag and state.etag:
        return listed.etag == state.etag  # Stores give whole seconds, in which an object may have been replaced.
    return listed.mtime_ns == state.mtime_ns


def _sha256(probe: Future[Probe], keep: Callable[[], None]) -> str | None:
    try:
        return result_of(probe, keep).sha256
    except ImageError:
        return None  # Its chunk will say what is wrong with it.


def _slabs(listing: Iterator[Listed]) -> Iterator[list[Listed]]:
    size, slab, began_s = _FIRST_SLAB, list[Listed](), time.monotonic()
    for listed in listing:
        slab.append(listed)
        if len(slab) >= size or (len(slab) % 64 == 0 and time.monotonic() - began_s > _SLAB_S):
            yield slab
            size, slab, began_s = min(2 * size, _LARGEST_SLAB), [], time.monotonic()
    if slab:
        yield slab
