"""Reading images: by id, by content, and by place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import CollectionNotFound, ImageNotFound
from lookalike.records import IMAGE_ID, Collection
from lookalike.vectorstore.checks import (
    check_contents,
    check_ids,
    slices,
    uri_range,
)
from lookalike.vectorstore.connection import as_errors
from lookalike.vectorstore.indexes import ServerKind
from lookalike.vectorstore.schema import (
    ID,
    OUTPUT_FIELDS,
    PLACE_FIELDS,
    STATE_FIELDS,
    VECTOR,
    RowPlace,
    RowState,
    StoredImage,
    from_row,
    state_from_row,
)
from lookalike.vectorstore.tiles import TileRows

MAX_IDS: Final = 1_000  #: Of one look-up; with the largest metadata an answer stays below Milvus' 100 MB.
MAX_VECTORS: Final = 500  #: Of one look-up: Milvus Lite makes Python floats of them, half a second's worth.
MAX_LIMIT: Final = 16_384  #: Hits per query, and rows per page, that Milvus returns.

_T = TypeVar("_T")
_Row = dict[str, Any]


class Lookups(TileRows):
    """What can be read of a collection's images."""

    def count(self, name: str) -> int:
        """Count the images stored."""
        with as_errors():
            return self._with_physical(name, self._count, unbound=0)

    def known(self, name: str, ids: Sequence[str], *, settled: bool = True) -> dict[str, StoredImage]:
        """Return those of these images that are stored, by id; none where the collection is missing or unbound.

        Any number of ids. Without `settled`, images that somebody is storing at this moment may be missing; with it, a
        look-up waits for that where not all are stored (on Milvus Lite, once per 1,000 that are not).
        """
        rows = self._stored(name, ids, OUTPUT_FIELDS, settled=settled)
        return {row[ID]: from_row(row[ID], row) for row in rows}

    def states(self, name: str, ids: Sequence[str], *, settled: bool = False) -> dict[str, RowState]:
        """Return what tells whether files are unchanged, for those of these images that are stored; as `known`."""
        rows = self._stored(name, ids, STATE_FIELDS, settled=settled)
        return {row[ID]: state_from_row(row) for row in rows}

    def get(self, name: str, image_id: str) -> StoredImage:
        """Return a stored image; raises `ImageNotFound`."""
        if not IMAGE_ID.fullmatch(image_id):
            raise ImageNotFound

        def work(record: Collection, physical: str) -> list[StoredImage]:
            rows = self._rows([image_id], OUTPUT_FIELDS)(record, physical)
            return self._linked(record, physical, [from_row(image_id, row) for row in rows])

        with as_errors():
            images = self._with_physical(name, work, unbound=list[StoredImage]())
        if not images:
            raise ImageNotFound
        return images[0]

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of those of these images that are stored, by id."""
        return {row[ID]: _vector(row) for row in self._vector_rows(name, ids, [VECTOR])}

    def vectors_of(
        self, name: str, images: Sequence[StoredImage], *, tiles: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of those of these images that still are stored with the content they say, by id.

        An image that somebody replaced since it was looked up has another vector by now. With `tiles`, each comes as
        `upsert` takes it: in a collection with tiles (1 + tiles, dim), and not where one of them is missing.
        """
        contents = {image.id: image.sha256 for image in images}
        rows = self._vector_rows(name, list(contents), [VECTOR, "sha256"])
        found = {row[ID]: _vector(row) for row in rows if row["sha256"] == contents[row[ID]]}
        return self._with_tiles(name, found, contents) if tiles and found else found

    def _with_tiles(
        self, name: str, found: dict[str, NDArray[np.float32]], contents: Mapping[str, str]
    ) -> dict[str, NDArray[np.float32]]:
        def work(record: Collection, physical: str) -> dict[str, NDArray[np.float32]]:
            if record.tiles is None:
                return found
            parts = self._tile_vectors(record, physical, {image: contents[image] for image in found})
            return {image: np.concatenate([found[image][np.newaxis], vectors]) for image, vectors in parts.items()}

        with as_errors():
            return self._with_physical(name, work, unbound=dict[str, NDArray[np.float32]]())

    def _vector_rows(self, name: str, ids: Sequence[str], fields: Sequence[str]) -> list[_Row]:
        check_ids(ids)
        with as_errors():
            return self._with_physical(name, self._rows(ids, fields, size=MAX_VECTORS), unbound=list[_Row]())

    def same_content(self, name: str, sha256s: Sequence[str]) -> dict[str, StoredImage]:
        """Return an image with this content for each of these SHA-256 that has one on record, by SHA-256.

        It is stored, and its vector is that of the content. Which contents are on record is a matter of best effort:
        one may be missing whose only image was deleted while duplicates of it remain.
        """
        check_contents(sha256s)

        def work(_: Collection, physical: str) -> dict[str, str]:
            return self._contents.find(physical, sha256s, consistency="Strong")

        try:
            with as_errors():
                images = self._with_physical(name, work, unbound=dict[str, str]())
        except CollectionNotFound:
            return {}
        stored = self.known(name, list(images.values()))
        return {
            sha256: stored[image]
            for sha256, image in images.items()
            if image in stored and stored[image].sha256 == sha256
        }

    def under(self, name: str, first: str, last: str, *, after: str | None, limit: int) -> list[RowPlace]:
        """Return where images are from whose URI is at least `first` and less than `last`, in the order of their ids.

        A page is at most `limit` (and 16,384) rows long and holds the ids greater than `after`; the next one is asked
        for with the last id of this one. An empty page is the end. Rows that are stored or deleted meanwhile may be in
        it or not; each of the others is in exactly one. None where the collection is missing or unbound.
        """
        expression = uri_range(first, last)
        if after is not None:
            check_ids([after])
            expression = f'{ID} > "{after}" and {expression}'
        return self._places(name, expression, limit)

    def _places(self, name: str, expression: str, limit: int) -> list[RowPlace]:
        def work(record: Collection, physical: str) -> list[_Row]:
            answer = self._read(
                record,
                physical,
                "query",
                filter=expression,
                output_fields=PLACE_FIELDS,
                limit=max(1, min(limit, MAX_LIMIT)),
                iterator="True",  # Without, Milvus Lite gives the rows in the order of its files.
            )
            return list(answer)

        rows = self._unless_missing(name, work)
        return [RowPlace(**{field: row[field] for field in (ID, *PLACE_FIELDS)}) for row in rows]

    def copies(self, name: str, sha256s: Sequence[str], first: str, last: str, *, limit: int) -> list[RowPlace]:
        """Return where images with one of these contents are from whose URI is at least `first` and less than `last`.

        At most `limit` (and 16,384) of them. It scans the collection: half a second at 200,000 rows on Milvus Lite.
        """
        check_contents(sha256s)
        contents = ", ".join(f'"{sha256}"' for sha256 in sha256s)
        return self._places(name, f"sha256 in [{contents}] and {uri_range(first, last)}", limit)

    def _linked(
        self, record: Collection, physical: str, images: Sequence[StoredImage], *, consistency: str | None = None
    ) -> list[StoredImage]:
        """Take links to originals back that lead nowhere: to images that are gone, or have other contents by now."""
        originals = sorted({image.duplicate_of for image in images if image.duplicate_of})
        contents: dict[str, str] = {}
        for some in slices(originals, MAX_IDS):
            rows = self._read(
                record,
                physical,
                "query",
                ids=some,
                output_fields=["sha256"],
                consistency=consistency or self._settings.consistency,
            )
            contents |= {row[ID]: row["sha256"] for row in rows}
        return [
            image
            if image.duplicate_of is None or contents.get(image.duplicate_of) == image.sha256
            else replace(image, duplicate_of=None)
            for image in images
        ]

    def _stored(self, name: str, ids: Sequence[str], fields: Sequence[str], *, settled: bool) -> list[_Row]:
        check_ids(ids)
        return self._unless_missing(name, self._rows(ids, fields, settled=settled))

    def _unless_missing(self, name: str, work: Callable[[Collection, str], list[_T]]) -> list[_T]:
        try:
            with as_errors():
                return self._with_physical(name, work, unbound=list[_T]())
        except CollectionNotFound:
            return []

    def _rows(
        self, ids: Sequence[str], fields: Sequence[str], *, settled: bool = True, size: int = MAX_IDS
    ) -> Callable[[Collection, str], list[_Row]]:
        distinct = list(dict.fromkeys(ids))

        def work(record: Collection, physical: str) -> list[_Row]:
            def query(some: list[str], **how: Any) -> list[_Row]:
                return list(self._read(record, physical, "query", ids=some, output_fields=list(fields), **how))

            rows: list[_Row] = []
            for number, some in enumerate(slices(distinct, size)):
                # A server makes each strong read wait for its next time tick, 200 ms. One brings it up to now.
                rows += query(some, consistency="Strong" if settled or number == 0 else "Eventually")
            if settled and len(rows) < len(distinct) and self._milvus.kind is ServerKind.LITE:
                there = {row[ID] for row in rows}
                missing = [image_id for image_id in distinct if image_id not in there]
                rows += [row for some in slices(missing, size) for row in query(some, settled=True)]
            return rows

        return work


def _vector(row: _Row) -> NDArray[np.float32]:
    return np.asarray(row[VECTOR], dtype=np.float32)
