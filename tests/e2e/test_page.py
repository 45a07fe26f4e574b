"""Searching on the page, in a real Chromium, against the whole stack."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Page, Route, expect

from bad_files import jpeg
from chromium import search, show
from stack import Stack

MANY = 10_000


def test_pictures_find_themselves_and_the_address_shows_the_search_again(
    page: Page, collection: str, gallery: list[Path], photograph: Callable[[str], None]
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
    expect(page.locator(".hit img.loaded").nth(8)).to_be_visible()
    photograph("search")


def test_a_hit_opens_in_full_and_leads_to_more_like_it(
    page: Page, collection: str, gallery: list[Path], photograph: Callable[[str], None]
) -> None:
    search(page, collection, [gallery[8]])
    page.locator(".hit").first.click()
    lightbox = page.get_by_role("dialog")
    expect(lightbox.locator("h2")).to_have_text(gallery[8].name)
    text = lightbox.locator("dt", has_text="Pixels").locator("+ dd").inner_text()
    width = int(text.split(" ")[0].replace(",", ""))
    expect(lightbox.locator("img.full")).to_have_js_property("naturalWidth", width)
    photograph("lightbox")
    page.keyboard.press("ArrowRight")
    expect(lightbox.locator("dd").first).to_have_text("2")
    neighbour = lightbox.locator("h2").inner_text()
    lightbox.get_by_role("button", name="Search with this").click()
    expect(page.locator(".query-name")).to_have_text("a stored image")
    expect(page.locator(".hit").first).to_have_attribute("aria-label", re.compile(re.escape(neighbour)))
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_terms_narrow_a_search_and_stay_with_its_address(page: Page, collection: str, gallery: list[Path]) -> None:
    search(page, collection, [gallery[5]])
    page.get_by_text("Refine").click()
    page.get_by_label("Filter").fill(f"name == '{gallery[6].name}'")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".hit")).to_have_count(1)
    expect(page.locator(".hit")).to_have_attribute("aria-label", re.compile(re.escape(gallery[6].name)))
    page.reload()
    expect(page.locator(".hit")).to_have_count(1)
    expect(page.locator("#filter")).to_have_value(f"name == '{gallery[6].name}'")


def test_a_mirrored_picture_is_found_by_turning_it_and_closer_terms_stay_with_the_address(
    page: Page, stack: Stack, collection: str, gallery: list[Path], tmp_path: Path, photograph: Callable[[str], None]
) -> None:
    with Image.open(gallery[5]) as picture:
        ImageOps.mirror(picture).save(tmp_path / "mirrored.png")
    search(page, collection, [tmp_path / "mirrored.png"])
    whole = page.url
    page.get_by_text("Refine").click()
    page.get_by_text("More terms").click()
    page.get_by_label("mirrored", exact=True).check()
    page.get_by_label("Just stored images").select_option("strong")
    page.get_by_label("Farthest distance").fill("0.1")
    photograph("terms")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url(lambda url: url != whole)
    first = page.locator(".hit").first
    expect(first).to_have_attribute("aria-label", re.compile(f"^1. {gallery[5].name}"))
    first.click()
    expect(page.get_by_role("dialog")).to_contain_text("with the picture mirrored")
    page.reload()
    expect(first).to_be_visible()
    expect(page.locator("#mirror")).to_be_checked()
    expect(page.locator("#max_distance")).to_have_value("0.1")
    request = stack.http.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()["request"]
    assert (request["variants"], request["consistency"], request["max_distance"]) == (["mirror"], "strong", 0.1)


def test_the_region_of_a_hit_is_framed_in_its_picture(page: Page) -> None:
    answer = stubbed(2)
    answer["result"]["queries"][0]["hits"][0]["box"] = [0.5, 0.25, 0.5, 0.5]
    page.route(re.compile("/v1/jobs/01JMANY"), lambda route: route.fulfill(json=answer))
    page.goto("/#/search/01JMANY")
    page.locator(".hit").first.click()
    picture, frame = page.locator(".full"), page.locator(".box.found")
    expect(frame).to_be_visible()
    width, height = answer["result"]["queries"][0]["hits"][0]["width"], 300

    def drawn() -> list[float]:
        """The frame, in parts of the picture as it is drawn, which is centred in its element."""
        outer, inner = picture.bounding_box(), frame.bounding_box()
        assert outer
        assert inner
        scale = min(outer["width"] / width, outer["height"] / height)
        left = outer["x"] + (outer["width"] - width * scale) / 2
        top = outer["y"] + (outer["height"] - height * scale) / 2
        parts = (
            (inner["x"] - left) / width,
            (inner["y"] - top) / height,
            inner["width"] / width,
            inner["height"] / height,
        )
        return [part / scale for part in parts]

    assert drawn() == pytest.approx([0.5, 0.25, 0.5, 0.5], abs=0.02)
    page.keyboard.press("ArrowRight")
    expect(frame).to_have_count(0)


def test_examples_for_and_against_are_added_by_key_and_taken_out_again(
    page: Page, collection: str, gallery: list[Path], photograph: Callable[[str], None]
) -> None:
    search(page, collection, [gallery[12]])
    page.locator(".hit").nth(1).focus()
    page.keyboard.press("+")
    expect(page.locator(".chip")).to_have_count(2)
    page.locator(".hit").nth(5).focus()
    page.keyboard.press("-")
    expect(page.locator(".chip.not")).to_have_count(1)
    expect(page.locator(".hit").first).to_be_visible()
    photograph("examples")
    page.get_by_role("button", name="Remove: not like a stored image").click()
    expect(page.locator(".chip.not")).to_have_count(0)
    expect(page.locator(".chip")).to_have_count(2)
    page.get_by_role("button", name="Remove: like a stored image").click()
    expect(page.locator(".query-name")).to_have_text(gallery[12].name)


def test_a_region_is_chosen_with_pointer_and_keys_and_searched(
    page: Page, stack: Stack, collection: str, gallery: list[Path], photograph: Callable[[str], None]
) -> None:
    search(page, collection, [gallery[20]])
    whole = page.url
    page.get_by_role("button", name="Search a region").click()
    picture = page.locator(".crop-stage img")
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    place = picture.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] * 0.25, place["y"] + place["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.75, place["y"] + place["height"] * 0.75)
    page.mouse.up()
    photograph("region")
    page.locator(".region").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Search this region").click()
    page.wait_for_url(lambda url: url != whole)
    expect(page.locator(".query-frame .box")).to_be_visible()
    job = stack.http.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    left, top, width, height = job["request"]["queries"][0]["box"]
    assert abs(left - 0.27) < 0.02
    assert max(abs(top - 0.25), abs(width - 0.5), abs(height - 0.5)) < 0.02


def stubbed(hits: int) -> dict[str, Any]:
    """A search job with many hits, as the service would answer it."""
    found = [
        {"rank": at, "id": f"{at:032x}", "uri": f"file:///{at}.jpg", "name": f"{at}.jpg", "distance": 1 - at / hits,
         "score": 1 - at / hits, "width": 300 + at % 7 * 40, "height": 300, "metadata": {},
         "thumbnail_url": "/page/icon.svg"}
        for at in range(1, hits + 1)
    ]  # fmt: skip
    query = {"path": "a.jpg"}
    result = {"collection": "default", "metric": "COSINE", "model": None, "took_ms": 5.0,
              "queries": [{"query": query, "error": None, "hits": found}]}  # fmt: skip
    request = {"collection": "default", "limit": hits, "queries": [query]}
    return {"id": "01JMANY", "kind": "search", "state": "succeeded", "request": request, "result": result,
            "links": {"figure": "/none"}}  # fmt: skip


def test_ten_thousand_hits_need_no_more_elements_than_fit_the_window(page: Page) -> None:
    answer = json.dumps(stubbed(MANY))
    page.route(
        re.compile("/v1/jobs/01JMANY"),
        lambda route: (
            route.fulfill(body=answer, content_type="application/json")
            if "thumbnail" not in route.request.url
            else route.fulfill(path="web/lookalike_web/static/page/icon.svg", content_type="image/svg+xml")
        ),
    )
    page.goto("/#/search/01JMANY")
    expect(page.locator(".hit").first).to_be_visible()
    page.locator(".hit").first.focus()
    page.keyboard.press("End")
    last = page.locator(f'.cell[data-at="{MANY - 1}"] .hit')
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
    assert page.locator(".cell").count() < 300
    page.keyboard.press("Home")
    expect(page.locator('.cell[data-at="0"] .hit')).to_be_in_viewport()
    assert page.locator(".cell").count() < 300


def test_with_a_key_pictures_are_fetched_a_few_at_a_time_and_only_those_near(page: Page) -> None:
    hits = stubbed(1000)
    for hit in hits["result"]["queries"][0]["hits"]:
        hit["thumbnail_url"] = f"/v1/images/{hit['id']}/thumbnail"
    held: list[Route] = []
    page.route(re.compile("/v1/jobs/01JMANY(\\?|$)"), lambda route: route.fulfill(json=hits))

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/thumbnail*", hold)
    page.goto("/#/search")
    page.evaluate("sessionStorage.setItem('lookalike-api-key', 'any')")
    page.goto("about:blank")
    page.goto("/#/search/01JMANY")
    expect(page.locator(".hit").nth(8)).to_be_attached()
    most = 6

    def begun(count: int) -> None:
        while len(held) < count:
            page.wait_for_timeout(10)  # Also lets the browser's requests be told of.

    begun(most)
    page.evaluate("new Promise((done) => requestIdleCallback(done))")
    assert len(held) == most
    held[0].fulfill(path="web/lookalike_web/static/page/icon.svg", content_type="image/svg+xml")
    begun(most + 1)  # One that is answered lets the next begin.
    page.unroute_all(behavior="ignoreErrors")


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
