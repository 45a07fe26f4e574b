"""Searching among tiles: the regions closest to a vector, each told by the image that it is a part of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.records import Collection
from lookalike.vectorstore.checks import slices
from lookalike.vectorstore.lookups import MAX_IDS
from lookalike.vectorstore.schema import ID, Candidate, check_group_field
from lookalike.vectorstore.searching import CONSISTENCY, How, Searches
from lookalike.vectorstore.tiles import TILE, tile_number, tiles_record


class TileSearches(Searches):
    """What can be found by the likeness of a part."""

    def tile_candidates(
        self, name: str, vectors: NDArray[np.float32], *, limit: int, how: How, group_by: str | None = None
    ) -> list[list[Candidate]]:
        """Find the closest tiles to each of (nq, dim) vectors, closest first; several may be of one image.

        None where the collection has no tiles. The filter is over the images' fields; search parameters count as far as
        the tiles' index takes them. Those whose image is not stored with this content are marked as stale.
        """
        fields = [TILE, ID, "sha256"]
        if group_by is not None:
            check_group_field(group_by)
            fields += [group_by] if group_by not in fields else []

        def work(record: Collection, physical: str) -> list[list[Candidate]]:
            if record.tiles is None:
                return [[] for _ in vectors]
            tiles = tiles_record(record, physical)
            known = self._spec(tiles).search
            own = replace(how, params={name: value for name, value in how.params.items() if name in known})
            answers = self._answers(tiles, tiles.name, vectors, limit, own, fields)
            contents = self._contents_of(record, physical, answers, how)
            boxes = record.tiles.boxes
            return [
                [_candidate(hit["entity"], hit["distance"], boxes, contents, group_by) for hit in hits]
                for hits in answers
            ]

        return self._searched(name, limit, len(vectors), work)

    def _contents_of(self, record: Collection, physical: str, answers: Any, how: How) -> dict[str, str]:
        """Return the contents that the images of tiles are stored with, by id."""
        ids = list(dict.fromkeys(hit["entity"][ID] for hits in answers for hit in hits))
        rows = [
            row
            for some in slices(ids, MAX_IDS)
            for row in self._read(
                record,
                physical,
                "query",
                ids=some,
                output_fields=["sha256"],
                settled=how.consistency == "strong",
                consistency=CONSISTENCY.get(how.consistency or "", self._settings.consistency),
            )
        ]
        return {row[ID]: row["sha256"] for row in rows}


def _candidate(
    entity: Mapping[str, Any],
    distance: float,
    boxes: Sequence[tuple[float, float, float, float]],
    contents: Mapping[str, str],
    group_by: str | None,
) -> Candidate:
    number = tile_number(entity[TILE])
    sha256 = entity.get("sha256", "")
    return Candidate(
        id=entity[ID],
        distance=float(distance),
        sha256=sha256,
        group=entity.get(group_by) if group_by else None,
        box=boxes[number] if number < len(boxes) else None,
        is_stale=contents.get(entity[ID]) != sha256,
    )
