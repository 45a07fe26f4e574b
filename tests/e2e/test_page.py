"""The page in a real Chromium, against the whole stack: each thing a person does with it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from bad_files import jpeg
from stack import Stack

PATIENCE_MS = 60_000  #: Waits end as soon as what they wait for is there.
VIEWS = ("search", "ingest", "jobs", "collections")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = shutil.which("chromium")
    assert binary, "these tests need Debian's chromium: apt-get install chromium"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Containers give no namespaces for its sandbox, and little /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        with playwright.chromium.launch(executable_path=binary, args=arguments) as browser:
            yield browser


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains of, which fails a test that does not expect it and take it out."""
    return []


@pytest.fixture
def page(browser: Browser, stack: Stack, complaints: list[str]) -> Iterator[Page]:
    """A fresh window on the page."""
    with browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert not complaints


def show(page: Page, view: str, collection: str = "default") -> None:
    """Open a view, with a collection chosen."""
    page.goto("/#/search")
    page.evaluate("name => sessionStorage.setItem('lookalike-collection', name)", collection)
    page.goto("about:blank")
    page.goto(f"/#/{view}")
    expect(page.locator("#collection")).to_have_value(collection)


def search(page: Page, collection: str, files: list[Path]) -> None:
    show(page, "search", collection)
    page.set_input_files("#picker", files)
    page.wait_for_url(re.compile("#/search/."))
    expect(page.locator(".result")).to_have_count(len(files))


def test_pictures_find_themselves_and_the_address_shows_the_search_again(
    page: Page, collection: str, gallery: list[Path]
) -> None:
    wanted = [gallery[3], gallery[30]]
    search(page, collection, wanted)
    for _ in range(2):
        expect(page.locator(".result")).to_have_count(len(wanted))
        for result, path in zip(page.locator(".result").all(), wanted, strict=True):
            expect(result.locator(".query-name")).to_have_text(path.name)
            expect(result.locator(".hit").first).to_have_attribute(
                "aria-label", re.compile(f"^1. {path.name}, COSINE 1")
            )
            expect(result.locator(".hit img").first).to_have_class("loaded")
            expect(result.locator(".query-picture")).to_have_js_property("complete", value=True)
        assert page.locator(".query-picture").count() == len(wanted)
        page.reload()


def test_a_hit_opens_in_full_and_leads_to_more_like_it(page: Page, collection: str, gallery: list[Path]) -> None:
    search(page, collection, [gallery[8]])
    page.locator(".hit").first.click()
    lightbox = page.get_by_role("dialog")
    expect(lightbox.locator("h2")).to_have_text(gallery[8].name)
    expect(lightbox.locator("img.full")).to_have_js_property("naturalWidth", value=width_of(page))
    page.keyboard.press("ArrowRight")
    expect(lightbox.locator("dd").first).to_have_text("2")
    neighbour = lightbox.locator("h2").inner_text()
    lightbox.get_by_role("button", name="More like this").click()
    expect(page.locator(".query-name")).to_have_text("a stored image")
    expect(page.locator(".hit").first).to_have_attribute("aria-label", re.compile(re.escape(neighbour)))
    expect(page.get_by_role("dialog")).to_have_count(0)


def width_of(page: Page) -> int:
    """The width that the open image is said to have."""
    text = page.get_by_role("dialog").locator("dt", has_text="Pixels").locator("+ dd").inner_text()
    return int(text.split(" ")[0].replace(",", ""))


def test_files_of_this_machine_are_uploaded_and_ingested(page: Page, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg((320, 240)))
    (tmp_path / "bad.jpg").write_text("no picture")
    show(page, "ingest")
    page.set_input_files("#files", [tmp_path / "good.jpg", tmp_path / "bad.jpg"])
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".state")).to_have_text("succeeded")
    expect(page.locator(".progress")).to_contain_text("2 of 2")
    failures = page.get_by_role("region", name="Failed files").locator("tbody tr")
    expect(failures).to_have_count(1)
    expect(failures.first).to_contain_text("unsupported_format")
    page.get_by_role("button", name="Try the failed ones again").click()
    expect(page.locator(".progress")).to_contain_text("1 of 1")


