"""The tiles of a collection's images: a row for each region, in a collection of their own beside the images.

`<physical>__tiles` holds them, so whatever counts, lists or exports images has nothing to do with them. A row has what
its image's has, so that a filter means the same to both; the key alone is its own. Tiles are written before their image
and deleted before it: an image that is stored has all of its tiles. One whose image is not stored, or has another
content by now, is left of a write that was cut short; its content tells, and whoever reads it looks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidParameter
from lookalike.records import Collection, IndexKind
from lookalike.vectorstore.access import Access
from lookalike.vectorstore.checks import TILES_SUFFIX, batches, check_vectors, model_of, slices
from lookalike.vectorstore.connection import Refusal, RefusalKind
from lookalike.vectorstore.indexes import ServerKind, index_params
from lookalike.vectorstore.schema import ID, VECTOR, StoredImage, milvus_schema

#: The key: the image's id and two digits. No key of the user's metadata begins so.
TILE: Final = "_tile"
_MAX_VECTORS: Final = 500  #: Of one look-up, as of images.

_Row = dict[str, Any]


class TileRows(Access):
    """Reads and writes the rows of tiles. A collection without tiles costs nothing here, not even a call."""

    def _make_tiles(self, record: Collection, physical: str) -> None:
        """Make the collection of tiles beside a physical collection, where there are to be any and it is missing."""
        if record.tiles is None:
            return
        tiles = tiles_record(record, physical)
        self._milvus.create(
            tiles.name,
            lambda: milvus_schema(model_of(record).dim, key=TILE),
            index_params(record.metric, self._spec(tiles)),
            consistency=self._settings.consistency,
            timeout_s=self._write_s,
        )

    def _tile_vectors(self, record: Collection, physical: str, contents: Mapping[str, str]) -> dict[str, NDArray[Any]]:
        """Return the tiles' vectors, (tiles, dim), of those images that have all of them, of the contents given."""
        assert record.tiles is not None  # noqa: S101 - the caller looked.
        tiles = tiles_record(record, physical)
        keys = [tile_key(image, number) for image in contents for number in range(record.tiles.count)]
        found: dict[str, NDArray[np.float32]] = {}
        for some in slices(keys, _MAX_VECTORS):
            rows = self._read(
                tiles, tiles.name, "query", settled=True, ids=some, output_fields=[TILE, ID, VECTOR, "sha256"]
            )
            for row in rows:
                if row["sha256"] == contents[row[ID]]:
                    found[row[TILE]] = np.asarray(row[VECTOR], dtype=np.float32)
        numbers = range(record.tiles.count)
        whole = {image: [found.get(tile_key(image, number)) for number in numbers] for image in contents}
        return {
            image: np.stack([vector for vector in vectors if vector is not None])
            for image, vectors in whole.items()
            if all(vector is not None for vector in vectors)
        }

    def _write_tiles(self, physical: str, rows: Iterable[list[_Row]]) -> None:
        """Store rows of tiles. The caller holds the collection's lock where it writes to Milvus Lite."""
        lite = self._milvus.kind is ServerKind.LITE
        written = False
        for batch in rows:
            # As images: Lite's upsert would keep old metadata.
            self._milvus.call("insert" if lite else "upsert", physical + TILES_SUFFIX, batch, timeout_s=self._write_s)
            written = True
        if lite and written:
            self._milvus.call("flush", physical + TILES_SUFFIX, timeout_s=self._write_s)

    def _delete_tiles(self, record: Collection, physical: str, images: Sequence[str]) -> None:
        """Delete the tiles of images, before these. The caller holds the collection's lock where it is Milvus Lite."""
        if record.tiles is None:
            return
        keys = [tile_key(image, number) for image in images for number in range(record.tiles.count)]
        try:
            for some in slices(keys, 1_000):
                self._milvus.call("delete", physical + TILES_SUFFIX, ids=some, timeout_s=self._write_s)
        except Refusal as refusal:
            if refusal.kind is not RefusalKind.NOT_FOUND:  # It is being dropped.
                raise


def tiles_record(record: Collection, physical: str) -> Collection:
    """Return a collection's record as that of its tiles, a collection of its own.

    Their index is always AUTO's: what suits the images was measured with their number, and is replaced without them.
    """
    changes = {"name": physical + TILES_SUFFIX, "models": (), "index": IndexKind.AUTO, "build": {}, "search": {}}
    return record.model_copy(update=changes)


def tile_key(image_id: str, number: int) -> str:
    """Return the key of one of an image's tiles."""
    return f"{image_id}{number:02d}"


def tile_number(key: str) -> int:
    """Return which of its image's tiles a key is of."""
    return int(key[32:])


def whole_and_tiles(record: Collection, vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[Any]]:
    """Part what is to be stored into the images' vectors, (n, dim), and those of the tiles of each, (tiles, dim).

    Raises `InvalidParameter` unless each image comes with exactly the tiles that its collection has.
    """
    dim = model_of(record).dim
    if record.tiles is None:
        check_vectors(vectors, dim)
        return vectors, [None] * len(vectors)
    if vectors.ndim != 3 or vectors.shape[1] != 1 + record.tiles.count:
        raise InvalidParameter(
            f"The collection {record.name} has {record.tiles.count} tiles of each image, so each comes with "
            f"{1 + record.tiles.count} vectors. Ingest the images; vectors alone can be put into one without tiles."
        )
    check_vectors(vectors.reshape(-1, vectors.shape[2]), dim)
    return vectors[:, 0], list(vectors[:, 1:])


def tile_batches(images: Iterable[tuple[StoredImage, NDArray[np.float32]]], dim: int) -> Iterator[list[_Row]]:
    """Lay the tiles of images out, each image with its (tiles, dim), in batches that Milvus takes."""
    pairs = list(images)
    numbers = cycle(range(len(pairs[0][1]))) if pairs else cycle((0,))
    rows = ((image, vector) for image, vectors in pairs for vector in vectors)
    for batch in batches(rows, dim):
        yield [{**row, TILE: tile_key(row[ID], next(numbers))} for row in batch]
