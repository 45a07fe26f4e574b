"""Searching: the images closest to a vector, whole or only as far as tells which of them become hits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import InvalidFilter, InvalidParameter
from lookalike.records import Background, Collection
from lookalike.vectorstore.checks import check_ids, check_vectors, filter_refused, model_of
from lookalike.vectorstore.connection import Refusal, RefusalKind, as_errors
from lookalike.vectorstore.lookups import MAX_LIMIT, Lookups
from lookalike.vectorstore.schema import (
    ID,
    OUTPUT_FIELDS,
    VECTOR,
    Candidate,
    Found,
    StoredImage,
    check_group_field,
    from_hit,
    from_row,
)

CONSISTENCY: Final = {"strong": "Strong", "bounded": "Bounded"}

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class How:
    """How a search looks, apart from what for. Searches that look the same way share a call."""

    filter: str | None = None  #: A Milvus expression over an image's fields and metadata.
    params: Mapping[str, int] = field(default_factory=dict)  #: `ef` or `nprobe`, where the index takes it.
    consistency: str | None = None  #: `strong` or `bounded`; the settings' where None.


class Searches(Lookups):
    """What can be found by likeness.

    Raises `InvalidFilter` where Milvus does not take the filter; a field that no image has matches nothing. Raises
    `InvalidParameter` for a parameter that the index has not.
    """

    def search(
        self,
        name: str,
        vectors: NDArray[np.float32],
        *,
        limit: int,
        filter: str | None = None,
        params: Mapping[str, int] | None = None,
        consistency: str | None = None,
    ) -> list[list[Found]]:
        """Find the closest images to each of (nq, dim) vectors, closest first, at most `limit` each."""
        how = How(filter=filter, params=params or {}, consistency=consistency)

        def work(record: Collection, physical: str) -> list[list[Found]]:
            answers = self._answers(record, physical, vectors, limit, how, OUTPUT_FIELDS)
            found = [[from_hit(hit) for hit in hits] for hits in answers]
            images = [one.image for hits in found for one in hits]
            linked = iter(self._linked(record, physical, images, consistency=CONSISTENCY.get(consistency or "")))
            return [[replace(one, image=next(linked)) for one in hits] for hits in found]

        return self._searched(name, limit, len(vectors), work)

    def candidates(
        self, name: str, vectors: NDArray[np.float32], *, limit: int, how: How, group_by: str | None = None
    ) -> list[list[Candidate]]:
        """Find the same as `search`, with no more of each image than its content and its value of a field."""
        fields = ["sha256"]
        if group_by is not None:
            check_group_field(group_by)
            fields += [group_by] if group_by not in fields else []

        def work(record: Collection, physical: str) -> list[list[Candidate]]:
            answers = self._answers(record, physical, vectors, limit, how, fields)
            return [[_candidate(hit, group_by) for hit in hits] for hits in answers]

        return self._searched(name, limit, len(vectors), work)

    def images(self, name: str, ids: Sequence[str], *, consistency: str | None = None) -> dict[str, StoredImage]:
        """Return those of these images that are stored, by id, as `search` returns them."""
        check_ids(ids)

        def work(record: Collection, physical: str) -> list[StoredImage]:
            rows = self._rows(ids, OUTPUT_FIELDS, settled=False)(record, physical)
            found = [from_row(row[ID], row) for row in rows]
            return self._linked(record, physical, found, consistency=CONSISTENCY.get(consistency or ""))

        return {image.id: image for image in self._unless_missing(name, work)}

    def check_params(self, name: str, params: Mapping[str, int]) -> None:
        """Raise `InvalidParameter` for search parameters that a collection's index does not take."""
        with as_errors():
            record = self._catalog.find(name)
            if record is not None and record.model is not None:
                self._search_params(record, 1, params)

    def keep_background(self, name: str, background: Background) -> None:
        """Write down how far apart random pairs of a collection are; nothing where it is gone, or has another model."""
        with as_errors(), self._structural(name):
            record = self._catalog.read(name)
            if record is not None and record.model is not None and record.model.fingerprint == background.fingerprint:
                self._catalog.write(record.model_copy(update={"background": background}))

    def _searched(
        self, name: str, limit: int, queries: int, work: Callable[[Collection, str], list[list[_T]]]
    ) -> list[list[_T]]:
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidParameter(f"The limit is between 1 and {MAX_LIMIT}.")
        nothing: list[list[_T]] = [[] for _ in range(queries)]
        with as_errors():
            return self._with_physical(name, work, unbound=nothing)

    def _answers(
        self,
        record: Collection,
        physical: str,
        vectors: NDArray[np.float32],
        limit: int,
        how: How,
        fields: Sequence[str],
    ) -> Any:
        check_vectors(vectors, model_of(record).dim)
        if how.filter is not None and not how.filter.strip():
            raise InvalidFilter
        params = {"metric_type": record.metric.value, "params": self._search_params(record, limit, how.params)}
        try:
            return self._read(
                record,
                physical,
                "search",
                # Only searches may trade freshness for speed: counts and what an ingest skips by have to be true now.
                consistency=CONSISTENCY.get(how.consistency or "", self._settings.consistency),
                # Lite hides rows that are being written from searches that go by an approximate index.
                settled=how.consistency == "strong",
                data=list(vectors),
                limit=limit,
                # Never put in parentheses: that would make a whole of `a) or (b`. Nothing of ours is combined with it.
                filter=how.filter or "",
                search_params=params,
                output_fields=list(fields),
                anns_field=VECTOR,
            )
        except Refusal as refusal:
            # Everything else about the request was checked here.
            if how.filter is not None and refusal.kind is RefusalKind.OTHER:
                raise filter_refused(refusal.reason) from refusal
            raise

    def _search_params(self, record: Collection, limit: int, asked: Mapping[str, int]) -> dict[str, int]:
        spec = self._spec(record)
        params = spec.search_params(limit)
        unknown = sorted(set(asked) - set(params))
        if unknown:
            takes = f"takes only `{next(iter(params))}`" if params else "is exact, and takes no parameters"
            raise InvalidParameter(
                f"The index of this collection ({spec.index_type}) {takes}. Leave `params.{unknown[0]}` out."
            )
        chosen = {**params, **asked}
        if "ef" in chosen:
            chosen["ef"] = max(chosen["ef"], limit)
        if "nprobe" in chosen:
            chosen["nprobe"] = min(chosen["nprobe"], spec.build.get("nlist", chosen["nprobe"]))
        return chosen


def _candidate(hit: Mapping[str, Any], group_by: str | None) -> Candidate:
    entity = hit["entity"]
    group = entity.get(group_by) if group_by else None
    return Candidate(id=hit[ID], distance=float(hit["distance"]), sha256=entity.get("sha256", ""), group=group)
