"""Requests about a collection's models: embedding its images with another one, and having that serve it."""

from lookalike.records.base import CollectionName, ModelName, Record
from lookalike.records.requests import Priority, Webhook


class ReembedRequest(Record):
    """Body of `POST /v1/reembeds`."""

    collection: CollectionName = "default"
    model: ModelName  #: One of live workers, or one that the collection has vectors of already.
    switch: bool = False  #: Have it serve the collection once all is embedded.
    allow_missing: bool = False  #: Switch although some images could not be embedded.
    priority: Priority = Priority.NORMAL
    webhook: Webhook | None = None


class SwitchRequest(Record):
    """Body of `POST /v1/collections/{name}/switch`."""

    model: ModelName  #: One of those that the collection has vectors of.
    force: bool = False  #: Switch although fewer images are stored with it.
