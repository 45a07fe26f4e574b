"""The error tree: what can go wrong, each with a stable code, a sentence and a next step.

An exception's docstring is its default message: the first sentence says what happened, the rest what to do next.
Nothing here knows HTTP; the web package's error table maps these classes to status numbers.
"""

from typing import ClassVar


class LookalikeError(Exception):
    """Something went wrong inside lookalike. The service's log has the details."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or " ".join((self.__doc__ or self.code).split())
        super().__init__(self.message)


# --- Requests that cannot be accepted -------------------------------------------------------------------------------


class InvalidRequest(LookalikeError):
    """The request does not have the documented form. See /docs for the fields it takes."""

    code = "invalid_request"


class InvalidParameter(InvalidRequest):
    """A parameter is outside its documented range. See /docs for the values it takes."""

    code = "invalid_parameter"


class InvalidFilter(InvalidRequest):
    """The filter is not an expression that Milvus accepts. Compare a field with a value, as in: album == 'spring'."""

    code = "invalid_filter"


class InvalidPath(InvalidRequest):
    """The path is outside every folder this service may read. Start the service with --root for that folder."""

    code = "invalid_path"


class InvalidURL(InvalidRequest):
    """This is not an http or https address on a port that the service fetches from. Check its spelling."""

    code = "invalid_url"


class URLIngestDisabled(LookalikeError):
    """This service does not fetch addresses. Start it with LOOKALIKE_URL_INGEST=true if it is meant to."""

    code = "url_ingest_disabled"


class FolderNotFound(LookalikeError):
    """There is no such folder under the roots of this service. Check the spelling, or upload the images instead."""

    code = "folder_not_found"


class Unauthorized(LookalikeError):
    """The API key is missing or wrong. Send it as: Authorization: Bearer KEY."""

    code = "unauthorized"


class RateLimited(LookalikeError):
    """Too many requests in a short time. Try again after the seconds in Retry-After."""

    code = "rate_limited"


class PayloadTooLarge(LookalikeError):
    """The request is larger than this service accepts. Send fewer or smaller images in one request."""

    code = "payload_too_large"


class TooManyItems(LookalikeError):
    """The request names more items than this service takes at once. Split it into several requests."""

    code = "too_many_items"


class IdempotencyConflict(LookalikeError):
    """This Idempotency-Key was used for another request. Use a new key for a new request."""

    code = "idempotency_conflict"


# --- Things that are not there --------------------------------------------------------------------------------------


class JobNotFound(LookalikeError):
    """There is no job with this id. `lookalike jobs ls` lists those that exist."""

    code = "job_not_found"


class JobExpired(LookalikeError):
    """This job finished long ago and its record has expired. Submit it again if its result is still needed."""

    code = "job_expired"


class JobNotFinal(LookalikeError):
    """The job still runs, so what failed in it is not known yet. Wait until it is final, or cancel it."""

    code = "job_not_final"


class CollectionNotFound(LookalikeError):
    """No such collection. `lookalike collections ls` lists those that exist; an ingest creates a missing one."""

    code = "collection_not_found"


class CollectionExists(LookalikeError):
    """A collection of this name exists already. Choose another name, or delete the existing one first."""

    code = "collection_exists"


class ImageNotFound(LookalikeError):
    """No image with this id is stored in this collection. Image ids are in the hits of a search."""

    code = "image_not_found"


class UploadNotFound(LookalikeError):
    """There is no such upload, or not any more. Upload the file again."""

    code = "upload_not_found"


class UploadConflict(LookalikeError):
    """The upload does not stand where this request continues it. Ask for its offset, and go on from there."""

    code = "upload_conflict"

    def __init__(self, message: str | None = None, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset  #: Where the upload stands: bytes that have arrived.


class UploadMismatch(LookalikeError):
    """What arrived does not have the SHA-256 that the upload was announced with. It was dropped: upload it again."""

    code = "upload_mismatch"


# --- Services that cannot be reached or are full --------------------------------------------------------------------


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


class DatasetUnreachable(LookalikeError):
    """The set of images could not be downloaded. Run the command again to go on where it stopped."""

    code = "dataset_unreachable"


class ChecksumMismatch(LookalikeError):
    """What was downloaded is not the file that was published. It was dropped; try again later."""

    code = "checksum_mismatch"


class WaitTimeout(LookalikeError):
    """The job had not finished when the waiting time was over. It goes on; wait for it again by its id."""

    code = "wait_timeout"


class JobFailed(LookalikeError):
    """The job failed. Its record's `error` field says why."""

    code = "job_failed"


class JobCancelled(LookalikeError):
    """The job was cancelled. What it had stored until then stays stored."""

    code = "job_cancelled"


class SourceUnavailable(LookalikeError):
    """The place the images are read from cannot be reached. The job goes on when it can be."""

    code = "source_unavailable"


class SourceEmpty(LookalikeError):
    """The source holds no image although the collection has images from it, so nothing was removed. Is it mounted?"""

    code = "source_empty"


class ManifestInvalid(LookalikeError):
    """The manifest cannot be read. It has to be JSON lines, CSV or Parquet, with a column for the images' addresses."""

    code = "manifest_invalid"


class ArchiveInvalid(LookalikeError):
    """The archive cannot be read any further. It has to be a zip or tar file, whole, without a password."""

    code = "archive_invalid"


