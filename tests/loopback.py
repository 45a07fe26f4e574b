"""Web servers on loopback for tests: pages by path, with a memory of what was asked of them."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request, as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]  #: Names in lower case.
    body: bytes
    at_s: float = field(default_factory=time.monotonic)


@dataclass
class Reply:
    """One answer. Bodies of several pieces come with a pause before each."""

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    length: int | None = None  #: What Content-Length says; the body's length where None, nothing where negative.


Page = Callable[[Asked], Reply]


class Site:
    """A running server."""

    def __init__(self, address: str, port: int, scheme: str) -> None:
        self.address = address
        self.port = port
        self.scheme = scheme
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []

    def url(self, path: str = "/", *, host: str = "") -> str:
        """The address of a page, by another name of this server where `host` is one."""
        return f"{self.scheme}://{host or self.address}:{self.port}{path}"

    def page(self, path: str, reply: Reply | Page) -> str:
        """Put a page up; returns its address."""
        self.pages[path] = (lambda _: reply) if isinstance(reply, Reply) else reply
        return self.url(path)


@contextmanager
def serve(address: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a server as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name that the server looks for
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            site.asked.append(asked)
            page = site.pages.get(self.path.partition("?")[0], lambda _: Reply(404))
            self._send(page(asked))

        do_POST = do_GET  # noqa: N815 - as above

        def _send(self, reply: Reply) -> None:
            pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
            self.send_response(reply.status)
            length = sum(map(len, pieces)) if reply.length is None else reply.length
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if length >= 0:
                self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for piece in pieces:
                if stopping.wait(reply.pause_s):
                    return
                try:
                    self.wfile.write(piece)
                except OSError:
                    return  # The client has had enough.

        def log_message(self, *_: object) -> None:
            pass

    stopping = threading.Event()
    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a handshake that the client broke off
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site = Site(address, server.server_port, "https" if tls else "http")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
