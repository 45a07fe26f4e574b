"""Writing images: store, change, delete."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import CollectionNotFound
from lookalike.records import Collection
from lookalike.vectorstore.checks import batches, check_ids, check_vectors, checked_name, physical_name, slices
from lookalike.vectorstore.connection import Refusal, RefusalKind, as_errors
from lookalike.vectorstore.indexes import ServerKind
from lookalike.vectorstore.lookups import MAX_IDS, Lookups
from lookalike.vectorstore.schema import ID, StoredImage


class Writes(Lookups):
    """What can be changed about a collection's images."""

    def upsert(self, name: str, images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> None:
        """Store images with their vectors, shape (n, dim); those stored before are replaced, metadata included.

        Their contents are recorded for `same_content`, unless an image with the same content is on record already.
        """
        check_ids([image.id for image in images])
        # Milvus keeps both of two rows with one id in one call.
        rows = {image.id: (image, vector) for image, vector in zip(images, vectors, strict=True)}
        with as_errors():
            record = self._catalog.find(checked_name(name))
            if record is None or record.model is None:
                raise CollectionNotFound
            check_vectors(vectors, record.model.dim)
            # The caller's vectors are of the model it bound, whatever the name stands for by now.
            physical = physical_name(name, self._bound.get(name, record.model.fingerprint))
            originals = self._originals(record, physical, [image for image, _ in rows.values()])
            for batch in batches(rows.values(), record.model.dim):
                contents = {row["sha256"]: row[ID] for row in batch if originals.get(row["sha256"]) == row[ID]}
                self._write(name, physical, batch, contents)

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

    def _write(self, name: str, physical: str, batch: list[dict[str, Any]], contents: dict[str, str]) -> None:
        try:
            with self._data_lock(name):
                # Hints go first: one without its row is ignored, a row without its hint would never be shared.
                if contents:
                    self._contents.record(physical, contents)
                if self._milvus.kind is ServerKind.MILVUS:
                    self._milvus.call("upsert", physical, batch, timeout_s=self._write_s)
                    return
                # Lite's upsert keeps the old row's metadata where the new one has none; its insert replaces the row.
                self._milvus.call("insert", physical, batch, timeout_s=self._write_s)
                # Lite converts every row not yet flushed to Python floats in each search: 0.3 s per 1,000 rows.
                self._milvus.call("flush", physical, timeout_s=self._write_s)
        except Refusal as refusal:
            if refusal.kind is RefusalKind.NOT_FOUND:
                self._catalog.forget(name)
                self._bound.pop(name, None)
                raise CollectionNotFound("The collection was deleted while images were stored in it.") from refusal
            raise

    def rewrite(self, name: str, images: Sequence[StoredImage]) -> list[str]:
        """Replace everything about stored images but their vectors and contents.

        Returns the ids of those that are not stored, or have another content by now, of which their vectors are.
        """
        stored = self.vectors_of(name, images)
        kept = [image for image in images if image.id in stored]
        if kept:
            self.upsert(name, kept, np.stack([stored[image.id] for image in kept]))
        return [image.id for image in images if image.id not in stored]

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete images; returns how many of them were stored. Duplicates of theirs keep their copies of the vector."""
        stored = self.known(name, ids)
        contents = {image.sha256 for image in stored.values() if image.sha256}

        def work(_: Collection, physical: str) -> int:
            recorded = self._contents.find(physical, list(contents), consistency="Bounded")
            for some in slices(list(stored), MAX_IDS):
                with self._data_lock(name):
                    self._milvus.call("delete", physical, ids=some, timeout_s=self._write_s)
            gone = [sha256 for sha256, image in recorded.items() if image in stored]
            with self._data_lock(name):
                self._contents.forget(physical, gone)
            return len(stored)

        with as_errors():
            return self._with_physical(name, work, unbound=0)
