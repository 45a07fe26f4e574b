"""One image that cannot be used: these are the codes in a job's failures ledger."""

from lookalike.errors.base import LookalikeError


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


class RowInvalid(ImageError):
    """A row of the export does not describe an image. Export the collection again, or leave the row out."""

    code = "row_invalid"


class VectorInvalid(ImageError):
    """A row of the export has no vector that can be compared. Ingest its image instead."""

    code = "vector_invalid"


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
