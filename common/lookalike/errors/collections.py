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


class ImageNotFound(LookalikeError):
    """No image with this id is stored in this collection. Image ids are in the hits of a search."""

    code = "image_not_found"
