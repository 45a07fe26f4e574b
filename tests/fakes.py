"""Stand-ins for what unit tests cannot have, and a front end built on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from lookalike.artifacts import Artifacts
from lookalike.decodepool import DecodePool
from lookalike.errors import (
    CollectionExists,
    CollectionNotFound,
    ImageNotFound,
    InvalidFilter,
    InvalidParameter,
    VectorStoreUnavailable,
)
from lookalike.jobstore import Lane, Limits
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.records import ChosenIndex, Collection, CollectionRequest
from lookalike.remote import Remote
from lookalike.roots import image_id
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.uploads.partials import Partials
from lookalike.vectorstore import StoredImage, check_metadata
from lookalike.vectorstore.reindexing import IndexFacts
from lookalike_web.app import create_app
from lookalike_web.services import Services
from lookalike_web.throttling import Throttle


@dataclass
class FakeVectorStore:
    """The part of `VectorStore` that the front end uses, in memory."""

    named: dict[str, Collection] = field(default_factory=dict)
    images: dict[str, dict[str, StoredImage]] = field(default_factory=dict)
    down: bool = False

    def _up(self) -> None:
        if self.down:
            raise VectorStoreUnavailable

    def ping(self) -> None:
        self._up()

    def collections(self) -> list[Collection]:
        self._up()
        return sorted(self.named.values(), key=lambda collection: collection.name)

    def recent(self, name: str) -> Collection:
        return self.collection(name)

    def collection(self, name: str) -> Collection:
        self._up()
        if name not in self.named:
            raise CollectionNotFound
        return self.named[name]

    def index_of(self, name: str) -> IndexFacts | None:
        """What a collection on a server has by itself."""
        record = self.collection(name)
        chosen = ChosenIndex(index_type="HNSW", params={"M": 16}, search={"ef": 128}, reason="it is a fake")
        return IndexFacts(chosen=chosen, metric=record.metric, is_exact=False) if record.model else None

    def check_reindex(self, name: str, **wanted: Any) -> None:
        """Take all but what no index has."""
        self.collection(name)
        if "nlists" in (wanted["build"] or {}):
            raise InvalidParameter

    def count(self, name: str) -> int:
        self.collection(name)
        return len(self.images.get(name, {}))

    def create(self, wanted: CollectionRequest) -> Collection:
        self._up()
        if wanted.name in self.named:
            raise CollectionExists
        return self.named.setdefault(wanted.name, Collection(**wanted.model_dump()))

    def drop(self, name: str) -> None:
        self.collection(name)
        del self.named[name]

    def get(self, name: str, image_id: str) -> StoredImage:
        self.collection(name)
        if image_id not in self.images.get(name, {}):
            raise ImageNotFound
        return self.images[name][image_id]

    def check_params(self, name: str, params: Mapping[str, int]) -> None:
        """Have an index that takes `ef` only."""
        self.collection(name)
        if set(params) - {"ef"}:
            raise InvalidParameter

    def states(self, name: str, ids: Sequence[str], *, settled: bool) -> dict[str, StoredImage]:
        """What a clean-up asks; a whole image has all that a row's state has."""
        self._up()
        assert settled, "a row that was written a moment ago counts"
        stored = self.images.get(name, {})
        return {key: stored[key] for key in ids if key in stored}

    def count_matching(self, name: str, filter: str) -> int:
        """Take every filter that could be one to match all."""
        if not filter.strip():
            raise InvalidFilter
        return self.count(name)

    def listed(
        self, name: str, filter: str | None, *, after: str | None, limit: int
    ) -> tuple[list[StoredImage], str | None]:
        """A page of images; every filter that could be one matches all."""
        self.collection(name)
        if filter is not None and not filter.strip():
            raise InvalidFilter
        found = [image for key, image in sorted(self.images.get(name, {}).items()) if key > (after or "")][:limit]
        return found, found[-1].id if len(found) == limit else None

    def patch_metadata(self, name: str, image_id: str, changes: dict[str, Any]) -> StoredImage:
        """As the store does it."""
        image = self.get(name, image_id)
        metadata = {key: value for key, value in {**image.metadata, **changes}.items() if value is not None}
        check_metadata(metadata)
        self.images[name][image_id] = replace(image, metadata=metadata)
        return self.images[name][image_id]

    def delete(self, name: str, ids: Sequence[str]) -> int:
        self.collection(name)
        return sum(self.images[name].pop(key, None) is not None for key in ids)

    def store(self, name: str, uri: str, *, sha256: str = "0" * 64, label: str = "") -> str:
        """Put an image in, as a worker would have."""
        self.named.setdefault(name, Collection(name=name))
        image = StoredImage(
            id=image_id(uri),
            uri=uri,
            name=label,
            sha256=sha256,
            size=1,
            mtime_ns=1,
            width=4,
            height=3,
            metadata={"album": "spring"},
        )
        self.images.setdefault(name, {})[image.id] = image
        return image.id


@dataclass
class FakeDoorbell:
    """Remembers which lanes were rung."""

    rung: list[Lane] = field(default_factory=list)

    def ring(self, lane: Lane, times: int = 1) -> None:
        self.rung += [lane] * times


@dataclass
class Web:
    """A front end in this process: real stores of files, an in-memory job store, a fake vector store."""

    services: Services
    client: FlaskClient

    @property
    def jobs(self) -> MemoryJobStore:
        return self.services.jobs  # type: ignore[return-value]

    @property
    def vectors(self) -> FakeVectorStore:
        return self.services.vectors  # type: ignore[return-value]

    @property
    def doorbell(self) -> FakeDoorbell:
        return self.services.doorbell  # type: ignore[return-value]

    @property
    def root(self) -> Path:
        return self.services.settings.roots[0]

    def close(self) -> None:
        self.services.close()


def build_web(folder: Path, **changed: Any) -> Web:
    """Build a front end whose root and data lie in `folder`."""
    root = folder / "root"
    root.mkdir()
    settings = Settings(**{"roots": (root,), "data_dir": folder / "data", "min_free_bytes": 0, **changed})
    sources = Sources.from_settings(settings)
    services = Services(
        settings=settings,
        jobs=MemoryJobStore(Limits.from_settings(settings)),
        doorbell=FakeDoorbell(),
        vectors=FakeVectorStore(),  # type: ignore[arg-type]
        roots=sources.roots,
        uploads=sources.uploads,
        partials=Partials(sources.uploads, max_bytes=settings.max_archive_bytes),
        artifacts=Artifacts.from_settings(settings),
        decoders=DecodePool(settings, processes=1),
        remote=Remote(settings),
        throttle=Throttle.connect(settings),
    )
    return Web(services, create_app(services).test_client())
