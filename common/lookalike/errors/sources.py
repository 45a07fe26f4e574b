"""Places that images come from, as a whole: out of reach, empty, broken, or too large."""

from lookalike.errors.base import LookalikeError


class SourceUnavailable(LookalikeError):
    """The place the images are read from cannot be reached. The job goes on when it can be."""

    code = "source_unavailable"


class SourceEmpty(LookalikeError):
    """The source holds no image although the collection has images from it, so nothing was removed. Is it mounted?"""

    code = "source_empty"


class ManifestInvalid(LookalikeError):
    """The manifest cannot be read. It has to be JSON lines, CSV or Parquet, with a column for the images' addresses."""

    code = "manifest_invalid"


class ExportInvalid(LookalikeError):
    """These are not the files of an export, or not all of them. Name a folder with all that `export` wrote."""

    code = "export_invalid"


class ArchiveInvalid(LookalikeError):
    """The archive cannot be read any further. It has to be a zip or tar file, whole, without a password."""

    code = "archive_invalid"


class ArchiveTooLarge(LookalikeError):
    """The archive holds more than this service unpacks. Split it, or raise the LOOKALIKE_MAX_ARCHIVE_ settings."""

    code = "archive_too_large"


class DatasetUnreachable(LookalikeError):
    """The set of images could not be downloaded. Run the command again to go on where it stopped."""

    code = "dataset_unreachable"


class ChecksumMismatch(LookalikeError):
    """What was downloaded is not the file that was published. It was dropped; try again later."""

    code = "checksum_mismatch"
