"""Ingesting on the page, and following jobs there: also when the connection is lost on the way."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from bad_files import jpeg
from chromium import show
from stack import Stack


def test_files_of_this_machine_are_uploaded_and_ingested(
    page: Page, tmp_path: Path, photograph: Callable[[str], None]
) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg((320, 240)))
    (tmp_path / "bad.jpg").write_text("no picture")
    show(page, "ingest")
    expect(page.locator("h1")).to_have_text("Ingest")
    page.set_input_files("#files", [tmp_path / "good.jpg", tmp_path / "bad.jpg"])
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".job .state")).to_have_text("succeeded")
    expect(page.locator(".progress")).to_contain_text("2 of 2")
    failures = page.get_by_role("region", name="Failed files").locator("tbody tr")
    expect(failures).to_have_count(1)
    expect(failures.first).to_contain_text("unsupported_format")
    photograph("job")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    assert "unsupported_format" in saved.value.path().read_text()
    page.get_by_role("button", name="Try the failed ones again").click()
    expect(page.locator(".progress")).to_contain_text("1 of 1")


def test_uploads_go_on_while_another_view_is_shown(page: Page, tmp_path: Path) -> None:
    (tmp_path / "kept.jpg").write_bytes(jpeg((123, 321)))
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile("/v1/uploads/"), hold)
    show(page, "ingest")
    with page.expect_request(re.compile("/v1/uploads/")):
        page.set_input_files("#files", [tmp_path / "kept.jpg"])
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("h1")).to_have_text("Jobs")
    expect(page.get_by_role("region", name="Uploads")).to_contain_text("1 file")
    while not held:
        page.wait_for_timeout(10)  # The request is told of before it is held.
    held[0].continue_()
    page.get_by_role("link", name="show the job").click()
    expect(page.locator(".job .state")).to_have_text("succeeded")


def test_a_folder_is_ingested_and_its_job_stands_in_the_list(
    page: Page, stack: Stack, photograph: Callable[[str], None]
) -> None:
    folder = stack.root / "page"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(jpeg((200, 300)))
    show(page, "ingest")
    page.get_by_label("Path, under a root").fill("page")
    page.get_by_role("button", name="Ingest folder").click()
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".job .state")).to_have_text("succeeded")
    job = page.url.rsplit("/", 1)[1]
    page.get_by_role("navigation").get_by_role("link", name="Jobs").click()
    expect(page.locator("tbody tr", has_text=job)).to_contain_text("1 of 1")
    photograph("jobs")


def break_until_seen(page: Page, address: re.Pattern[str], code: str) -> list[bool]:
    """Break requests off, then refuse them, until the list has an item: however slow the machine, it can be seen."""
    seen: list[bool] = []
    first = [True]

    def answer(route: Route) -> None:
        if first:
            first.clear()
            route.abort()
        elif seen:
            route.fallback()
        else:
            route.fulfill(status=503, json={"code": code})

    page.route(address, answer)
    return seen


def test_an_archive_is_tried_before_it_is_ingested_with_metadata(
    page: Page, stack: Stack, tmp_path: Path, photograph: Callable[[str], None]
) -> None:
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for name in ("one", "two"):
            archive.writestr(f"{name}.jpg", jpeg((170, 250 if name == "one" else 260)))
    assert stack.http.post("/v1/collections", json={"name": "pagearchive"}).status_code == 201
    for is_trial in (True, False):
        show(page, "ingest", "pagearchive")
        page.get_by_text("Metadata and more").click()
        page.get_by_label("Metadata, one").fill("album=page\nyear=2024")
        page.get_by_label("only say what would be done").set_checked(is_trial)
        if is_trial:
            photograph("ingest")
        page.set_input_files("#files", [tmp_path / "few.zip"])
        page.wait_for_url(re.compile("#/jobs/."))
        expect(page.locator(".job .state")).to_have_text("succeeded")
        expect(page.locator("dt", has_text="added").locator("+ dd")).to_have_text("2")
        expect(page.locator(".job").get_by_text("A trial")).to_have_count(int(is_trial))
    images = stack.http.get("/v1/images", params={"collection": "pagearchive"}).json()["images"]
    assert [image["metadata"] for image in images] == [{"album": "page", "year": 2024}] * 2


def test_a_job_is_followed_again_after_the_connection_was_lost(page: Page, stack: Stack, complaints: list[str]) -> None:
    folder = stack.root / "followed"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(jpeg((210, 300)))
    job = stack.finished(stack.ingest("followed"))
    running = {**job, "state": "running", "finished_at": None}
    records = [running]
    seen = break_until_seen(page, re.compile(f"/v1/jobs/{job['id']}/events"), "busy")
    page.route(
        re.compile(f"/v1/jobs/{job['id']}$"),
        lambda route: route.fulfill(json=records.pop()) if records else route.fallback(),
    )
    page.goto(f"/#/jobs/{job['id']}")
    expect(page.locator("#trouble")).to_contain_text("Trying again")
    seen.append(True)
    expect(page.locator(".job .state")).to_have_text("succeeded")
    expect(page.locator("#trouble")).to_be_hidden()
    complaints.clear()  # A browser reports every request that failed.


def test_a_page_that_found_no_service_comes_up_once_there_is_one(page: Page, complaints: list[str]) -> None:
    seen = break_until_seen(page, re.compile("/v1/info"), "queue_unavailable")
    page.goto("/#/jobs")
    expect(page.locator("#trouble")).to_contain_text("Trying again")
    seen.append(True)
    expect(page.locator("h1")).to_have_text("Jobs")
    expect(page.locator("#trouble")).to_be_hidden()
    complaints.clear()  # A browser reports every request that failed.


def test_a_wrong_key_is_said_to_be_wrong_and_asked_for_once(page: Page, complaints: list[str]) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.fallback()
        else:
            route.fulfill(status=401, json={"code": "unauthorized", "detail": "The API key is missing or wrong."})

    page.route(re.compile("/v1/(jobs|collections)"), guard)
    page.goto("/#/collections")
    dialog = page.get_by_role("dialog")
    for key in ("wrong", "right"):
        expect(dialog).to_have_count(1)
        dialog.get_by_label("Key, kept").fill(key)
        dialog.get_by_role("button", name="Use this key").click()
        if key == "wrong":
            expect(dialog.get_by_role("alert")).to_contain_text("does not take that key")
    expect(page.locator("h1")).to_have_text("Collections")
    expect(page.locator(".collection-card").first).to_be_visible()
    complaints.clear()  # A browser reports every 401.


def test_what_the_service_refuses_is_said_in_its_words(page: Page, complaints: list[str]) -> None:
    show(page, "ingest")
    page.get_by_label("Path, under a root").fill("nowhere")
    page.get_by_role("button", name="Ingest folder").click()
    expect(page.locator(".notice.error")).to_contain_text("folder")
    assert "404" in complaints.pop(), "a browser reports every such answer"


def test_who_may_not_see_collections_still_ingests_and_sees_jobs(page: Page, complaints: list[str]) -> None:
    refusal = {"code": "forbidden", "detail": "This needs a key with another right."}
    page.route("**/v1/collections", lambda route: route.fulfill(status=403, json=refusal))
    page.goto("/#/ingest")
    expect(page.locator("h1")).to_have_text("Ingest")
    expect(page.locator("#collection")).to_have_value("default")
    expect(page.locator(".notice.error")).to_contain_text("another right")
    assert "403" in complaints.pop()
