"""Addresses on the web, as a request names them."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from lookalike.errors import InvalidPath, InvalidURL
from lookalike.listing.listed import Listed, label
from lookalike.listing.stores import Keep, RemoteFiles
from lookalike.records import URLsSource


def list_urls(source: URLsSource, remote: RemoteFiles, *, after: str | None, keep: Keep) -> Iterator[Listed]:
    """List addresses in canonical spelling, each once; one that cannot be fetched is listed with its error."""
    # Whatever cursor it begins at: an address is listed at its first place. A request names a bounded number.
    seen: set[str] = set()
    for position, url in enumerate(source.urls):
        keep()
        error: InvalidURL | InvalidPath | None = None
        try:
            uri = remote.check_url(url)
        except (InvalidURL, InvalidPath) as refused:
            uri, error = label(url), refused
        if uri in seen:
            continue
        seen.add(uri)
        if after is None or position > int(after):
            yield Listed(uri, url_name(uri), str(position), error)


def url_name(uri: str) -> str:
    """Return the last part of an address's path, or the address where there is none."""
    return label(unquote(urlsplit(uri).path.rpartition("/")[2])) if "://" in uri else label(uri)
