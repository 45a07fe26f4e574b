"""The page in a real Chromium: its window, what the browser complains of, and pictures of what is seen."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from stack import Stack

PATIENCE_MS = 60_000  #: Waits end as soon as what they wait for is there.


@pytest.fixture(scope="module")  # Playwright runs an event loop in this thread, in which no other test could run one.
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


def _is_complaint(line: ConsoleMessage) -> bool:
    # What other tests made is shown, too, and may go while it is: a browser reports the answer, the page shows a blank.
    url = line.location.get("url", "")
    is_gone = "404" in line.text and ("/v1/images" in url or "/v1/collections/" in url or "/thumbnail" in url)
    return line.type in {"error", "warning"} and not is_gone


@pytest.fixture
def page(browser: Browser, stack: Stack, complaints: list[str]) -> Iterator[Page]:
    """A fresh window on the page."""
    with browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda line: _is_complaint(line) and complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert not complaints


@pytest.fixture
def photograph(page: Page, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a picture of what is seen under `build/screenshots`, for people to look at."""
    folder: Path = request.config.rootpath / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=folder / f"{name}.png") and None


def show(page: Page, view: str, collection: str = "default") -> None:
    """Open a view, with a collection chosen."""
    page.goto("/#/search")
    page.evaluate("name => sessionStorage.setItem('lookalike-collection', name)", collection)
    page.goto("about:blank")
    page.goto(f"/#/{view}")
    expect(page.locator("#collection")).to_have_value(collection)


def search(page: Page, collection: str, files: list[Path]) -> None:
    """Search with pictures, and wait for what is found."""
    show(page, "search", collection)
    page.set_input_files("#picker", files)
    page.wait_for_url(re.compile("#/search/."))
    expect(page.locator(".result")).to_have_count(len(files))
