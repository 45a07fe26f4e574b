"""Walking through a collection: its images in the order of their ids, all of them or those that a filter matches."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidFilter
from lookalike.records import Collection
from lookalike.vectorstore.checks import check_ids, filter_refused, model_of
from lookalike.vectorstore.connection import Refusal, RefusalKind, as_errors
from lookalike.vectorstore.lookups import Lookups
from lookalike.vectorstore.schema import ID, OUTPUT_FIELDS, VECTOR, StoredImage, from_row

MAX_PAGE: Final = 16_384  #: Rows that Milvus returns at once.

_Row = dict[str, Any]


class Walks(Lookups):
    """What can be read of a collection page by page. A page costs a scan of what its filter cannot exclude.

    A page holds the images whose ids are greater than `after`; the next one is asked for with the last id of this one.
    An empty page is the end. Images that are stored or deleted meanwhile may be in one or not; each of the others is in
    exactly one.
    """

    def count_matching(self, name: str, filter: str) -> int:
        """Count the images that a filter matches; raises `InvalidFilter`."""

        def work(record: Collection, physical: str) -> int:
            rows = self._filtered(record, physical, filter, output_fields=["count(*)"])
            return int(rows[0]["count(*)"])

        with as_errors():
            return self._with_physical(name, work, unbound=0)

    def matching(self, name: str, filter: str | None = None, *, after: str | None, limit: int) -> list[StoredImage]:
        """Return a page of images; raises `InvalidFilter`."""
        return [from_row(row[ID], row) for row in self._page(name, filter, after, limit, OUTPUT_FIELDS)]

    def listed(
        self, name: str, filter: str | None = None, *, after: str | None, limit: int
    ) -> tuple[list[StoredImage], str | None]:
        """Return a page that is full unless it is the last, and what the next one is asked for with, None at the end.

        Links to originals that are gone are taken back. Raises `InvalidFilter`.
        """
        found: list[StoredImage] = []
        while len(found) < limit:
            # A page that is not full need not be the last: Milvus ends it where one of its segments ends.
            page = self.matching(name, filter, after=found[-1].id if found else after, limit=limit - len(found))
            if not page:
                break
            found += page

        def link(record: Collection, physical: str) -> list[StoredImage]:
            return self._linked(record, physical, found)

        with as_errors():
            linked = self._with_physical(name, link, unbound=found)
        return linked, linked[-1].id if len(linked) == limit else None

    def matching_among(self, name: str, filter: str, ids: Sequence[str]) -> set[str]:
        """Return those of these images, at most `MAX_PAGE`, that a filter matches now; raises `InvalidFilter`."""
        check_ids(ids)
        named = ", ".join(f'"{image_id}"' for image_id in ids)

        def work(record: Collection, physical: str) -> list[_Row]:
            self._filtered(record, physical, filter, output_fields=[ID], limit=1)
            among = f"({filter}) and {ID} in [{named}]"
            return self._filtered(record, physical, among, output_fields=[ID], limit=MAX_PAGE)

        with as_errors():
            return {row[ID] for row in self._with_physical(name, work, unbound=list[_Row]())} if ids else set()

    def matching_vectors(
        self, name: str, filter: str | None = None, *, after: str | None, limit: int
    ) -> tuple[list[StoredImage], NDArray[np.float32]]:
        """Return a page of images with their vectors, shape (n, dim); raises `InvalidFilter`."""
        rows = self._page(name, filter, after, limit, [*OUTPUT_FIELDS, VECTOR])
        vectors = np.asarray([row.pop(VECTOR) for row in rows], dtype=np.float32)
        return [from_row(row[ID], row) for row in rows], vectors

    def _page(self, name: str, filter: str | None, after: str | None, limit: int, fields: Sequence[str]) -> list[_Row]:
        check_ids([after] if after is not None else [])

        def work(record: Collection, physical: str) -> list[_Row]:
            expression = f'{ID} > "{after or ""}"'
            if filter is not None:
                if after is not None:
                    # Alone first: in parentheses something like `a) or (b` would be a whole.
                    self._filtered(record, physical, filter, output_fields=[ID], limit=1)
                expression = f"({filter}) and {expression}" if after is not None else filter
            return self._filtered(
                record,
                physical,
                expression,
                output_fields=list(fields),
                limit=max(1, min(limit, MAX_PAGE)),
                iterator="True",  # Without, Milvus Lite gives the rows in the order of its files.
            )

        with as_errors():
            return self._with_physical(name, work, unbound=list[_Row]())

    def _filtered(self, record: Collection, physical: str, expression: str, **how: Any) -> list[_Row]:
        if not expression.strip():
            raise InvalidFilter
        model_of(record)
        try:
            return list(self._read(record, physical, "query", settled=True, filter=expression, **how))
        except Refusal as refusal:
            if refusal.kind is RefusalKind.OTHER:
                raise filter_refused(refusal.reason) from refusal
            raise
