"""Fetching from real web servers on loopback, by real sockets and real TLS."""

import hashlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from lookalike.errors import (
    ArchiveTooLarge,
    FileTooLarge,
    ImageError,
    TooManyRedirects,
    URLBlocked,
    URLHTTPError,
    URLTimeout,
    URLUnreachable,
)
from lookalike.fetched import fetched_uri
from lookalike.remote import Fetched, Remote, addresses
from lookalike.remote import remote as remote_module
from lookalike.settings import Settings
from loopback import Asked, Reply, Site, serve

IMAGE = b"an image, as far as a fetcher is concerned"
MTIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

MakeRemote = Callable[..., Remote]


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture
def make_remote(tmp_path: Path) -> Iterator[MakeRemote]:
    made: list[Remote] = []

    def make(
        *, resolve: Any = addresses.system_resolver, tls: ssl.SSLContext | None = None, **values: object
    ) -> Remote:
        defaults = {"data_dir": tmp_path, "url_ingest": True, "fetch_private": True, "min_free_bytes": 0}
        fast = {"fetch_timeout_s": 5.0, "fetch_retries": 0, "fetch_host_interval_s": 0}
        made.append(Remote(Settings.model_validate(defaults | fast | values), resolve=resolve, tls=tls))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


@pytest.fixture
def this_host_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for the internet; all other private addresses stay what they are."""
    judge = addresses.is_public
    stand_in = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(addresses, "is_public", lambda address: address == stand_in or judge(address))
    monkeypatch.setattr(remote_module, "allowed_ports", lambda *_args, **_rules: None)


def content(remote: Remote, uri: str) -> bytes:
    with remote.local(uri) as file:
        return file.read(max_bytes=1 << 20)


def copies(remote: Remote) -> list[Path]:
    return [path for path in remote.cache.folder.rglob("*") if path.is_file()]


def test_an_image_is_copied_with_what_its_server_says_of_it(site: Site, make_remote: MakeRemote) -> None:
    headers = {"ETag": '"v1"', "Last-Modified": format_datetime(MTIME, usegmt=True)}
    url = site.page("/a.jpg", Reply(body=IMAGE, headers=headers))
    remote = make_remote()
    fetched = remote.fetch(url).result()
    mtime_ns = int(MTIME.timestamp()) * 10**9
    assert fetched == Fetched(uri=fetched_uri(url), size=len(IMAGE), mtime_ns=mtime_ns, etag='"v1"')
    assert content(remote, url) == IMAGE
    assert len(site.asked) == 1  # opening the copy asks nobody
    sent = site.asked[0].headers
    assert sent["host"] == f"127.0.0.1:{site.port}"
    assert sent["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(sent)


def test_a_copy_that_was_cleaned_away_is_fetched_again_where_it_is_needed(site: Site, make_remote: MakeRemote) -> None:
    url = site.page("/a.jpg", Reply(body=IMAGE))
    remote = make_remote()
    assert remote.ensure(url) == fetched_uri(url)
    copies(remote)[0].unlink()
    assert content(remote, url) == IMAGE
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("known", "header", "value"),
    [
        ({"etag": '"v1"', "mtime_ns": 1}, "if-none-match", '"v1"'),
        ({"mtime_ns": int(MTIME.timestamp()) * 10**9 + 5}, "if-modified-since", format_datetime(MTIME, usegmt=True)),
    ],
)
def test_an_unchanged_image_is_not_sent_again(
    site: Site, make_remote: MakeRemote, known: dict[str, Any], header: str, value: str
) -> None:
    url = site.page("/a.jpg", lambda asked: Reply(304 if asked.headers.get(header) == value else 200, b""))
    remote = make_remote()
    fetched = remote.fetch(url, **known).result()
    assert fetched.not_modified
    assert fetched.etag == known.get("etag", "")
    assert not copies(remote)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(404), URLHTTPError),
        (Reply(403), URLHTTPError),
        (Reply(304), URLHTTPError),  # which nobody asked for
        (Reply(302), URLHTTPError),  # to nowhere
        (Reply(body=IMAGE, headers={"Content-Encoding": "gzip"}), URLHTTPError),
        (Reply(body=IMAGE, length=10**12), FileTooLarge),
        (Reply(body=[b"x" * 4096] * 30, length=-1), FileTooLarge),
        (Reply(body=IMAGE, length=len(IMAGE) + 1), URLUnreachable),
    ],
)
def test_what_is_no_whole_image_is_an_error_and_leaves_no_copy(
    site: Site, make_remote: MakeRemote, reply: Reply, error: type[ImageError]
) -> None:
    url = site.page("/a.jpg", reply)
    remote = make_remote(max_file_bytes=65536)
    with pytest.raises(error) as raised:
        remote.fetch(url).result()
    if reply.status != 200:
        assert str(reply.status) in raised.value.message
    assert not copies(remote)


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(site: Site, make_remote: MakeRemote) -> None:
    answers = {"/late": [500, 503, 200], "/down": [502] * 9, "/wrong": [400] * 9}

    def page(asked: Asked) -> Reply:
        return Reply(answers[asked.path].pop(0), IMAGE)

    remote = make_remote(fetch_retries=2)
    urls = {path: site.page(path, page) for path in answers}
    outcomes = {path: remote.fetch(url) for path, url in urls.items()}
    assert outcomes["/late"].result().size == len(IMAGE)
    for path in ("/down", "/wrong"):
        with pytest.raises(URLHTTPError):
            outcomes[path].result()
    assert {path: len(left) for path, left in answers.items()} == {"/late": 0, "/down": 6, "/wrong": 8}


@pytest.mark.parametrize("as_date", [False, True])
def test_a_host_that_names_a_pause_is_left_alone_for_it(site: Site, make_remote: MakeRemote, as_date: bool) -> None:
    def page(_: Asked) -> Reply:
        if len(site.asked) > 1:
            return Reply(body=IMAGE)
        soon = datetime.now(UTC) + timedelta(seconds=2)
        return Reply(429, headers={"Retry-After": format_datetime(soon, usegmt=True) if as_date else "1"})

    remote = make_remote(fetch_retries=1, fetch_threads=1)
    outcomes = [remote.fetch(site.page(path, page)) for path in ("/a", "/b")]
    assert [outcome.result().size for outcome in outcomes] == [len(IMAGE)] * 2
    first, second, _ = site.asked
    assert second.at_s - first.at_s >= (0.95 if not as_date else 0.9)


def test_a_person_who_waits_for_a_picture_is_not_kept_by_a_hosts_pause(site: Site, make_remote: MakeRemote) -> None:
    remote = make_remote(fetch_retries=3)
    url = site.page("/a", Reply(503, headers={"Retry-After": "60"}))
    with pytest.raises(URLHTTPError):
        remote.local(url)  # one try
    began_s = time.monotonic()
    with pytest.raises(URLTimeout):
        remote.local(url)
    assert time.monotonic() - began_s < 30
    assert len(site.asked) == 1


def test_a_person_waits_no_longer_where_every_fetching_thread_is_taken(
    site: Site, make_remote: MakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "IMPATIENT_S", 0.3)
    remote = make_remote(fetch_threads=1)
    slow = remote.fetch(site.page("/slow", Reply(body=[b"x"] * 4, pause_s=0.5)))
    with pytest.raises(URLTimeout):
        remote.ensure(site.page("/a", Reply(body=IMAGE)))
    slow.result()
    assert [asked.path for asked in site.asked] == ["/slow"]  # What nobody waits for any more is not fetched.


def test_an_address_that_may_not_be_fetched_any_more_is_the_fault_of_its_file_alone(make_remote: MakeRemote) -> None:
    with pytest.raises(URLBlocked, match="port 8080"):
        make_remote(fetch_private=False).fetch("http://127.0.0.1:8080/a.jpg").result()


def test_a_version_that_could_not_be_sent_back_is_not_kept(site: Site, make_remote: MakeRemote) -> None:
    for number, etag in enumerate(("v1", '"\xe4"', '"' + "x" * 300 + '"', '"a b"')):
        url = site.page(f"/{number}", Reply(body=IMAGE, headers={"ETag": etag, "Last-Modified": "yesterday"}))
        fetched = make_remote().fetch(url).result()
        assert (fetched.etag, fetched.mtime_ns) == ("", 0)


def test_requests_to_one_host_begin_an_interval_apart(site: Site, make_remote: MakeRemote) -> None:
    remote = make_remote(fetch_host_interval_s=0.1, fetch_threads=8)
    urls = [site.page(f"/{number}", Reply(body=IMAGE)) for number in range(5)]
    for outcome in [remote.fetch(url) for url in urls]:
        outcome.result()
    times = sorted(asked.at_s for asked in site.asked)
    assert times[-1] - times[0] >= 0.37  # four intervals, but for what a request takes to arrive


@pytest.mark.parametrize("pieces", [[b"x"] * 100, [b""] * 100])
def test_a_server_that_drips_is_left_at_the_deadline(site: Site, make_remote: MakeRemote, pieces: list[bytes]) -> None:
    url = site.page("/drip", Reply(body=pieces, pause_s=0.05, length=1000))
    remote = make_remote(fetch_timeout_s=0.5, fetch_retries=3)
    began_s = time.monotonic()
    with pytest.raises(URLTimeout):
        remote.fetch(url).result()
    assert time.monotonic() - began_s > 0.4
    assert len(site.asked) == 1  # it would drip again


def test_a_server_that_accepts_and_says_nothing_is_tried_again(make_remote: MakeRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = make_remote(fetch_timeout_s=0.2, fetch_retries=1)
        with pytest.raises(URLTimeout):
            remote.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/").result()
        silent.settimeout(0)
        for _ in range(2):
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_head_that_drips_is_left_at_the_deadline(make_remote: MakeRemote) -> None:
    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Drip: 1\r\n" * 100:
                connection.send(bytes([byte]))
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        began_s = time.monotonic()
        with pytest.raises(URLTimeout):
            make_remote(fetch_timeout_s=0.3).fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/").result()
        assert time.monotonic() - began_s < 30
        thread.join()


def test_nobody_listening_is_unreachable(make_remote: MakeRemote) -> None:
    with serve() as gone:
        url = gone.url("/a")
    with pytest.raises(URLUnreachable):
        make_remote().fetch(url).result()


# --- Redirects ---


def test_redirects_are_followed_a_few_times_and_the_copy_keeps_the_first_address(
    site: Site, make_remote: MakeRemote
) -> None:
    for number in range(4):
        site.page(f"/{number}", Reply(302, headers={"Location": f"{number + 1}"}))
    site.page("/4", Reply(body=IMAGE))
    remote = make_remote(fetch_redirects=3)
    assert remote.fetch(site.url("/1")).result().uri == fetched_uri(site.url("/1"))
    assert content(remote, site.url("/1")) == IMAGE
    with pytest.raises(TooManyRedirects):
        remote.fetch(site.url("/0")).result()


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/secret",
        "http://0x7f000002:{port}/secret",
        "http://2130706434:{port}/secret",
        "http://0177.0.0.2:{port}/secret",
        "http://[::ffff:127.0.0.2]:{port}/secret",
        "http://[::1]:{port}/secret",
        "http://[64:ff9b::7f00:2]:{port}/secret",
        "http://[2002:7f00:2::]:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://me:secret@127.0.0.1:{port}/secret",
        "file:///etc/passwd",
        "ftp://127.0.0.1/secret",
    ],
)
@pytest.mark.usefixtures("this_host_is_public")
def test_a_redirect_into_a_private_network_is_blocked(site: Site, make_remote: MakeRemote, location: str) -> None:
    with serve("127.0.0.2", port=site.port) as internal:
        url = site.page("/a", Reply(302, headers={"Location": location.format(port=site.port)}))
        with pytest.raises(URLBlocked):
            make_remote(fetch_private=False).fetch(url).result()
        assert not internal.asked
        assert len(site.asked) == 1


@pytest.mark.usefixtures("this_host_is_public")
def test_a_name_that_changes_its_address_after_the_check_gains_nothing(site: Site, make_remote: MakeRemote) -> None:
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with serve("127.0.0.2", port=site.port) as internal:
        site.page("/a", Reply(body=IMAGE))
        remote = make_remote(resolve=rebinding, fetch_private=False)
        url = site.url("/a", host="rebind.test")
        assert content(remote, url) == IMAGE
        assert asked == ["rebind.test"]
        assert site.asked[0].headers["host"] == f"rebind.test:{site.port}"
        with pytest.raises(URLBlocked):
            remote.fetch(url).result()
        assert not internal.asked


def test_a_private_address_is_blocked_before_anything_is_sent(site: Site, make_remote: MakeRemote) -> None:
    remote = make_remote(fetch_private=False, fetch_ports=(site.port,))
    for host in ("127.0.0.1", "2130706433", "0x7f.1", "0177.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(URLBlocked):
            remote.fetch(site.url("/a", host=host)).result()
    assert not site.asked


def test_a_proxy_in_the_environment_is_not_used(
    site: Site, make_remote: MakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert make_remote().fetch(site.page("/a", Reply(body=IMAGE))).result().size == len(IMAGE)
        assert not proxy.asked


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_the_certificate_has_to_be_of_the_name_and_of_a_known_authority(
    authority: trustme.CA, make_remote: MakeRemote
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with serve(tls=_server_context(authority, "images.test")) as site:
        site.page("/a", Reply(body=IMAGE))
        remote = make_remote(resolve=resolve, tls=trusting, fetch_retries=2)
        assert remote.fetch(site.url("/a", host="images.test")).result().size == len(IMAGE)
        for host, doubting in (("other.test", trusting), ("images.test", None)):
            with pytest.raises(URLUnreachable, match="certificate"):
                make_remote(resolve=resolve, tls=doubting).fetch(site.url("/a", host=host)).result()
        assert len(site.asked) == 1


# --- Large files ---


def _archive_page(data: bytes, etag: str, *, breaks_after: list[int]) -> Callable[[Asked], Reply]:
    """A page that breaks off after so many bytes, once for each of the list, and can go on."""

    def page(asked: Asked) -> Reply:
        headers = {"ETag": etag}
        if asked.headers.get("if-none-match") == etag:
            return Reply(304, headers=headers)
        start = 0
        if asked.headers.get("if-range") == etag:
            start = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        sent = rest[: breaks_after.pop(0)] if breaks_after else rest
        return Reply(206 if start else 200, sent, headers, length=len(rest))

    return page


def test_a_download_goes_on_where_it_broke_off_and_is_not_repeated(site: Site, make_remote: MakeRemote) -> None:
    data = hashlib.shake_128(b"archive").digest(300_000)
    url = site.page("/a.tar", _archive_page(data, '"v1"', breaks_after=[100_000, 100_000]))
    remote, kept = make_remote(fetch_retries=1), []
    path = remote.download(url, keep=lambda: kept.append(1))
    assert path.read_bytes() == data
    assert [asked.headers.get("range") for asked in site.asked] == [None, "bytes=100000-", "bytes=200000-"]
    assert kept
    assert remote.download(url, keep=lambda: None) == path
    assert len(site.asked) == 4
    site.page("/a.tar", _archive_page(data[::-1], '"v2"', breaks_after=[]))
    assert remote.download(url, keep=lambda: None).read_bytes() == data[::-1]


def test_a_part_of_another_version_is_not_gone_on_with(site: Site, make_remote: MakeRemote) -> None:
    old, new = b"o" * 200_000, b"n" * 200_000
    url = site.page("/a.tar", _archive_page(old, '"v1"', breaks_after=[100_000]))
    with pytest.raises(URLUnreachable):
        make_remote(fetch_retries=0).download(url, keep=lambda: None)
    site.page("/a.tar", _archive_page(new, '"v2"', breaks_after=[]))
    assert make_remote().download(url, keep=lambda: None).read_bytes() == new
    assert site.asked[-1].headers["range"] == "bytes=100000-"


def test_a_download_that_is_given_up_keeps_its_part(site: Site, make_remote: MakeRemote) -> None:
    data = b"d" * 1_000_000
    url = site.page("/a.tar", _archive_page(data, '"v1"', breaks_after=[]))
    remote = make_remote()

    def give_up() -> None:
        if sum(path.stat().st_size for path in copies(remote) if path.suffix == ".part"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        remote.download(url, keep=give_up)
    assert remote.download(url, keep=lambda: None).read_bytes() == data
    assert site.asked[-1].headers["range"].startswith("bytes=")


@pytest.mark.parametrize("reply", [Reply(body=b"", length=10**9), Reply(body=[b"x" * 65536] * 20, length=-1)])
def test_a_download_beyond_the_cap_is_refused(site: Site, make_remote: MakeRemote, reply: Reply) -> None:
    with pytest.raises(ArchiveTooLarge):
        make_remote(max_archive_bytes=1 << 20).download(site.page("/a.tar", reply), keep=lambda: None)


def test_a_download_that_hardly_moves_is_given_up(site: Site, make_remote: MakeRemote) -> None:
    url = site.page("/a.tar", Reply(body=[b"x"] * 100, pause_s=0.05, length=1000))
    with pytest.raises(URLTimeout):
        make_remote(fetch_timeout_s=0.4).download(url, keep=lambda: None)
