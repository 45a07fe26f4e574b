"""From the parts of a multipart request to files in the upload store."""

from collections.abc import Iterable
from typing import BinaryIO, cast

from werkzeug.datastructures import FileStorage

from lookalike.errors import ImageError
from lookalike.records import UploadedFile
from lookalike.uploads import Area, UploadStore
from lookalike_web.auth import caller
from lookalike_web.errors import Problem

MAX_NAME_CHARS = 1024


def keep(store: UploadStore, images: Iterable[FileStorage], *, area: Area) -> tuple[UploadedFile, ...]:
    """Keep the bytes of uploaded images; an image the store refuses refuses the request, by its name."""
    return tuple(_keep_one(store, image, area=area) for image in images)


def _keep_one(store: UploadStore, image: FileStorage, *, area: Area) -> UploadedFile:
    name = "".join(char for char in image.filename or "" if char.isprintable())[:MAX_NAME_CHARS]
    try:
        sha256 = store.put(cast(BinaryIO, image.stream), area=area)
        store.note_sender(caller().owner_seen, sha256)
    except ImageError as error:
        raise Problem(error, members={"name": name}) from error
    return UploadedFile(sha256=sha256, name=name)
