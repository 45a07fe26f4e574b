"""Objects under a prefix of an object store."""

from collections.abc import Iterator
from urllib.parse import quote, unquote

from lookalike.listing.globs import Choice
from lookalike.listing.listed import Listed, label
from lookalike.listing.stores import Keep, RemoteFiles
from lookalike.records import ObjectsSource


def list_objects(
    source: ObjectsSource, remote: RemoteFiles, *, folder_labels: bool, after: str | None, keep: Keep
) -> Iterator[Listed]:
    """List objects in the order of their keys, by the rules of a folder: globs see the key behind the prefix."""
    prefix = remote.check_prefix(source.prefix)
    choice = Choice(recursive=source.recursive, include=source.include, exclude=source.exclude)
    for found in remote.objects(prefix, after=unquote(after) if after else None):
        keep()
        path = tuple(found.uri.removeprefix(prefix).split("/"))
        # A key that ends in a slash stands for a folder; an empty part in between is a folder without a name.
        if not all(path) or not choice.reaches_file(path):
            continue
        folder = path[-2] if len(path) > 1 else prefix.rstrip("/").rpartition("/")[2]
        yield Listed(
            found.uri,
            label(path[-1]),
            quote(found.uri),
            size=found.size,
            mtime_ns=found.mtime_ns,
            etag=found.etag,
            metadata={"label": folder} if folder_labels else {},
        )
