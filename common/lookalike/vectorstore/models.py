"""A collection's models: the one that serves, those that are filled beside it, and those that served before.

The vectors of each stand in a physical collection of their own. The catalog says which of them serves; the alias
follows it, and who finds the two apart goes by the catalog.
"""

from typing import Final

from lookalike.errors import (
    CollectionNotFound,
    InvalidRequest,
    ModelInUse,
    ReembeddingIncomplete,
    TooManyItems,
)
from lookalike.records import Collection, CollectionModel, ModelInfo, ModelState
from lookalike.vectorstore.checks import TILES_SUFFIX, checked_name, model_at, model_of, physical_name
from lookalike.vectorstore.connection import as_errors
from lookalike.vectorstore.contents import SUFFIX
from lookalike.vectorstore.lifecycle import Lifecycle

MAX_MODELS: Final = 8  #: Of one collection; all their records stand in one row of the catalog.


class Models(Lifecycle):
    """What can be done about a collection's models. A model is named by its fingerprint."""

    def add_model(self, name: str, model: ModelInfo) -> Collection:
        """Have a collection take the vectors of a model besides its own; one that is retired becomes a shadow again.

        Raises `ModelInUse` for the one that serves, and `InvalidRequest` where there is none yet.
        """
        with as_errors(), self._structural(checked_name(name)):
            record = self._recorded(name)
            if record.model is None:
                raise InvalidRequest("This collection has no images yet, so there is nothing to embed again.")
            if record.model.fingerprint == model.fingerprint:
                raise ModelInUse
            others = [one for one in _models(record) if one.model.fingerprint != model.fingerprint]
            if len(others) >= MAX_MODELS:
                raise TooManyItems(f"A collection has vectors of at most {MAX_MODELS} models. Drop one of them first.")
            self._make_physical(record, model)
            # The record goes last: until it names the model, nobody reads or writes its vectors.
            shadow = CollectionModel(model=model, state=ModelState.SHADOW)
            return self._written(record.model_copy(update={"models": (*others, shadow)}))

    def switch(self, name: str, fingerprint: str, *, force: bool = False) -> Collection:
        """Have another of a collection's models serve it; the one that does is retired.

        Raises `ModelNotFound`, and `ReembeddingIncomplete` where fewer images are stored with it, unless told to
        `force` it. Repeated, it only sees to the alias.
        """
        if not force:
            self._check_complete(self.collection(name), fingerprint)
        with as_errors(), self._structural(checked_name(name)):
            record = self._recorded(name)
            target = model_at(record, fingerprint)
            serving = model_of(record).fingerprint
            physical = physical_name(name, target.fingerprint)
            if target.fingerprint != serving:
                states = {target.fingerprint: ModelState.SERVING, serving: ModelState.RETIRED}
                models = tuple(
                    one.model_copy(update={"state": states.get(one.model.fingerprint, one.state)})
                    for one in _models(record)
                )
                # The alias goes last: it is not read by while there are several models.
                record = self._written(record.model_copy(update={"model": target, "models": models}))
            self._milvus.point(name, physical, timeout_s=self._write_s)
        return record

    def drop_model(self, name: str, fingerprint: str) -> Collection:
        """Delete a collection's vectors of one model; raises `ModelNotFound`, and `ModelInUse` where it serves."""
        with as_errors(), self._structural(checked_name(name)):
            record = self._recorded(name)
            target, serving = model_at(record, fingerprint), model_of(record)
            if target.fingerprint == serving.fingerprint:
                raise ModelInUse
            left = tuple(one for one in record.models if one.model.fingerprint != target.fingerprint)
            # It may stand for the other yet, if a switch was cut short.
            self._milvus.point(name, physical_name(name, serving.fingerprint), timeout_s=self._write_s)
            # The record goes first, so that nobody waits for what is half gone. What a crash leaves of it is found by
            # the next re-embedding with that model, and deleted with the collection.
            record = self._written(record.model_copy(update={"models": left if len(left) > 1 else ()}))
            physical = physical_name(name, target.fingerprint)
            for one in (physical, physical + SUFFIX, physical + TILES_SUFFIX):
                self._milvus.discard("drop_collection", one, timeout_s=self._write_s)
        self._bound.pop(physical, None)
        return record

    def counted(self, record: Collection) -> Collection:
        """Return a bound collection's record with all its models, and how many images are stored with each."""
        models = tuple(
            one.model_copy(update={"count": self._count_of(record.name, one.model)}) for one in _models(record)
        )
        return record.model_copy(update={"models": models})

    def _count_of(self, name: str, model: ModelInfo) -> int:
        with as_errors():
            return self._with_physical(physical_name(name, model.fingerprint), self._count, unbound=0)

    def _check_complete(self, record: Collection, fingerprint: str) -> None:
        target = model_at(record, fingerprint)
        stored, there = (self._count_of(record.name, model) for model in (model_of(record), target))
        if there < stored:
            raise ReembeddingIncomplete(
                f"The collection has {stored} images, and {there} of them with this model. Re-embed it again to catch "
                "up, or say that it may be incomplete."
            )

    def _recorded(self, name: str) -> Collection:
        record = self._catalog.read(name)
        if record is None:
            raise CollectionNotFound
        return record

    def _written(self, record: Collection) -> Collection:
        self._catalog.write(record)
        return record


def _models(record: Collection) -> tuple[CollectionModel, ...]:
    """All of a collection's models, that of one with a single one included."""
    if record.models or record.model is None:
        return record.models
    return (CollectionModel(model=record.model, state=ModelState.SERVING),)