class ArchiveTooLarge(LookalikeError):
    """The archive holds more than this service unpacks. Split it, or raise the LOOKALIKE_MAX_ARCHIVE_ settings."""

    code = "archive_too_large"


# --- Set-up ---------------------------------------------------------------------------------------------------------


class SetupError(LookalikeError):
    """The service cannot start as configured."""

    code = "setup_error"


class WeightsNotFound(SetupError):
    """The model's weights are not there. Set LOOKALIKE_WEIGHTS to a .pth or .safetensors file, or to `untrained`."""

    code = "weights_not_found"


class MissingExtra(SetupError):
    """Parts of lookalike that this needs are not installed. Install them with: pip install 'lookalike[local]'."""

    code = "missing_extra"


class PortInUse(SetupError):
    """Another program listens on this port. Stop it, or choose another port with --port."""

    code = "port_in_use"


class DataFolderLocked(SetupError):
    """Another lookalike runs on this data folder. Stop it with `lookalike down`, or choose another with --data-dir."""

    code = "data_folder_locked"


class StartFailed(SetupError):
    """A process of the stack ended while it was starting. Its log, under `logs` in the data folder, says why."""

    code = "start_failed"


class NotRunning(SetupError):
    """No lookalike runs on this data folder. Start one with `lookalike up`."""

    code = "not_running"


class ModelMismatch(LookalikeError):
    """The collection was made with another model. Use a worker with that model, or ingest into a new collection."""

    code = "model_mismatch"


class Quarantined(LookalikeError):
    """Workers died on this work several times, so it was set aside. Look at the worker's log before trying again."""

    code = "quarantined"


# --- One image that cannot be used ----------------------------------------------------------------------------------


class ImageError(LookalikeError):
    """This image cannot be used."""

    code = "image_error"


class FileMissing(ImageError):
    """There is no such file, or not any more. Check its path; it may have been moved or deleted."""

    code = "file_missing"


class FileEmpty(ImageError):
    """The file has no bytes. Copy it again from its source."""

    code = "file_empty"


class FileTooLarge(ImageError):
    """The file is larger than this service reads. Raise LOOKALIKE_MAX_FILE_BYTES if it is meant to."""

    code = "file_too_large"


class NotRegularFile(ImageError):
    """This is a folder, a link out of its root, a pipe, a device or a socket. Name a regular file."""

    code = "not_regular_file"


class PermissionDenied(ImageError):
    """The service may not read this file. Give its user the right to."""

    code = "permission_denied"


class InvalidFilename(ImageError):
    """The file's path is not UTF-8 or too long. Rename it."""

    code = "invalid_filename"


class UnsupportedFormat(ImageError):
    """The file is not a JPEG, PNG, WebP, BMP or GIF image, whatever its name says. Convert it to one of these."""

    code = "unsupported_format"


class ImageCorrupt(ImageError):
    """The image's data is broken. Restore it from its source."""

    code = "image_corrupt"


class ImageTruncated(ImageError):
    """The image ends too early. Copy it again from its source."""

    code = "image_truncated"


class ImageTooLarge(ImageError):
    """The image has more pixels than this service decodes. Raise LOOKALIKE_MAX_PIXELS if it is meant to."""

    code = "image_too_large"


class ImageTooSmall(ImageError):
    """The image is too small to be compared. Both sides need at least LOOKALIKE_MIN_SIDE_PX pixels."""

    code = "image_too_small"


class DecoderCrashed(ImageError):
    """The decoder crashed on this image. The image is likely damaged or hostile."""

    code = "decoder_crashed"


class DecodeTimeout(ImageError):
    """Decoding took too long. Raise LOOKALIKE_DECODE_TIMEOUT_S if the image is meant to be that large."""

    code = "decode_timeout"


class DecodeOutOfMemory(ImageError):
    """Decoding needed more memory than allowed. Raise LOOKALIKE_DECODE_MEMORY_BYTES if the image is meant to."""

    code = "decode_oom"


class EmbeddingInvalid(ImageError):
    """The network gave no usable vector for this image. Check the weights file."""

    code = "embedding_invalid"


class GPUOutOfMemory(ImageError):
    """The GPU has too little memory for even one image. Free memory on it, or set LOOKALIKE_DEVICE=cpu."""

    code = "gpu_oom"


class URLBlocked(ImageError):
    """The address leads to a network this service does not fetch from. Upload the image instead."""

    code = "url_blocked"


class TooManyRedirects(ImageError):
    """The address was redirected too often. Give the address it leads to in the end."""

    code = "too_many_redirects"


class URLUnreachable(ImageError):
    """The address could not be reached: no such host, a refused connection, or a certificate that does not fit."""

    code = "url_unreachable"


class URLTimeout(ImageError):
    """The address did not answer in time, or too slowly. Try again later, or raise LOOKALIKE_FETCH_TIMEOUT_S."""

    code = "url_timeout"


class URLHTTPError(ImageError):
    """The address answered with an HTTP error instead of an image."""

    code = "url_http_error"


def _tree(root: type[LookalikeError]) -> list[type[LookalikeError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


def error_classes() -> dict[str, type[LookalikeError]]:
    """Every error class by its code, for turning a stored or received code back into its class."""
    return {cls.code: cls for cls in _tree(LookalikeError)}
