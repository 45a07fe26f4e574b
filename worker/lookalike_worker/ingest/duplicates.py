"""Duplicates: files whose content is stored already, under whatever address, take the vector that is there.

And moved files, where a job syncs: a new file whose content is that of a row of the same source, whose own file is
gone, takes over that row's metadata as well, and the row's place.
"""

from collections import ChainMap, Counter, defaultdict, deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.jobstore import Change, ChunkClaim
from lookalike.records import SYNCABLE
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.ingest.ledger import holds, wanted_metadata
from lookalike_worker.ingest.work import Facts, File, Work, image_of

_MOST_COPIES: Final = 1_000  #: Rows looked at, of all contents of a chunk that were copied, for one whose file is gone.
_CHUNKS_TOGETHER: Final = 32  #: More than a worker has in hand.


@dataclass(frozen=True)
class Known:
    """A stored image, and its vector; in a collection with tiles those of its tiles, too, as `upsert` takes them."""

    image: StoredImage
    vector: NDArray[np.float32]


class TakenOver:
    """The rows that moved files take over, of the chunks read last: what one of them takes is gone for the others."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[str, dict[str, str]]] = deque(maxlen=_CHUNKS_TOGETHER)

    def of_chunk(self, job_id: str) -> MutableMapping[str, str]:
        """Begin a chunk: the ids of new rows by the old one's, those of its job's chunks before it included."""
        own: dict[str, str] = {}
        before = [taken for job, taken in self._chunks if job == job_id]
        self._chunks.appendleft((job_id, own))
        return ChainMap(own, *before)


class Duplicates:
    """Settles the files of one chunk that need no network."""

    def __init__(
        self,
        context: Context,
        claim: ChunkClaim,
        work: Work,
        keep: Callable[[], None],
        taken_over: MutableMapping[str, str],
    ) -> None:
        self._context = context
        self._keep = keep  # Looking whether an object is there may take a second.
        self._claim = claim
        self._work = work
        source = claim.request.source
        self._span = context.lister.span(source) if claim.request.sync and isinstance(source, SYNCABLE) else None
        self._taken_over = taken_over  # The rows of moved files: the new one's id by the old one's.
        self._gone: dict[str, list[StoredImage]] = defaultdict(list)  # Duplicates whose files are gone, by content.

    def look_up(self, sha256s: Sequence[str]) -> dict[str, Known]:
        """Find stored images of these contents, with their vectors. May run in any thread."""
        vectors, name = self._context.vectors, self._claim.request.collection
        images = vectors.same_content(name, list(dict.fromkeys(sha256s)))
        found = vectors.vectors_of(name, list(images.values()), tiles=True) if images else {}
        return {sha256: Known(image, found[image.id]) for sha256, image in images.items() if image.id in found}

    def look_for_moved(self, files: Sequence[tuple[File, str]], known: Mapping[str, Known]) -> None:
        """Find the rows that new files were moved from, besides those known by their contents anyway.

        Where several rows have a content, one is on record for it, and that one's file may be there still. The others
        are found by a scan of the collection, so that is for new files that are copies of something only.
        """
        if self._span is None:
            return
        new = Counter(sha256 for file, sha256 in files if file.item.change is Change.ADDED and sha256 in known)
        left = new - Counter(sha256 for sha256 in new if self._is_gone(known[sha256].image))
        if not left:
            return
        vectors, name = self._context.vectors, self._claim.request.collection
        gone: list[str] = []
        for row in vectors.copies(name, list(left), *self._span, limit=_MOST_COPIES):
            on_record = known[row.sha256].image.id == row.id
            if left[row.sha256] and not on_record and not self._exists(row.uri):
                left[row.sha256] -= 1
                gone.append(row.id)
        for image in vectors.known(name, gone).values():
            self._gone[image.sha256].append(image)

    def settle(self, file: File, facts: Facts, known: Known | None) -> bool:
        """Deal with a file whose own row, or another image, has its content; returns whether there is one."""
        row = file.row
        if row and row.sha256 == facts.sha256:
            self._keep_vector(file, row, facts)
        elif known is None:
            return False
        elif old := self._moved_from(file, known.image):
            self._taken_over[old.id] = file.id
            original = self._taken_over.get(old.duplicate_of or "", old.duplicate_of)
            image = image_of(self._claim, file, facts, inherited=old, duplicate_of=original, same=known.image)
            self._work.write(file, image, known.vector, kind="moved", takes_over=old.id)
        else:
            # Its own row may be what was found: another job stored it since it was planned.
            own = known.image if known.image.id == file.id else None
            original = None if own else known.image.duplicate_of or known.image.id
            original = self._taken_over.get(original, original) if original else None
            image = image_of(self._claim, file, facts, inherited=own, duplicate_of=original, same=known.image)
            self._work.write(file, image, known.vector, shared=original is not None)
        return True

    def _keep_vector(self, file: File, row: StoredImage, facts: Facts) -> None:
        """Settle a file whose content is as it was stored: its row may have to say something else about it."""
        image = image_of(self._claim, file, facts, duplicate_of=row.duplicate_of, same=row)
        # A local file that was touched is changed, by size and time; a remote one is what its content is.
        by_content = file.fetched is not None or self._claim.request.checksum
        if by_content and holds(row.metadata, wanted_metadata(self._claim.request, file.item.metadata)):
            if (image.etag, image.picture_hash) == (row.etag, row.picture_hash):
                self._work.counts["unchanged"] += 1
            else:  # So that it need not be fetched, or decoded, next time.
                self._work.write(file, image, None, kind="unchanged")
        else:
            self._work.write(file, image, None)

    def _moved_from(self, file: File, image: StoredImage) -> StoredImage | None:
        """Return the row that a file was moved from: the one on record for its content, or another one."""
        if self._span is None or file.item.change is not Change.ADDED:
            return None
        if self._is_left_to(file, image) and self._is_gone(image):
            return image
        return next((other for other in self._gone[image.sha256] if self._is_left_to(file, other)), None)

    def _is_left_to(self, file: File, old: StoredImage) -> bool:
        # An earlier attempt at this chunk may have taken it for the same file, and not come to write that.
        return self._taken_over.get(old.id, file.id) == file.id

    def _is_gone(self, image: StoredImage) -> bool:
        """Tell whether a row is of this source, and its file is not there any more."""
        if self._span is None:
            return False
        first, last = self._span
        return first <= image.uri < last and not self._exists(image.uri)

    def _exists(self, uri: str) -> bool:
        self._keep()
        return self._context.lister.exists(uri)
