"""Uploads: bytes that were sent to the service, kept by their hash until workers read them.

`images` are kept for as long as an image or a job refers to them; `queries` are the pictures people searched with, and
expire. They lie in the data folder, or in an object store. Nothing here knows what the bytes are.

`store` keeps whole files, `partials` those that arrive in several requests (it is not imported here: decoders read
uploads, and have no use for pydantic).
"""

from lookalike.uploads.names import QUERY_SCHEME, UPLOAD_SCHEME, Area, Kept, query_uri, upload_uri
from lookalike.uploads.store import Stream, UploadStore

__all__ = ["QUERY_SCHEME", "UPLOAD_SCHEME", "Area", "Kept", "Stream", "UploadStore", "query_uri", "upload_uri"]
