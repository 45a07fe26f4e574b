"""Every command in the README and the manual runs, against the real stack, and prints what the page shows.

`sh`, `bash` and `python` blocks run here, in a folder that holds the files they name. `console` blocks start things
that take long or are not here; a table says which test runs each instead.
"""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from lookalike.gallery import Alteration, alter, draw_gallery, encode
from pages import CONSOLE, PRINTED, REPOSITORY, RUN_KINDS, Block, blocks, console_commands, known_tests, name, pages
from service import until
from stack import Stack

pytestmark = pytest.mark.on_servers

#: Collections that the pages make.
COLLECTIONS: Final = ("default", "holiday", "paintings", "people", "restored", "spring")
PAGES_THAT_RUN: Final = [page for page in pages() if any(block.kind in RUN_KINDS for block in blocks(page))]

#: A console command by its beginning, and the test that does the same, or the file that has the command in it.
RUN_ELSEWHERE: Final = (
    ("make demo", "test_the_demo_ingests_searches_draws_its_figure_and_leaves_nothing_running"),
    ("make setup", ".ci/run"),
    ("make test", ".ci/run"),
    ("make lint", ".ci/run"),
    # The programs of the environment are first in PATH there, too.
    (". .venv/bin/activate", "test_the_commands_of_a_page_run_and_print_what_it_shows"),
    ("lookalike up --root . --detach", "test_a_folder_is_ingested_with_exact_counts"),
    (
        "lookalike up --root . --ingest-workers 4 --search-workers 2",
        "test_both_ingest_workers_killed_again_and_again_lose_nothing",
    ),
    ("lookalike up --root /srv/pictures", "test_both_ingest_workers_killed_again_and_again_lose_nothing"),
    ("cp .env.example .env", "test_the_settings_with_the_example_are_accepted"),
    ("docker compose up --detach --build --scale worker-ingest=4", "test_workers_can_be_scaled"),
    (
        "docker compose --file docker-compose.yml --file docker-compose.gpu.yml up",
        "test_the_gpu_file_gives_a_gpu_to_the_workers_and_changes_nothing_else",
    ),
    (
        "curl localhost:8000/v1/collections/default/switch",
        "test_a_collection_is_switched_rolled_back_and_a_model_dropped",
    ),
    (
        "curl -X DELETE localhost:8000/v1/collections/default/models/resnet18",
        "test_a_collection_is_switched_rolled_back_and_a_model_dropped",
    ),
    (
        "curl localhost:8000/v1/reembeds",
        "test_a_reembedding_is_an_ingest_of_the_collection_for_the_workers_with_the_model",
    ),
    *(
        (f"lookalike {command}", "test_a_collection_is_embedded_with_another_model_switched_to_it_and_rolled_back")
        for command in (
            "collections reembed paintings resnet18",
            "collections switch paintings resnet",
            "search query.jpg --collection paintings --compare resnet18",
        )
    ),
    ("python -m gunicorn", "test_the_containers_run_what_the_supervisor_runs"),
    ("python -m lookalike_worker ingest", "test_the_containers_run_what_the_supervisor_runs"),
    ("python -m lookalike_worker search", "test_the_containers_run_what_the_supervisor_runs"),
)


@pytest.fixture(scope="module")
def folder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a reader is in: the root, with the files that the pages name."""
    drawn = draw_gallery(tmp_path_factory.mktemp("drawn"), count=24)
    photos = stack.root / "photos"
    (photos / "2024").mkdir(parents=True)
    for number, path in enumerate(drawn[:22]):
        target = photos / ("2024" if number % 2 else ".") / f"picture-{number}.jpg"
        _write(path, target)
    _write(drawn[22], photos / "sea.jpg")
    _write(drawn[23], photos / "a.jpg")
    with Image.open(photos / "sea.jpg") as sea:
        (stack.root / "query.jpg").write_bytes(encode(alter(sea, Alteration.RECOMPRESS), ".jpg"))
    _write(drawn[0], stack.root / "a.jpg")
    _write(drawn[1], stack.root / "b.png")
    return stack.root


def _write(source: Path, target: Path) -> None:
    with Image.open(source) as picture:
        target.write_bytes(encode(picture.convert("RGB"), target.suffix))


@pytest.fixture
def environ(stack: Stack, folder: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a reader whose `lookalike` is installed; curl fails where the service refuses."""
    # The set of paintings as its first download leaves it; what downloads it has tests of its own.
    datasets = tmp_path / ".cache" / "lookalike" / "datasets"
    datasets.mkdir(parents=True)
    with zipfile.ZipFile(datasets / "paintings.zip", "w") as archive:
        for path in sorted((folder / "photos").glob("*.jpg")):
            archive.write(path, f"training/Monet/{path.name}")
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 180\n")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**stack.environ, **here, "PATH": programs, "HOME": str(tmp_path), "CURL_HOME": str(tmp_path)}


