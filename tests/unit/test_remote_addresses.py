import ipaddress
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from lookalike.errors import InvalidPath, InvalidURL, URLBlocked, URLIngestDisabled, URLTimeout, URLUnreachable
from lookalike.remote import Remote, check_webhook_url
from lookalike.remote.addresses import addresses_of, is_public, system_resolver
from lookalike.remote.lookups import Lookups
from lookalike.remote.passing import MAX_RETRY_AFTER_S, Passing, pause_s, retry_after_s
from lookalike.remote.urls import redirected, web_address
from lookalike.settings import Settings

INWARD = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:93.184.215.14",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", INWARD)
def test_no_address_that_may_lead_inward_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0"]
)
def test_an_address_is_blocked_however_it_is_spelt(host: str) -> None:
    with pytest.raises(URLBlocked):
        addresses_of(host, 80, resolve=system_resolver, private=False)


@pytest.mark.parametrize(
    "found", [["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["1.1.1.1", "fe80::1%eth0"], ["1.1.1.1", "::1"]]
)
def test_one_inward_address_among_public_ones_blocks_the_host(found: list[str]) -> None:
    with pytest.raises(URLBlocked):
        addresses_of("mixed.test", 80, resolve=lambda *_: found, private=False)


def test_public_addresses_pass_and_private_ones_where_they_are_allowed() -> None:
    assert addresses_of("a.test", 80, resolve=lambda *_: ["1.1.1.1"], private=False) == ["1.1.1.1"]
    assert addresses_of("a.test", 80, resolve=lambda *_: ["10.0.0.1"], private=True) == ["10.0.0.1"]


def test_a_name_that_does_not_exist_is_not_tried_again_and_a_silent_name_server_is() -> None:
    def failing(code: int) -> object:
        def resolve(_host: str, _port: int) -> list[str]:
            raise socket.gaierror(code, "no")

        return resolve

    with pytest.raises(URLUnreachable):
        addresses_of("a.test", 80, resolve=failing(socket.EAI_NONAME), private=False)  # type: ignore[arg-type]
    with pytest.raises(Passing):
        addresses_of("a.test", 80, resolve=failing(socket.EAI_AGAIN), private=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("https://example.com:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com.:80/a", "http://example.com/a"),
        ("https://bücher.example/ä/%C3%A4", "https://xn--bcher-kva.example/%C3%A4/%C3%A4"),
        ("http://[2606:4700:4700:0:0:0:0:1111]/", "http://[2606:4700:4700::1111]/"),
        ("https://example.com/a/../b//c", "https://example.com/a/../b//c"),
    ],
)
def test_an_address_has_one_spelling(url: str, canonical: str) -> None:
    address = web_address(url, ports=(80, 443))
    assert str(address) == canonical
    assert str(web_address(canonical, ports=(80, 443))) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "example.com/a.jpg",
        "http://",
        "http:///a",
        "http://user:secret@example.com/",
        "http://example.com@10.0.0.1/",
        "http://example.com:8080/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://exa mple.com/",
        "http://example.com\\@10.0.0.1/",
        "http://example.com/\r\nHost: internal",
        "http://example.com/\tx",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://127.0.0.1%00.example.com/",
        "http://ex*mple.com/",
        "http://example.com/" + "a" * 4096,
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidURL):
        web_address(url, ports=(80, 443))


def test_a_redirect_is_taken_relative_to_where_it_came_from_and_refused_like_any_address() -> None:
    here = web_address("https://example.com/a/b?c", ports=(80, 443))
    assert str(redirected(here, "../d e", ports=(80, 443))) == "https://example.com/d%20e"
    assert str(redirected(here, "//other.example/x", ports=(80, 443))) == "https://other.example/x"
    assert str(redirected(here, "http://example.com/x", ports=(80, 443))) == "http://example.com/x"
    for location in ("file:///etc/passwd", "https://example.com:22/", "https://me@example.com/", "//[/"):
        with pytest.raises(InvalidURL):
            redirected(here, location, ports=(80, 443))


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_addresses_are_refused_where_fetching_is_off_and_on_other_ports_unless_private_networks_are_allowed() -> None:
    with Remote(settings()) as remote, pytest.raises(URLIngestDisabled):
        remote.check_url("https://example.com/a.jpg")
    with Remote(settings(url_ingest=True)) as remote:
        assert remote.check_url("https://Example.com/a.jpg#x") == "https://example.com/a.jpg"
        with pytest.raises(InvalidURL):
            remote.check_url("http://example.com:8080/")
    with Remote(settings(url_ingest=True, fetch_private=True)) as remote:
        assert remote.check_url("http://intranet:8080/") == "http://intranet:8080/"
    assert check_webhook_url("https://Example.com", settings()) == "https://example.com/"
    with pytest.raises(InvalidURL):
        check_webhook_url("https://example.com:8443/", settings(fetch_private=True))


