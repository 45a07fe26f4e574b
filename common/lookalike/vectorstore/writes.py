"""Writing images: store, change, delete."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import CollectionNotFound, ImageNotFound, ModelNotFound
from lookalike.records import Collection, Metadata, ModelState
from lookalike.vectorstore.checks import (
    at_address,
    batches,
    check_ids,
    model_of,
    parted,
    physical_name,
    slices,
)
from lookalike.vectorstore.connection import Refusal, RefusalKind, as_errors
from lookalike.vectorstore.indexes import ServerKind
from lookalike.vectorstore.lookups import MAX_IDS, Lookups
from lookalike.vectorstore.schema import ID, StoredImage, check_metadata
from lookalike.vectorstore.tiles import tile_batches, whole_and_tiles

_Row = dict[str, Any]

_TRIES: Final = 5  #: For a change to an image whose content is being replaced.


class Writes(Lookups):
    """What can be changed about a collection's images."""

    def upsert(self, name: str, images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> None:
        """Store images with their vectors, shape (n, dim); those stored before are replaced, metadata included.

        In a collection with tiles the shape is (n, 1 + tiles, dim): each image's own vector, then those of its tiles.
        Their contents are recorded for `same_content`, unless an image with the same content is on record already.
        """
        self._upsert(name, images, vectors, over_same=False)

    def _upsert(
        self, name: str, images: Sequence[StoredImage], vectors: NDArray[np.float32], *, over_same: bool
    ) -> set[str]:
        """Store images; with `over_same` only over rows that still have their contents. Returns the ids stored."""
        check_ids([image.id for image in images])
        with as_errors():
            public, prefix = parted(name)
            found = self._catalog.find(public)
            if found is None or found.model is None:
                raise CollectionNotFound
            record = at_address(found, name, prefix)
            dim = model_of(record).dim
            whole, tiles = whole_and_tiles(record, vectors)
            # Milvus keeps both of two rows with one id in one call.
            rows = {image.id: (image, vector) for image, vector in zip(images, whole, strict=True)}
            parts = {image.id: (image, vector) for image, vector in zip(images, tiles, strict=True)}
            # The caller's vectors are of the model it bound, whatever the name stands for by now.
            physical = physical_name(public, self._bound.get(name, model_of(record).fingerprint))
            originals = self._originals(record, physical, [image for image, _ in rows.values()])

            def still_same(batch: list[_Row]) -> list[_Row]:
                there = self._rows([row[ID] for row in batch], ["sha256"], settled=False)(record, physical)
                held = {(row[ID], row["sha256"]) for row in there}
                return [row for row in batch if (row[ID], row["sha256"]) in held]

            def tiles_of(batch: list[_Row]) -> Iterable[list[_Row]]:
                return tile_batches([parts[row[ID]] for row in batch], dim) if record.tiles else ()

            stored: set[str] = set()
            for batch in batches(rows.values(), dim):
                contents = {row["sha256"]: row[ID] for row in batch if originals.get(row["sha256"]) == row[ID]}
                chosen = still_same if over_same else None
                stored |= self._write(name, physical, batch, contents, chosen, tiles_of)
            return stored

    def _originals(self, record: Collection, physical: str, images: Sequence[StoredImage]) -> dict[str, str]:
        """Return the image to record for each content that has none on record which still holds it."""
        # The first of several, so that the same call writes the same.
        wanted = {image.sha256: image.id for image in reversed(images) if image.sha256 and not image.duplicate_of}
        # A server makes any fresher read wait 200 ms. What it misses is recorded again.
        recorded = self._contents.find(physical, list(wanted), consistency="Bounded")
        others = [image for sha256, image in recorded.items() if image != wanted[sha256]]
        rows = self._rows(others, ["sha256"])(record, physical) if others else []
        held = {(row["sha256"], row[ID]) for row in rows}
        return {
            sha256: image
            for sha256, image in wanted.items()
            if recorded.get(sha256) != image and (sha256, recorded.get(sha256)) not in held
        }

    def _write(
        self,
        name: str,
        physical: str,
        batch: list[_Row],
        contents: dict[str, str],
        chosen: Callable[[list[_Row]], list[_Row]] | None,
        tiles_of: Callable[[list[_Row]], Iterable[list[_Row]]],
    ) -> set[str]:
        try:
            with self._data_lock(name):
                # Under the lock, so that nobody else writes between the look and the write. A server has no such lock:
                # there the time between both is all in which another's write can be lost.
                if chosen and not (batch := chosen(batch)):
                    return set()
                # Hints go first: one without its row is ignored, a row without its hint would never be shared.
                if contents:
                    self._contents.record(physical, contents)
                self._write_tiles(physical, tiles_of(batch))  # Before the images: one that is stored has its tiles.
                if self._milvus.kind is ServerKind.MILVUS:
                    self._milvus.call("upsert", physical, batch, timeout_s=self._write_s)
                    return {row[ID] for row in batch}
                # Lite's upsert keeps the old row's metadata where the new one has none; its insert replaces the row.
                self._milvus.call("insert", physical, batch, timeout_s=self._write_s)
                # Lite converts every row not yet flushed to Python floats in each search: 0.3 s per 1,000 rows.
                self._milvus.call("flush", physical, timeout_s=self._write_s)
                return {row[ID] for row in batch}
        except Refusal as refusal:
            if refusal.kind is RefusalKind.NOT_FOUND:
                self._catalog.forget(parted(name)[0])
                self._bound.pop(name, None)
                raise CollectionNotFound("The collection was deleted while images were stored in it.") from refusal
            raise

    def patch_metadata(self, name: str, image_id: str, changes: Metadata) -> StoredImage:
        """Change some of an image's metadata, None taking a key away, and return the image as it is then.

        Nothing else about it changes: where its content is replaced in this moment, that one gets the metadata. Two
        changes at a time are made one after the other. Raises `ImageNotFound`, and `InvalidParameter` for metadata that
        cannot be stored.
        """
        with self._lock(f"{name}/metadata"):
            for _ in range(_TRIES):
                image = self.known(name, [image_id]).get(image_id)
                if image is None:
                    break
                merged = {**image.metadata, **changes}
                metadata = {key: value for key, value in merged.items() if value is not None}
                check_metadata(metadata)
                if metadata == image.metadata or not self.rewrite(name, [replace(image, metadata=metadata)]):
                    return replace(image, metadata=metadata)
        raise ImageNotFound

    def rewrite(self, name: str, images: Sequence[StoredImage]) -> list[str]:
        """Replace everything about stored images but their vectors and contents, whatever models those are of.

        Returns the ids of those that are not stored, or have another content by now, of which their vectors are.
        """
        missing = self._rewrite(name, images)
        for other in self._others(name):
            try:
                there = self.known(other, [image.id for image in images])
                # Which copy is the original, and what stored it, is each model's own affair.
                alike = [
                    replace(image, duplicate_of=there[image.id].duplicate_of, job=there[image.id].job)
                    for image in images
                    if image.id in there
                ]
                self._rewrite(other, alike)
            except ModelNotFound:  # Dropped in this moment.
                continue
        return missing

    def _others(self, name: str) -> list[str]:
        """The addresses of a collection's vectors that do not serve; none for an address that names a model."""
        public, prefix = parted(name)
        with as_errors():
            # As it is now: a model that was added a moment ago has to lose what the others lose.
            record = None if prefix else self._catalog.read(public)
        if record is None or record.model is None:
            return []
        fingerprints = (one.model.fingerprint for one in record.models if one.state is not ModelState.SERVING)
        return [physical_name(name, fingerprint) for fingerprint in fingerprints]

    def _rewrite(self, name: str, images: Sequence[StoredImage]) -> list[str]:
        stored = self.vectors_of(name, images, tiles=True)
        kept = [image for image in images if image.id in stored]
        if not kept:
            return [image.id for image in images]
        written = self._upsert(name, kept, np.stack([stored[image.id] for image in kept]), over_same=True)
        return [image.id for image in images if image.id not in written]

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete images, whatever models their vectors are of; returns how many of them were stored.

        Duplicates of theirs keep their copies of the vector.
        """
        for other in self._others(name):
            try:
                self._delete(other, ids)
            except ModelNotFound:  # Dropped in this moment.
                continue
        return self._delete(name, ids)

    def _delete(self, name: str, ids: Sequence[str]) -> int:
        stored = self.known(name, ids)
        contents = {image.sha256 for image in stored.values() if image.sha256}

        def work(record: Collection, physical: str) -> int:
            recorded = self._contents.find(physical, list(contents), consistency="Bounded")
            for some in slices(list(stored), MAX_IDS):
                with self._data_lock(name):
                    self._delete_tiles(record, physical, some)
                    self._milvus.call("delete", physical, ids=some, timeout_s=self._write_s)
            gone = [sha256 for sha256, image in recorded.items() if image in stored]
            with self._data_lock(name):
                self._contents.forget(physical, gone)
            return len(stored)

        with as_errors():
            return self._with_physical(name, work, unbound=0)