@pytest.fixture
def no_collections(stack: Stack) -> Iterator[None]:
    """Begin and end without the collections that the pages make."""
    _drop_collections(stack)
    yield
    _drop_collections(stack)


def _drop_collections(stack: Stack) -> None:
    for collection in COLLECTIONS:
        assert stack.http.delete(f"/v1/collections/{collection}").status_code in {204, 404}


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=name)
def test_the_commands_of_a_page_run_and_print_what_it_shows(
    stack: Stack, folder: Path, environ: dict[str, str], page: Path
) -> None:
    for block in blocks(page):
        if block.kind not in RUN_KINDS:
            continue
        done = subprocess.run(
            _command(block, stack),
            cwd=folder,
            env={**environ, **_names(block, stack)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout}\n{done.stderr}\n{stack.logs()}"
        if block.printed is not None:
            assert _shape(done.stdout, folder) == _shape(block.printed, folder), f"{block}:\n{done.stdout}"
        _await_idle(stack)


def _command(block: Block, stack: Stack) -> list[str]:
    text = block.text.replace("http://127.0.0.1:8000", stack.url)
    text = text.replace("localhost:8000", stack.url.removeprefix("http://"))
    return [sys.executable, "-c", text] if block.kind == "python" else ["bash", "-euo", "pipefail", "-c", text]


def _names(block: Block, stack: Stack) -> dict[str, str]:
    """The id of a search, and of a stored image, for blocks that ask for one."""
    found = {}
    if "$JOB" in block.text or "$IMAGE" in block.text:
        body = {"collection": "default", "queries": [{"path": "photos/a.jpg"}], "wait": 30}
        record = stack.finished(stack.http.post("/v1/searches", json=body).json()["id"])
        found = {"JOB": record["id"], "IMAGE": record["result"]["queries"][0]["hits"][0]["id"]}
    return found


def _await_idle(stack: Stack) -> None:
    def idle() -> bool:
        pages = [stack.http.get("/v1/jobs", params={"state": state}).json() for state in ("queued", "running")]
        return not any(page["jobs"] for page in pages)

    until(idle, 180, stack.logs)


def _shape(printed: str, folder: Path) -> list[str]:
    """Lines without what differs from run to run: numbers, widths of columns, and the folder the reader is in."""
    printed = printed.replace(str(folder), "/home/me")
    return [re.sub(r"\d+(\.\d+)?", "N", " ".join(line.split())) for line in printed.splitlines()]


def test_what_a_page_shows_can_be_told_from_what_it_does_not(tmp_path: Path) -> None:
    shown = "query.jpg  1  /home/me/photos/sea.jpg  0.98\n"
    assert _shape(f"query.jpg\t1\t{tmp_path}/photos/sea.jpg\t0.9871\n", tmp_path) == _shape(shown, tmp_path)
    assert _shape(f"query.jpg\t1\t{tmp_path}/photos/a.jpg\t0.9871\n", tmp_path) != _shape(shown, tmp_path)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_command_of_a_page_is_run_somewhere(page: Path) -> None:
    for block in blocks(page):
        assert block.kind in RUN_KINDS | {CONSOLE, PRINTED, "json"}, f"{block}: nobody runs a {block.kind!r} block"
        if block.kind == CONSOLE:
            assert console_commands(block), f"{block}: a command begins with $"
        for command in console_commands(block) if block.kind == CONSOLE else ():
            assert _run_by(command), f"{block}: no test runs {command!r}"


def _run_by(command: str) -> str | None:
    return next((runner for begin, runner in RUN_ELSEWHERE if command.startswith(begin)), None)


def test_what_is_said_to_run_a_command_exists() -> None:
    tests = known_tests()
    for begin, runner in RUN_ELSEWHERE:
        file = REPOSITORY / runner
        assert runner in tests or (file.is_file() and begin in file.read_text()), f"{begin}: {runner}"