def test_a_prefix_has_to_lie_under_an_object_root() -> None:
    with Remote(settings(object_roots=("s3://bucket/photos", "gs://other"))) as remote:
        assert remote.check_prefix("S3://bucket/photos") == "s3://bucket/photos/"
        assert remote.check_prefix("s3://bucket/photos/2024//") == "s3://bucket/photos/2024/"
        assert remote.check_prefix("gs://other/") == "gs://other/"
        assert remote.check_url("s3://bucket/photos/a.tar") == "s3://bucket/photos/a.tar"
        for outside in (
            "s3://bucket/photos2/",
            "s3://bucket/",
            "s3://bucket2/photos/",
            "s3://bucket/photos/../secret/",
            "s3:///photos/",
            "s3://buc?ket/",
            "https://bucket/photos/",
            "photos/",
            "s3://bucket/photos/\n",
        ):
            with pytest.raises(InvalidPath):
                remote.check_prefix(outside)
    with Remote(settings()) as remote, pytest.raises(InvalidPath):
        remote.check_prefix("s3://bucket/photos/")


def test_remote_images_are_told_from_those_on_this_machine() -> None:
    upload = "upload:" + "a" * 64
    with Remote(settings()) as remote:
        assert [remote.is_remote(uri) for uri in ("https://a/b", "s3://a/b", "gs://a/b", "file:///a", upload)] == [
            True,
            True,
            True,
            False,
            False,
        ]
    with Remote(settings(uploads_url="s3://bucket/uploads")) as remote:
        assert remote.is_remote(upload)


def test_retry_after_is_read_as_seconds_or_as_a_date_and_capped() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7") == 7
    assert retry_after_s(format_datetime(now + timedelta(seconds=9), usegmt=True), now=now) == 9
    assert retry_after_s(format_datetime(now - timedelta(seconds=9), usegmt=True), now=now) == 0
    assert retry_after_s("9" * 100) == MAX_RETRY_AFTER_S
    assert [retry_after_s(value) for value in (None, "", "soon", "-1", "٣")] == [None] * 5


def test_pauses_double_up_to_a_cap_with_jitter() -> None:
    for failures, most in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (5000, 10.0)):
        pauses = [pause_s(failures, first_s=1.0, most_s=10.0) for _ in range(50)]
        assert most / 2 <= min(pauses) < max(pauses) <= most


# --- Name servers that do not answer --------------------------------------------------------------------------------


class StuckResolver:
    """Answers nothing until it is let go, but for one host."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host != "quick.example":
            self.go.wait(60)
        return ["93.184.215.14"]


def test_a_look_up_ends_in_time_and_a_stuck_name_holds_one_thread_however_many_ask() -> None:
    resolver = StuckResolver()
    lookups = Lookups(resolver, at_most=2)
    try:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                lookups.find("stuck.example", 80, timeout_s=0.01)
        assert resolver.asked == ["stuck.example"]
        assert lookups.find("quick.example", 80, timeout_s=60) == ["93.184.215.14"]
        for host in ("too.example", "many.example"):
            with pytest.raises(TimeoutError):
                lookups.find(host, 80, timeout_s=0.01)
        assert resolver.asked == ["stuck.example", "quick.example", "too.example"], "no more threads than allowed"
        with ThreadPoolExecutor(4) as waiting:
            found = [waiting.submit(lookups.find, "stuck.example", 80, timeout_s=60) for _ in range(4)]
            resolver.go.set()
            assert [one.result() for one in found] == [["93.184.215.14"]] * 4
    finally:
        resolver.go.set()
    lookups.find("stuck.example", 80, timeout_s=60)
    assert resolver.asked.count("stuck.example") >= 2, "answers are not remembered"


def test_a_fetch_whose_name_server_does_not_answer_ends_within_its_time(tmp_path: Path) -> None:
    resolver = StuckResolver()
    settings = Settings(data_dir=tmp_path, url_ingest=True, fetch_timeout_s=0.3, fetch_retries=0)
    try:
        with Remote(settings, resolve=resolver) as remote, pytest.raises(URLTimeout):
            remote.fetch("https://stuck.example/a.jpg").result(timeout=60)
    finally:
        resolver.go.set()
