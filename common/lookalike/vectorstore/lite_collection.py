"""A Milvus Lite collection that reads as an incremental ingest needs it: by id and by range, many rows at a time.

Milvus Lite 3.2 makes a Python object of each value of each row it answers with, the vector included, and copies all
vectors of a collection for each query by anything but ids. Here the columns that were asked for are taken from its
Arrow tables. What is answered is the same; a server without this is slower, and needs more memory.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from milvus_lite.engine.collection import Collection
from milvus_lite.engine.projection import ProjectionPlan, build_projection_plan, project_record
from milvus_lite.search.indexed_filter import evaluate_segment_filter
from milvus_lite.storage.segment import Segment

_Row = dict[str, Any]
_Place = tuple[Segment, int]


class ColumnarCollection(Collection):  # type: ignore[misc]  # milvus_lite publishes no types
    """Milvus Lite's collection with its two ways to read rows replaced where they are called plainly."""

    def get(
        self,
        pks: list[Any],
        partition_names: list[str] | None = None,
        expr: str | None = None,
        output_fields: list[str] | None = None,
        timezone: str | None = None,
    ) -> list[_Row]:
        """Return the rows of these ids that exist, in their order."""
        if partition_names or expr:
            return list(super().get(pks, partition_names, expr, output_fields, timezone))
        self._require_loaded()
        plan = build_projection_plan(output_fields, self._schema, api_kind="get")
        memtable = self._memtable  # Before the snapshot: what is flushed in between is then in both, not in neither.
        segments, tombstones = self._read_snapshot()
        buffered = memtable.size() > 0
        rows: list[_Row | None] = [None] * len(pks)
        places: dict[int, _Place] = {}
        for position, pk in enumerate(pks):
            if buffered:
                if (row := memtable.get(pk)) is not None:
                    rows[position] = project_record(row, self._schema, plan)
                    continue
                if memtable.is_locally_deleted(pk):
                    continue
            place, seq = _newest(segments, pk)
            if place is not None and not tombstones.is_deleted(pk, seq):
                places[position] = place
        for position, row in zip(places, self._rows(list(places.values()), plan), strict=True):
            rows[position] = row
        return [row for row in rows if row is not None]

    def query(self, expr: str | None = None, output_fields: list[str] | None = None, **how: Any) -> list[_Row]:
        """Return the rows that match a filter: of `limit` from `offset` on, by id with `order_by_pk`."""
        memtable = self._memtable
        plain = not how.get("partition_names") and not how.get("timezone")
        if not expr or not plain or len(memtable.to_search_snapshot(vector_field=None)[0]) > 0:
            return list(super().query(expr, output_fields, **how))
        self._require_loaded()
        plan = build_projection_plan(output_fields, self._schema, api_kind="query")
        compiled = self._compile_filter(expr)
        indexed = self._indexed_filter_plan(compiled)
        segments, tombstones = self._read_snapshot()
        matches = [
            (segment.pks[row], number, row)
            for number, segment in enumerate(segments)
            for row in np.flatnonzero(evaluate_segment_filter(segment, compiled, indexed)).tolist()
        ]
        ordered: Iterator[tuple[Any, int, int]] = _ascending(matches) if how.get("order_by_pk") else iter(matches)
        offset, limit = how.get("offset", 0), how.get("limit")
        wanted = None if limit is None else offset + limit
        places: list[_Place] = []
        for pk, number, row in ordered:
            if len(places) == wanted:
                break
            # A newer version of the row may not match, and hides this one all the same.
            place, seq = _newest(segments, pk)
            if place != (segments[number], row) or tombstones.is_deleted(pk, seq) or memtable.is_locally_deleted(pk):
                continue
            places.append(place)
        return list(self._rows(places[offset:], plan))

    def _rows(self, places: Sequence[_Place], plan: ProjectionPlan) -> list[_Row]:
        """Read rows, of each segment all at once. Dynamic fields stay JSON, which the encoder of the answer unpacks."""
        names = list(dict.fromkeys([self._pk_name, *plan.response_schema_fields]))
        if plan.include_raw_meta:
            names.append("$meta")
        by_segment: dict[int, list[int]] = defaultdict(list)
        for position, (segment, _) in enumerate(places):
            by_segment[id(segment)].append(position)
        rows: list[_Row] = [{}] * len(places)
        for positions in by_segment.values():
            segment = places[positions[0]][0]
            taken = segment.table.select(names).take([places[position][1] for position in positions])
            columns = [column.to_pylist() for column in taken.columns]
            for position, values in zip(positions, zip(*columns, strict=True), strict=True):
                rows[position] = dict(zip(names, values, strict=True))
        return rows


def _newest(segments: Sequence[Segment], pk: Any) -> tuple[_Place | None, int]:
    """Find the latest version of a row among the segments, and its number in the order of writes."""
    found: _Place | None = None
    latest = -1
    for segment in segments:
        row = segment.pk_to_row.get(pk)
        if row is not None and (seq := int(segment.seqs[row])) > latest:
            found, latest = (segment, row), seq
    return found, latest


def _ascending(matches: list[tuple[Any, int, int]]) -> Iterator[tuple[Any, int, int]]:
    """Yield in ascending order, at a cost that grows with how many are taken."""
    heapq.heapify(matches)
    while matches:
        yield heapq.heappop(matches)
