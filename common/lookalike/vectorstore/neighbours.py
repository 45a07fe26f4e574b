"""Range search: the images within a distance of each of many vectors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.records import Collection, Metric
from lookalike.vectorstore.checks import check_vectors, model_of
from lookalike.vectorstore.indexes import ServerKind
from lookalike.vectorstore.schema import ID, VECTOR
from lookalike.vectorstore.searching import Searches


class Neighbours(Searches):
    """Finds the images near to others."""

    def within(
        self, name: str, vectors: NDArray[np.float32], farthest: float, *, limit: int
    ) -> list[list[tuple[str, float]]]:
        """Return ids and distances of the images within `farthest` of each of (n, dim) vectors, closest first.

        At most `limit` of each, and of all that were stored before. A server searches by range; Milvus Lite, whose own
        range search walks over every row in Python, for the closest, of which those too far are left out.
        """

        def work(record: Collection, physical: str) -> list[list[tuple[str, float]]]:
            check_vectors(vectors, model_of(record).dim)
            is_l2 = record.metric is Metric.L2
            params: dict[str, Any] = dict(self._search_params(record, limit, {}))
            if self._milvus.kind is ServerKind.MILVUS:
                # The server leaves the radius itself out, and compares in single precision.
                away = np.float32(np.inf if is_l2 else -np.inf)
                params["radius"] = float(np.nextafter(np.float32(farthest), away))
            answers = self._read(
                record,
                physical,
                "search",
                settled=True,
                data=list(vectors),
                limit=limit,
                search_params={"metric_type": record.metric.value, "params": params},
                output_fields=[ID],
                anns_field=VECTOR,
            )
            found = [[(hit[ID], float(hit["distance"])) for hit in hits] for hits in answers]
            return [
                [(i, away) for i, away in hits if (away <= farthest if is_l2 else away >= farthest)] for hits in found
            ]

        return self._searched(name, limit, len(vectors), work)