def test_a_folder_is_ingested_and_its_job_stands_in_the_list(page: Page, stack: Stack) -> None:
    folder = stack.root / "page"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(jpeg((200, 300)))
    show(page, "ingest")
    page.get_by_label("Path, under a root").fill("page")
    page.get_by_role("button", name="Ingest folder").click()
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".state")).to_have_text("succeeded")
    job = page.url.rsplit("/", 1)[1]
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("tbody tr", has_text=job)).to_contain_text("1 of 1")


def test_what_the_service_refuses_is_said_in_its_words(page: Page, complaints: list[str]) -> None:
    show(page, "ingest")
    page.get_by_label("Path, under a root").fill("nowhere")
    page.get_by_role("button", name="Ingest folder").click()
    expect(page.locator(".notice.error")).to_contain_text("folder")
    assert "404" in complaints.pop(), "a browser reports every such answer"


def test_a_collection_is_made_and_deleted_by_its_name(page: Page, stack: Stack) -> None:
    show(page, "collections")
    page.get_by_role("textbox", name="New collection").fill("pagemade")
    page.get_by_role("button", name="Create").click()
    row = page.locator("tbody tr", has_text="pagemade")
    expect(row).to_contain_text("COSINE")
    row.get_by_role("button").click()
    page.get_by_label("Type its name to delete it").fill("pagemade")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    assert stack.http.get("/v1/collections/pagemade").status_code == 404


def test_who_may_not_see_collections_still_ingests_and_sees_jobs(page: Page, complaints: list[str]) -> None:
    refusal = {"code": "forbidden", "detail": "This needs a key with another right."}
    page.route("**/v1/collections", lambda route: route.fulfill(status=403, json=refusal))
    page.goto("/#/ingest")
    expect(page.locator("h1")).to_have_text("Ingest")
    expect(page.locator("#collection")).to_have_value("default")
    expect(page.locator(".notice.error")).to_contain_text("another right")
    assert "403" in complaints.pop()


def test_a_search_that_has_expired_is_no_longer_being_searched(page: Page, complaints: list[str]) -> None:
    gone = {"code": "job_expired", "detail": "The job has expired."}
    page.route("**/v1/jobs/*", lambda route: route.fulfill(status=410, json=gone))
    page.goto("/#/search/01JABSENT")
    expect(page.locator(".notice.error")).to_contain_text("expired")
    expect(page.locator("#view")).not_to_contain_text("Searching")
    assert "410" in complaints.pop()


def test_no_more_pictures_are_searched_with_than_a_search_takes(
    page: Page, stack: Stack, tmp_path: Path, complaints: list[str]
) -> None:
    most = stack.http.get("/v1/info").json()["limits"]["max_queries"]
    pictures = [tmp_path / f"{number}.jpg" for number in range(most + 1)]
    for picture in pictures:
        picture.write_bytes(jpeg((16, 16)))
    sent: list[int] = []

    def count(route: Route) -> None:
        sent.append((route.request.post_data_buffer or b"").count(b'name="image"'))
        route.abort()

    page.route("**/v1/searches", count)
    show(page, "search")
    page.set_input_files("#picker", pictures)
    expect(page.locator(".notice").first).to_contain_text(f"first {most} pictures")
    expect(page.locator(".notice.error")).to_have_count(1)
    assert sent == [most]
    complaints.clear()  # Of the search that was broken off.


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_anybody_from_using_it(page: Page, collection: str, scheme: str) -> None:
    """No violation of WCAG AA or of good practice that axe finds, on a phone's width as well."""
    page.emulate_media(color_scheme=scheme)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 860})
        for view in VIEWS:
            show(page, view, collection)
            page.wait_for_load_state("networkidle")
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
