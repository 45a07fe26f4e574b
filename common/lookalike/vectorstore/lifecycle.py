"""Collections themselves: create, list, bind to a model, give another index, drop."""

import logging
import re

from lookalike.errors import CollectionExists, CollectionNotFound, InvalidParameter
from lookalike.records import Collection, CollectionRequest, IndexKind, ModelInfo
from lookalike.vectorstore.access import Access
from lookalike.vectorstore.checks import check_model, checked_name, physical_name
from lookalike.vectorstore.connection import as_errors
from lookalike.vectorstore.contents import SUFFIX
from lookalike.vectorstore.indexes import ServerKind, index_params, metric_for, replaceable
from lookalike.vectorstore.schema import VECTOR, milvus_schema

log = logging.getLogger(__name__)


class Lifecycle(Access):
    """What can be done with whole collections."""

    def create(self, request: CollectionRequest) -> Collection:
        """Create an empty collection, not yet bound to a model; raises `CollectionExists`."""
        if "metric" in request.model_fields_set and metric_for(request.index, request.metric) is not request.metric:
            raise InvalidParameter("The preset `tutorial` has the metric L2. Leave the metric out, or set it to L2.")
        record = Collection(name=request.name, metric=metric_for(request.index, request.metric), index=request.index)
        with as_errors(), self._structural(record.name):
            if self._catalog.read(record.name) is not None:
                raise CollectionExists
            self._catalog.write(record)
        return record

    def collection(self, name: str) -> Collection:
        """Return a collection's settings and model, as they are now."""
        with as_errors():
            record = self._catalog.read(checked_name(name))
        if record is None:
            raise CollectionNotFound
        return record

    def collections(self) -> list[Collection]:
        """Return all collections by name."""
        with as_errors():
            return self._catalog.read_all()

    def drop(self, name: str) -> None:
        """Delete a collection with all its vectors."""
        with as_errors(), self._structural(checked_name(name)):
            if self._catalog.read(name) is None:
                raise CollectionNotFound
            # The record goes last: a drop that was cut short can be called again.
            self._milvus.discard("drop_alias", name, timeout_s=self._write_s)
            for physical in self._milvus.call("list_collections", timeout_s=self._read_s):
                if re.fullmatch(f"{name}__[0-9a-f]{{12}}({SUFFIX})?", physical):
                    self._milvus.discard("drop_collection", physical, timeout_s=self._write_s)
            self._catalog.remove(name)
        self._bound.pop(name, None)

    def bind(self, name: str, model: ModelInfo) -> Collection:
        """Make a collection ready for this model's vectors.

        Creates it, with the settings' metric and index, if missing. Costs one small query when repeated, and may be
        called by several workers at once. Raises `ModelMismatch` where the collection has another model.
        """
        with as_errors():
            record = self._catalog.read(
                checked_name(name)
            )  # As it is now: it may have been deleted since the last chunk.
            if record is None or record.model is None or self._bound.get(name) != model.fingerprint:
                with self._structural(name):
                    record = self._bind(name, model)
        check_model(record, model)
        self._bound[name] = model.fingerprint
        return record

    def _bind(self, name: str, model: ModelInfo) -> Collection:
        record = self._catalog.read(name) or Collection(
            name=name,
            metric=metric_for(self._settings.index, self._settings.metric),
            index=self._settings.index,
        )
        check_model(record, model)
        bound = record.model_copy(update={"model": model})
        physical = physical_name(name, model.fingerprint)
        spec = self._spec(bound)
        if record.model is None:
            log.info("collection %s gets the index %s: %s", name, spec, spec.reason)
        self._milvus.create(
            physical,
            lambda: milvus_schema(model.dim),
            index_params(bound.metric, spec),
            consistency=self._settings.consistency,
            timeout_s=self._write_s,
        )
        self._contents.create(physical)
        self._milvus.point(name, physical, timeout_s=self._write_s)
        # The record goes last: until it names the model, nobody reads or writes the physical collection.
        if record.model is None:
            self._catalog.write(bound)
        return self._catalog.read(name) or bound

    def maintain(self, name: str) -> str | None:
        """Give a small collection with the index AUTO the one it would get today; returns what changed, if anything.

        For an ingest worker to call when a job ends. AUTO's index does for every size, so it is only replaced where it
        is of an earlier version; searches that come meanwhile wait for the new one, so larger collections keep theirs.
        Where the server is Milvus Lite nothing is changed; one that is outgrown is warned of in the log.
        """
        with as_errors():
            return self._with_physical(name, self._maintain, unbound=None)

    def _maintain(self, record: Collection, physical: str) -> str | None:
        if record.index is not IndexKind.AUTO:
            return None
        rows = self._count(record, physical)
        wanted = self._spec(record, rows)
        if self._milvus.kind is ServerKind.LITE:
            if wanted.advice:
                log.warning("collection %s: %s", record.name, wanted.advice)
            return None
        with self._lock(record.name):
            current = self._milvus.call("describe_index", physical, VECTOR, timeout_s=self._read_s)
            if not replaceable(current, wanted, rows):
                return None
            params = index_params(record.metric, wanted)
            self._milvus.replace_index(physical, params, alias=record.name, timeout_s=self._write_s)
        return f"index {current['index_type']} replaced by {wanted}: {wanted.reason}"
