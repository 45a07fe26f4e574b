"""The HTTP fetcher: a GET or POST to an address that a user named, without being led into a private network by it.

The host is resolved once, all its addresses are judged, the connection goes to one of those, with the name in the Host
header and in TLS. No proxy, no cookies, no credentials. Redirects are followed one by one, each judged like the first
address. One deadline holds from the look-up of the host's name to the last byte received, however slowly they drip.
"""

import re
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import httpcore2

from lookalike.errors import InvalidURL, TooManyRedirects, URLBlocked, URLHTTPError, URLTimeout, URLUnreachable
from lookalike.remote.addresses import Resolver, addresses_of, system_resolver
from lookalike.remote.lookups import Lookups
from lookalike.remote.passing import Passing, retry_after_s
from lookalike.remote.politeness import Timetable, take_turn
from lookalike.remote.urls import WebAddress, redirected, web_address

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BUSY: Final = frozenset({429, 503})  #: Statuses whose Retry-After speaks for the whole host.
_OK: Final = range(200, 300)
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,255}"')

Headers = Mapping[str, str]


class Deadline:
    """A point in time that may be moved. Waiting for a turn counts only for who is not `patient`."""

    def __init__(self, seconds: float, *, patient: bool = True) -> None:
        self._seconds = seconds
        self._patient = patient
        self._end_s = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds left; raises what a connection raises that is waited for in vain."""
        left = self._end_s - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout
        return left

    def renew(self) -> None:
        """Begin anew: there was progress."""
        self._end_s = time.monotonic() + self._seconds

    def wait(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Wait for a turn; raises `URLTimeout` at once where that would be too late."""
        if self._patient:
            self._end_s += seconds
        elif seconds and time.monotonic() + seconds >= self._end_s:
            raise URLTimeout
        sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The head of a response, and its body as it comes."""

    url: str  #: After redirects.
    status: int
    headers: Headers  #: Names in lower case; of repeated ones the last.
    body: Iterator[bytes]

    @property
    def length(self) -> int | None:
        """The body's length in bytes, where the server says it."""
        value = self.headers.get("content-length", "")
        return int(value[:18]) if value.isascii() and value.isdigit() else None

    @property
    def etag(self) -> str:
        """The version's name, as it may be stored and sent back; empty where there is none of that kind."""
        value = self.headers.get("etag", "")
        return value if _ETAG.fullmatch(value) else ""

    @property
    def modified_at(self) -> datetime | None:
        """When the file was last changed, where the server says it."""
        try:
            then = parsedate_to_datetime(self.headers.get("last-modified", ""))
        except ValueError:
            return None
        return then if then.tzinfo else then.replace(tzinfo=UTC)


