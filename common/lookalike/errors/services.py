"""Services and disks that cannot be reached, refuse, or are full."""

from lookalike.errors.base import LookalikeError


class QueueUnavailable(LookalikeError):
    """The job queue (Redis) cannot be reached or refuses writes. Nothing was accepted; try again in a few seconds."""

    code = "queue_unavailable"


class QueueFull(LookalikeError):
    """Too many jobs are waiting. Try again when some of them have finished."""

    code = "queue_full"


class InsufficientStorage(LookalikeError):
    """The data folder's disk is nearly full. Free some space, then send the images again."""

    code = "insufficient_storage"


class VectorStoreUnavailable(LookalikeError):
    """The vector store (Milvus) cannot be reached. Try again in a few seconds."""

    code = "vector_store_unavailable"


class VectorStoreRejected(LookalikeError):
    """The vector store (Milvus) refused the request for good. The service's log has its answer."""

    code = "vector_store_rejected"


class ServiceUnreachable(LookalikeError):
    """No lookalike service answers at this address. Start one with `lookalike up`, or name another with --url."""

    code = "service_unreachable"
