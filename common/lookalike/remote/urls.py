"""URLs: one canonical spelling for each address and object, and the refusal of what is not one.

Nothing here asks a name server: the front end checks addresses with it while a request waits. Where an address leads is
judged when it is connected to.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import idna

from lookalike.errors import InvalidPath, InvalidURL
from lookalike.roots import MAX_URI_BYTES
from lookalike.settings import Settings

HTTP_PORTS: Final = {"http": 80, "https": 443}
OBJECT_SCHEMES: Final = ("s3", "gs")

_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[0-9a-z_](?:[0-9a-z_.-]*[0-9a-z_])?")
_BUCKET: Final = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?")
#: What may stand in a path or query as it is; `%` because what is escaped already stays so.
_SAFE: Final = "%/:?#[]@!$&'()*+,;=-._~"


class WebAddress(NamedTuple):
    """The parts of an http or https URL that a request is made of."""

    scheme: str
    host: str  #: Lower case, ASCII; an IPv6 address without its brackets.
    port: int
    target: str  #: Path and query, never empty.

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTP_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def web_address(url: str, *, ports: Collection[int] | None) -> WebAddress:
    """Take an http or https URL apart, in canonical spelling; `ports` None allows all. Raises `InvalidURL`."""
    # Before it is parsed: the parser drops tabs and line ends silently, and no two parsers agree on backslashes.
    if _UNPRINTABLE.search(url):
        raise InvalidURL("An address holds no spaces, backslashes or control characters. Write them as %20 and so on.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidURL from error
    scheme = parts.scheme.lower()
    if scheme not in HTTP_PORTS:
        raise InvalidURL
    if "@" in parts.netloc:
        raise InvalidURL("An address with a user name or password in it is not fetched. Leave them out.")
    port = HTTP_PORTS[scheme] if port is None else port
    if port == 0 or (ports is not None and port not in ports):
        raise InvalidURL(f"The service does not fetch from port {port}. LOOKALIKE_FETCH_PORTS lists the ports it does.")
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
    address = WebAddress(scheme, _host(parts.hostname or ""), port, target)
    if len(str(address)) > MAX_URI_BYTES:
        raise InvalidURL(f"The address is longer than {MAX_URI_BYTES} bytes.")
    return address


def redirected(address: WebAddress, location: str, *, ports: Collection[int] | None) -> WebAddress:
    """Return where a redirect leads; raises `InvalidURL`."""
    try:
        # A header is read as Latin-1; what its server meant are the bytes.
        target = urljoin(str(address), quote(location.strip().encode("latin-1", "replace"), safe=_SAFE))
    except ValueError as error:
        raise InvalidURL from error
    return web_address(target, ports=ports)


def allowed_ports(settings: Settings, *, private: bool) -> Collection[int] | None:
    """Return the ports that may be talked to; where private addresses may be, all of them."""
    return None if private else settings.fetch_ports


def check_webhook_url(url: str, settings: Settings) -> str:
    """Return a webhook's address in canonical spelling; raises `InvalidURL`. Looks nothing up."""
    return str(web_address(url, ports=allowed_ports(settings, private=settings.webhook_private)))


def split_object(uri: str) -> tuple[str, str, str]:
    """Return the scheme, bucket and key of an object's URI; raises `InvalidPath`."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not separator or scheme.lower() not in OBJECT_SCHEMES or not _BUCKET.fullmatch(bucket):
        raise InvalidPath("This is not the address of an object or prefix. It should look like s3://bucket/prefix/.")
    if _CONTROL.search(key) or len(uri.encode(errors="replace")) > MAX_URI_BYTES:
        raise InvalidPath("The address of an object holds no control characters, and is not longer than 4096 bytes.")
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise InvalidPath("The address of an object has no parts that are . or .. in it.")
    return scheme.lower(), bucket, key


def object_prefix(prefix: str) -> str:
    """Return the canonical spelling of a prefix, which ends in a slash; raises `InvalidPath`."""
    scheme, bucket, key = split_object(prefix)
    key = key.rstrip("/")
    return f"{scheme}://{bucket}/{key}/" if key else f"{scheme}://{bucket}/"


def check_below(uri: str, roots: Sequence[str]) -> str:
    """Return an object's URI where it lies under one of `roots`; raises `InvalidPath`."""
    scheme, bucket, key = split_object(uri)
    canonical = f"{scheme}://{bucket}/{key}"
    if not any(canonical.startswith(root) for root in roots):
        raise InvalidPath(
            "The address is outside every object-store prefix this service may read. "
            "Start the service with LOOKALIKE_OBJECT_ROOTS naming one that holds it."
        )
    return canonical


def _host(name: str) -> str:
    """Return a host in ASCII; raises `InvalidURL`."""
    if ":" in name:
        try:
            address = ipaddress.IPv6Address(name)
        except ValueError as error:
            raise InvalidURL from error
        if address.scope_id is not None:  # Of this machine's own network.
            raise InvalidURL
        return address.compressed
    try:
        host = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
        host = host.removesuffix(".")
    except idna.IDNAError as error:
        raise InvalidURL("The host's name in this address is not one. Check its spelling.") from error
    if not _HOST.fullmatch(host):
        raise InvalidURL("The host's name in this address is not one. Check its spelling.")
    return host
