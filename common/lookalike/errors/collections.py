"""Collections and the images in them: missing, there already, or of another model."""

from lookalike.errors.base import LookalikeError


class CollectionNotFound(LookalikeError):
    """No such collection. `lookalike collections ls` lists those that exist; an ingest creates a missing one."""

    code = "collection_not_found"


class CollectionExists(LookalikeError):
    """A collection of this name exists already. Choose another name, or delete the existing one first."""

    code = "collection_exists"


class ModelMismatch(LookalikeError):
    """The collection was made with another model. Use a worker with that model, or ingest into a new collection."""

    code = "model_mismatch"


class ModelNotFound(LookalikeError):
    """The collection has no vectors of this model. `lookalike collections models` lists those that it has."""

    code = "model_not_found"


class ModelNotLive(LookalikeError):
    """No live worker has this model. Start workers with it beside those that run; /v1/info lists the live ones."""

    code = "model_not_live"


class ModelInUse(LookalikeError):
    """The collection is served by this model. Switch to another one first, or name another one."""

    code = "model_in_use"


class ReembeddingIncomplete(LookalikeError):
    """Images are missing among the vectors of this model. Re-embed again, or allow that they are missing."""

    code = "reembedding_incomplete"


class ImageNotFound(LookalikeError):
    """No image with this id is stored in this collection. Image ids are in the hits of a search."""

    code = "image_not_found"
