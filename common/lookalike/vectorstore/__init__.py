"""The vector store: collections of images in Milvus, by their public names.

Ingest workers bind a collection to their model and upsert; search workers search; the front end creates, lists, looks
up and deletes. What Milvus is asked, in which words, and what its answers mean is known here and nowhere else: no other
part of the project imports pymilvus. Importing this package does not, either; the first call to a server does.
"""

from lookalike.vectorstore.checks import parted, physical_name
from lookalike.vectorstore.schema import (
    Candidate,
    Found,
    RowPlace,
    RowState,
    StoredImage,
    check_group_field,
    check_metadata,
)
from lookalike.vectorstore.searching import How
from lookalike.vectorstore.store import VectorStore

__all__ = [
    "Candidate",
    "Found",
    "How",
    "RowPlace",
    "RowState",
    "StoredImage",
    "VectorStore",
    "check_group_field",
    "check_metadata",
    "parted",
    "physical_name",
]
