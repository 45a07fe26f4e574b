"""A collection's model changed on a running stack, by workers started beside its own, as docs/operations.md says."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chromium import show
from service import until
from stack import Stack

NAME = "new_model"
LANES = ("ingest", "search")


@pytest.fixture(scope="module")
def other_workers(stack: Stack) -> Iterator[None]:
    """Workers with a smaller network, beside those of the stack."""
    status = stack.status()
    beside = {
        "LOOKALIKE_REDIS_URL": status["redis_url"],
        "LOOKALIKE_MILVUS_URI": status["milvus_uri"],
        "LOOKALIKE_ROOTS": str(stack.root),
        "LOOKALIKE_MODEL": "resnet18",
        "LOOKALIKE_ENGINE": "torch",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "lookalike_worker", lane, "--name", f"resnet18-{lane}"],
            env={**stack.environ, **beside},
            cwd=stack.data_dir,
        )
        for lane in LANES
    ]
    try:
        until(lambda: models_of(stack) == {"resnet18", "resnet50"}, 120, stack.logs)
        yield
    finally:
        for process in started:
            process.terminate()
        codes = [process.wait(60) for process in started]
    assert codes == [0, 0]


def models_of(stack: Stack) -> set[str]:
    return {worker["model"]["name"] for worker in stack.http.get("/v1/info").json()["workers"]}


@pytest.mark.usefixtures("other_workers")
def test_a_collection_is_embedded_with_another_model_switched_to_it_and_rolled_back(
    stack: Stack, gallery: list[Path]
) -> None:
    def run(*arguments: str) -> str:
        done = stack.cli(*arguments)
        assert done.returncode == 0, done.stderr + stack.logs()
        return done.stdout

    def found() -> tuple[str, str]:
        told = json.loads(run("search", str(gallery[3]), "-k", "1", "--collection", NAME, "--json"))
        return told["model"]["name"], told["queries"][0]["hits"][0]["id"]

    run("ingest", str(stack.root / "gallery"), "--collection", NAME)
    before = found()
    assert before[0] == "resnet50"
    run("collections", "reembed", NAME, "resnet18")
    compared = json.loads(run("collections", "compare", NAME, "resnet18", before[1], "-k", "3", "--json"))
    assert 0 < compared["overlap"] <= 1
    picture = str(gallery[3])
    beside = json.loads(run("search", picture, "-k", "3", "--collection", NAME, "--compare", "resnet18", "--json"))
    assert beside["queries"][0]["image_id"] == picture
    assert {side: beside["queries"][0][side][0]["id"] for side in ("serving", "other")} == {
        "serving": before[1],
        "other": before[1],
    }
    assert found() == before
    run("collections", "switch", NAME, "resnet18")
    assert found() == ("resnet18", before[1])
    states = [(one["model"]["name"], one["state"]) for one in json.loads(run("collections", "models", NAME, "--json"))]
    assert states == [("resnet50", "retired"), ("resnet18", "serving")]
    run("collections", "switch", NAME, "resnet50")
    assert found() == before
    run("collections", "drop-model", NAME, "resnet18", "--yes")


@pytest.mark.usefixtures("other_workers")
def test_on_the_page_a_collection_is_embedded_again_compared_switched_rolled_back_and_the_model_dropped(
    page: Page, stack: Stack, gallery: list[Path], photograph: Callable[[str], None]
) -> None:
    job = stack.finished(stack.ingest("gallery", collection="pagemodels"))
    assert job["state"] == "succeeded", job
    show(page, "collections/pagemodels", "pagemodels")
    page.get_by_role("button", name="Show its models").click()
    page.get_by_label("With", exact=True).select_option(index=0)
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url(re.compile("#/jobs/."))
    expect(page.locator(".job .state")).to_have_text("succeeded")
    expect(page.locator(".progress")).to_contain_text(f"{len(gallery)} of {len(gallery)}")
    show(page, "models/pagemodels", "pagemodels")
    page.get_by_role("button", name="With images of the collection").click()
    expect(page.locator(".pair").first.locator(".side")).to_have_count(2)
    # Either model finds the image itself.
    expect(page.locator(".pair").first.locator(".strip li:first-child img.both")).to_have_count(2)
    photograph("models")
    page.set_input_files("#compared", [gallery[3]])
    expect(page.locator(".pair")).to_have_count(1)
    row = page.get_by_role("region", name="Models").locator("tbody tr", has_text="resnet18")
    page.get_by_role("button", name="Switch to it").click()
    expect(row).to_contain_text("serving")
    page.get_by_role("button", name="Roll back to it").click()
    expect(row).to_contain_text("retired")
    row.get_by_role("button", name="Drop").click()
    page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    expect(row).to_have_count(0)
