"""The store of collections: create, bind to a model, upsert, look up, search, delete.

A collection's public name is a Milvus alias of a physical collection that is named after the model as well, and exists
once a worker has bound the collection to its model. What is written goes to the physical collection of the writer's
model, so vectors of two models cannot meet, whatever happens to the name in between.
"""

from lookalike.settings import Settings
from lookalike.vectorstore.connection import CONNECT_TIMEOUT_S, as_errors
from lookalike.vectorstore.locks import RedisLocks
from lookalike.vectorstore.models import Models
from lookalike.vectorstore.neighbours import Neighbours
from lookalike.vectorstore.reindexing import Reindexing
from lookalike.vectorstore.tile_searching import TileSearches
from lookalike.vectorstore.walking import Walks
from lookalike.vectorstore.writes import Writes


class VectorStore(Models, Walks, Neighbours, TileSearches, Writes, Reindexing):
    """Collections of images in Milvus. Thread-safe; connects on first use, so it may be made before a fork.

    Every method raises `VectorStoreUnavailable` where Milvus cannot be reached in time, and `VectorStoreRejected` where
    it refuses for good; those that take a collection's name raise `CollectionNotFound`, unless they say otherwise.
    """

    @classmethod
    def connect(cls, settings: Settings) -> "VectorStore":
        """Make a store for a process that shares its collections with others: its locks are in Redis."""
        return cls(settings, write_lock=RedisLocks(settings))

    def close(self) -> None:
        """Close the connections."""
        self._milvus.close()
        if isinstance(self._lock, RedisLocks):
            self._lock.close()

    def ping(self) -> None:
        """Return if Milvus answers; raises `VectorStoreUnavailable` within a few seconds if not."""
        with as_errors():
            self._milvus.call("get_server_version", timeout_s=CONNECT_TIMEOUT_S)
