"""Collections themselves: create, list, bind to a model, give another index, drop."""

import logging
import re

from lookalike.errors import CollectionExists, CollectionNotFound, InvalidParameter
from lookalike.records import Collection, CollectionRequest, IndexKind, ModelInfo
from lookalike.vectorstore.checks import TILES_SUFFIX, at_address, check_model, checked_name, parted, physical_name
from lookalike.vectorstore.connection import as_errors
from lookalike.vectorstore.contents import SUFFIX
from lookalike.vectorstore.indexes import index_params, metric_for
from lookalike.vectorstore.schema import milvus_schema
from lookalike.vectorstore.tiles import TileRows

log = logging.getLogger(__name__)


class Lifecycle(TileRows):
    """What can be done with whole collections."""

    def create(self, request: CollectionRequest) -> Collection:
        """Create an empty collection, not yet bound to a model; raises `CollectionExists`."""
        if "metric" in request.model_fields_set and metric_for(request.index, request.metric) is not request.metric:
            raise InvalidParameter("The preset `tutorial` has the metric L2. Leave the metric out, or set it to L2.")
        record = Collection(
            name=request.name,
            metric=metric_for(request.index, request.metric),
            index=request.index,
            tiles=request.tiles,
        )
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

    def recent(self, name: str) -> Collection:
        """Return a collection's settings and models as this process saw them up to three seconds ago.

        For what asks about each search, and would spend a strong read on it. One that was deleted, or given another
        model, meanwhile is found out when its vectors are asked for; what is not bound to a model is never remembered.
        """
        with as_errors():
            record = self._catalog.find(checked_name(name))
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
                if re.fullmatch(f"{name}__[0-9a-f]{{12}}({SUFFIX}|{TILES_SUFFIX})?", physical):
                    self._milvus.discard("drop_collection", physical, timeout_s=self._write_s)
            self._catalog.remove(name)
        self._bound.pop(name, None)

    def bind(self, name: str, model: ModelInfo) -> Collection:
        """Make a collection ready for this model's vectors; `name` may be the address of those.

        Creates it, with the settings' metric and index, if missing. Costs one small query when repeated, and may be
        called by several workers at once. Raises `ModelMismatch` where another model serves the collection, or is the
        one at the address.
        """
        public, prefix = parted(name)
        with as_errors():
            record = self._catalog.read(public)  # As it is now: it may have been deleted since the last chunk.
            bound = self._bound.get(name) == model.fingerprint
            if record is None or record.model is None or not (bound or _is_aside(record, prefix)):
                with self._structural(public):
                    record = self._bind(public, model)
        check_model(at_address(record, name, prefix), model)
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
        if record.model is None:
            spec = self._spec(bound)
            log.info("collection %s gets the index %s: %s", name, spec, spec.reason)
        physical = self._make_physical(bound, model)
        self._milvus.point(name, physical, timeout_s=self._write_s)
        # The record goes last: until it names the model, nobody reads or writes the physical collection.
        if record.model is None:
            self._catalog.write(bound)
        return self._catalog.read(name) or bound

    def _make_physical(self, record: Collection, model: ModelInfo) -> str:
        """Make what holds a collection's vectors of one model, where it is missing; returns its name."""
        physical = physical_name(record.name, model.fingerprint)
        spec = self._spec(record.model_copy(update={"model": model}))
        self._milvus.create(
            physical,
            lambda: milvus_schema(model.dim),
            index_params(record.metric, spec),
            consistency=self._settings.consistency,
            timeout_s=self._write_s,
        )
        self._contents.create(physical)
        self._make_tiles(record.model_copy(update={"model": model}), physical)
        return physical

    def outgrown(self, name: str) -> str | None:
        """Return advice to whoever runs the service, where a collection with the index AUTO is larger than is good."""

        def work(record: Collection, physical: str) -> str | None:
            advice = self._spec(record, self._count(record, physical)).advice
            return advice if record.index is IndexKind.AUTO and advice else None

        with as_errors():
            return self._with_physical(name, work, unbound=None)


def _is_aside(record: Collection, prefix: str) -> bool:
    """Tell whether an address is that of vectors that do not serve, which are there from when they are recorded."""
    return bool(prefix) and record.model is not None and not record.model.fingerprint.startswith(prefix)