class HTTPFetcher:
    """Makes requests under one set of rules. Safe to use from many threads; holds no connections open."""

    def __init__(  # noqa: PLR0913 - the rules, and what tests put in the system's place
        self,
        *,
        ports: Collection[int] | None,
        private: bool,
        redirects: int,
        timetable: Timetable,
        wait: Callable[[float], None] = time.sleep,
        resolve: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._ports = ports
        self._private = private
        self._redirects = redirects
        self._timetable = timetable
        self._wait = wait
        self._lookups = Lookups(resolve)
        self._tls = tls or httpcore2.default_ssl_context()
        self._agent = f"lookalike/{version('lookalike')}"

    @contextmanager
    def get(self, url: str, deadline: Deadline, headers: Headers | None = None) -> Iterator[Answer]:
        """Ask for a URL, following redirects; yields the answer, whatever its status but a redirect.

        Raises `InvalidURL`, `URLBlocked`, `TooManyRedirects`, `URLTimeout` and `URLUnreachable`, and `Passing` around
        those that are worth another try.
        """
        address = web_address(url, ports=self._ports)
        for _ in range(self._redirects + 1):
            with self._answer("GET", address, deadline, headers or {}, b"") as answer:
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    yield answer
                    return
            try:
                address = redirected(address, location, ports=self._ports)
            except InvalidURL as error:
                raise URLBlocked("The address redirects to one that this service does not fetch.") from error
        raise TooManyRedirects

    def post(self, url: str, deadline: Deadline, headers: Headers, body: bytes) -> int:
        """Send `body`; returns the status, of a redirect as well. Raises as `get` does."""
        address = web_address(url, ports=self._ports)
        with self._answer("POST", address, deadline, {"Content-Length": str(len(body)), **headers}, body) as answer:
            return answer.status

    @contextmanager
    def _answer(
        self, method: str, address: WebAddress, deadline: Deadline, headers: Headers, body: bytes
    ) -> Iterator[Answer]:
        take_turn(self._timetable, address.host, lambda seconds: deadline.wait(seconds, self._wait))
        with _translated():
            resolve = partial(self._lookups.find, timeout_s=deadline.left_s())
        hosts = addresses_of(address.host, address.port, resolve=resolve, private=self._private)
        connection = httpcore2.HTTPConnection(
            httpcore2.Origin(address.scheme.encode(), address.host.encode(), address.port),
            ssl_context=self._tls,
            network_backend=_Pinned(hosts, deadline),
        )
        sent = {
            "Host": address.authority,
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # What arrives is counted and hashed as it is.
            "Connection": "close",
            "User-Agent": self._agent,
            **headers,
        }
        url = httpcore2.URL(
            scheme=address.scheme, host=address.host, port=address.port, target=address.target.encode("ascii")
        )
        try:
            with _translated():
                response = connection.handle_request(
                    httpcore2.Request(method, url, headers=list(sent.items()), content=body or None)
                )
            answer = _answer_of(address, response)
            if answer.status in _BUSY:
                self._timetable.hold(address.host, retry_after_s(answer.headers.get("retry-after")) or 0.0)
            yield answer
        finally:
            connection.close()


def check_status(answer: Answer, *, wanted: Collection[int] = _OK) -> None:
    """Raise `URLHTTPError` for a status that is not `wanted`, as `Passing` where it may be another one soon."""
    if answer.status in wanted:
        return
    error = URLHTTPError(f"The address answered with HTTP status {answer.status} instead of a file.")
    if answer.status == 429 or answer.status >= 500:
        raise Passing(error)
    raise error


def _answer_of(address: WebAddress, response: httpcore2.Response) -> Answer:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(url=str(address), status=response.status, headers=headers, body=_body(response))


def _body(response: httpcore2.Response) -> Iterator[bytes]:
    try:
        with _translated():
            yield from response.iter_stream()
    except Passing as failure:
        # A body that is late drips, and would drip again; one that broke off may come whole.
        if isinstance(failure.error, URLTimeout):
            raise failure.error from failure
        raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what a connection runs into into our errors."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise Passing(URLTimeout()) from error
    except httpcore2.ConnectError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise URLUnreachable("The address could not be reached: its certificate does not fit.") from error
        raise Passing(URLUnreachable()) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise Passing(URLUnreachable("The address could not be read: the connection broke off.")) from error


# --- Connections ----------------------------------------------------------------------------------------------------


class _Pinned(httpcore2.NetworkBackend):
    """Connects to addresses that have been judged, whatever the host's name stands for by now."""

    def __init__(self, hosts: Iterable[str], deadline: Deadline) -> None:
        self._hosts = list(hosts)
        self._deadline = deadline
        self._system = httpcore2.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_args: Any, **_options: Any) -> httpcore2.NetworkStream:  # noqa: ARG002 - the name is not looked up again
        """Connect to the first address that answers; each gets an equal share of the time that is left."""
        failure: Exception | None = None
        for place, address in enumerate(self._hosts):
            share_s = self._deadline.left_s() / (len(self._hosts) - place)
            try:
                return _Timed(self._system.connect_tcp(address, port, timeout=share_s), self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError("no address")


class _Timed(httpcore2.NetworkStream):
    """A connection that is late as a whole, not only between two bytes."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline says
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._deadline.left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left_s())
        return _Timed(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
