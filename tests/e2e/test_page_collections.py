"""Collections on the page: what is in them, and what can be found out and done about them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from bad_files import jpeg
from chromium import show
from stack import Stack


def test_a_collection_is_made_and_deleted_by_its_name(page: Page, stack: Stack) -> None:
    show(page, "collections")
    page.get_by_role("textbox", name="New collection").fill("pagemade")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="pagemade")
    expect(card).to_contain_text("COSINE")
    card.get_by_role("button", name="Delete").click()
    page.get_by_label("Type its name to delete it").fill("pagemade")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(card).to_have_count(0)
    assert stack.http.get("/v1/collections/pagemade").status_code == 404


def open_tool(page: Page, collection: str, button: str) -> str:
    """Start a job from a collection's view; gives its id."""
    show(page, f"collections/{collection}", collection)
    page.get_by_role("button", name=button).click()
    page.wait_for_url(re.compile("#/(maps|evaluations|duplicates|jobs)/."))
    return page.url.rsplit("/", 1)[1]


def test_a_map_shows_a_picture_under_the_pointer_and_lists_all_points(
    page: Page, collection: str, gallery: list[Path], photograph: Callable[[str], None]
) -> None:
    open_tool(page, collection, "Draw the map")
    canvas = page.locator(".map canvas")
    expect(canvas).to_be_visible()
    expect(page.locator(".lead")).to_contain_text(f"{len(gallery)} images")
    box = canvas.bounding_box()
    assert box is not None
    for step in range(40):
        page.mouse.move(box["x"] + box["width"] * (step + 0.5) / 40, box["y"] + box["height"] / 2)
        if page.locator(".tip").is_visible():
            break
    expect(page.locator(".tip")).to_have_js_property("complete", value=True)
    photograph("map")
    page.get_by_text("All points as a list").click()
    expect(page.locator(".starter")).to_have_count(len(gallery))
    page.locator(".starter").first.click()
    expect(page.locator(".hit").first).to_have_attribute("aria-label", re.compile("^1. .*COSINE 1"))


def test_recall_is_measured_and_shown_as_a_table(
    page: Page, collection: str, photograph: Callable[[str], None]
) -> None:
    open_tool(page, collection, "Measure recall")
    first = page.get_by_role("region", name="Recall").locator("tbody tr").first
    expect(first).to_contain_text("1.000")
    photograph("recall")


def test_an_export_is_fetched_and_imported_again(
    page: Page, stack: Stack, collection: str, gallery: list[Path], tmp_path: Path
) -> None:
    open_tool(page, collection, "Export")
    expect(page.locator(".job .state")).to_have_text("succeeded")
    with page.expect_download() as saved:
        page.get_by_role("button", name=re.compile("parquet$")).first.click()
    exported = tmp_path / saved.value.suggested_filename
    saved.value.save_as(exported)
    assert exported.read_bytes().startswith(b"PAR1")
    show(page, "collections")
    page.get_by_text("Import an export").click()
    page.get_by_label("Into the collection").fill("pageimport")
    page.set_input_files("#exported", [exported])
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".job .state")).to_have_text("succeeded")
    assert stack.count("pageimport") == len(gallery)


def test_duplicates_stand_side_by_side_and_the_others_are_deleted_after_a_question(
    page: Page, stack: Stack, photograph: Callable[[str], None]
) -> None:
    folder = stack.root / "twins"
    folder.mkdir()
    content = jpeg((222, 333))
    for name in ("one", "two", "three"):
        (folder / f"{name}.jpg").write_bytes(content)
    job = stack.finished(stack.ingest("twins", collection="twins"))
    assert job["state"] == "succeeded", job
    open_tool(page, "twins", "Find duplicates")
    expect(page.locator(".twin")).to_have_count(3)
    expect(page.locator(".twin.kept")).to_have_count(1)
    photograph("duplicates")
    page.get_by_role("button", name="Delete the other 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".twin")).to_have_count(0)
    assert stack.http.get("/v1/collections/twins").json()["count"] == 1


@pytest.fixture(scope="module")
def everywhere(stack: Stack, collection: str) -> list[str]:
    """The address of each view, those of jobs' results included."""

    def done(path: str, **wanted: Any) -> str:
        job = stack.finished(stack.http.post(path, json={"collection": collection, **wanted}).json()["id"])
        assert job["state"] == "succeeded", job
        return str(job["id"])

    chart = done("/v1/maps", limit=20)
    point = stack.http.get(f"/v1/jobs/{chart}/files/map.json").json()["points"][0]["id"]
    return [
        "search",
        "ingest",
        "jobs",
        "collections",
        f"collections/{collection}",
        f"models/{collection}",
        f"search/{done('/v1/searches', queries=[{'image_id': point}], limit=30)}",
        f"jobs/{chart}",
        f"maps/{chart}",
        f"evaluations/{done('/v1/evaluations', type='recall', sample=10)}",
        f"duplicates/{done('/v1/duplicates', level='near', min_score=0.9)}",
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_nothing_bars_anybody_from_using_it(
    page: Page, collection: str, everywhere: list[str], scheme: str, width: int
) -> None:
    """No violation of WCAG AA or of good practice that axe finds, on a phone's width as well."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # Colours are judged when nothing moves.
    page.set_viewport_size({"width": width, "height": 860})
    for view in everywhere:
        show(page, view, collection)
        expect(page.locator("h1").first).to_be_attached()
        page.wait_for_load_state("networkidle")
        page.evaluate("for (const each of document.querySelectorAll('main details')) each.open = true")
        report = Axe().run(page)
        assert report.violations_count == 0, (view, report.generate_report())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} scrolls sideways"
