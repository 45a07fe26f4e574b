"""`lookalike demo`: draw a gallery, start the stack, ingest, search altered copies, stop everything.

The supervisor runs in the main thread, as in `lookalike up`, so that it ends with this process whatever happens to it;
what there is to see happens in a second thread, as a client of the service like any other.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lookalike.cli.progress import progress_report
from lookalike.client import Client
from lookalike.errors import CollectionNotFound, SetupError
from lookalike.records import Hit, Metric, SearchResult
from lookalike.settings import UNTRAINED, Settings
from lookalike.supervisor import Event, EventKind, UpOptions, up

if TYPE_CHECKING:
    from lookalike.gallery import Alteration

COLLECTION: Final = "gallery"
HITS: Final = 5  #: Per query.
TABLE_HITS: Final = 3  #: As many of them fit into a terminal of 80 columns.
WEIGHTS_TIMEOUT_S: Final = 15.0  #: What the download of trained weights may take.

_TORCH_IMPORT_S: Final = 30.0  #: What the process that downloads them may take beside it, on a busy machine.
_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Copy:
    """An altered copy of a picture of the gallery."""

    path: Path
    kind: "Alteration"
    original: str  #: File name of the picture it was made from.


def run(*, data_dir: Path | None = None, out: Path = Path("search_result.png"), console: Console | None = None) -> int:
    """Show the service at work and leave nothing running; returns the exit status, 130 after Ctrl-C.

    Keeps the gallery and the weights in `data_dir`, by default a folder of its own within the service's, so that the
    next time is quicker. To be called from the main thread. Raises `SetupError` or a subclass where the stack cannot
    start.
    """
    from lookalike.supervisor.stack import require_extras

    began = time.monotonic()
    say = console or Console()
    if not out.absolute().parent.is_dir():
        raise SetupError(f"There is no folder {out.absolute().parent} to write the figure to. Name another with --out.")
    settings = _settings(data_dir)
    require_extras(UpOptions(settings=settings))
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # Both ways to be stopped are one.
    try:
        with _fetching_weights(settings) as weights:
            copies = _draw(settings, say)
            settings = settings.model_copy(update={"weights": weights(say)})
        status = _Tour(settings, copies=copies, out=out, console=say).run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, former)
    if status == 0:
        say.print(f"Everything is stopped. The demo took {time.monotonic() - began:.0f} s.")
    return status


def _settings(data_dir: Path | None) -> Settings:
    """Return settings for a stack that shares nothing with any other, whatever the environment says of servers."""
    from lookalike.supervisor.servers import free_port

    folder = (data_dir or Settings().data_dir / "demo").expanduser().absolute()
    return Settings(
        data_dir=folder,
        roots=(folder / "gallery",),
        host="127.0.0.1",
        port=free_port(),
        api_keys=(),
        keys_file=None,
        allowed_hosts=("127.0.0.1",),
        metric=Metric.COSINE,
        chunk_images=32,  # Progress is counted by chunks, and here somebody watches.
    )


# --- Pictures and weights -------------------------------------------------------------------------------------------


def _draw(settings: Settings, say: Console) -> list[Copy]:
    from lookalike.gallery import STYLES, draw_gallery

    began = time.monotonic()
    folder = settings.roots[0]
    try:
        paths = draw_gallery(folder)
        copies = _altered_copies(paths, settings.data_dir / "queries")
    except OSError as error:
        raise SetupError(
            f"The folder {settings.data_dir} cannot be written: {error.strerror or error}. "
            "Choose another with --data-dir."
        ) from error
    say.print(
        f"A gallery of {len(paths)} pictures in {len(STYLES)} styles lies in {folder} "
        f"({time.monotonic() - began:.1f} s).",
        soft_wrap=True,
    )
    return copies


def _altered_copies(paths: Sequence[Path], folder: Path) -> list[Copy]:
    """Make one copy of each kind, each of a picture of another style, named for what was done to it."""
    from PIL import Image

    from lookalike.gallery import Alteration, alter, encode

    shown = {
        Alteration.CROP: "landscapes",
        Alteration.RESCALE: "checkers",
        Alteration.RECOMPRESS: "mosaics",
        Alteration.ROTATE: "stripes",
        Alteration.BRIGHTEN: "rings",
        Alteration.MIRROR: "triangles",
    }
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for kind, style in shown.items():
        original = next(path for path in paths if path.stem == f"{style}-003")
        copy = folder / f"{style} {kind}.jpg"
        with Image.open(original) as picture:
            copy.write_bytes(encode(alter(picture, kind), ".jpg"))
        copies.append(Copy(copy, kind, original.name))
    return copies


@contextmanager
def _fetching_weights(settings: Settings) -> "Iterator[_Weights]":
    """Download trained weights beside what the block does. In a process of its own: this one never imports torch."""
    if "weights" in settings.model_fields_set:
        yield _Weights(settings, None)
        return
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "lookalike_worker", "weights", "--timeout", str(WEIGHTS_TIMEOUT_S)],
        env={**os.environ, "LOOKALIKE_DATA_DIR": str(settings.data_dir)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Weights(settings, process)
    finally:
        process.kill()
        process.communicate()


class _Weights:
    """The outcome of the download: a value for the setting `weights`."""

    def __init__(self, settings: Settings, process: "subprocess.Popen[str] | None") -> None:
        self._settings = settings
        self._process = process

    def __call__(self, say: Console) -> str:
        if self._process is None:
            return self._settings.weights
        try:
            _, errors = self._process.communicate(timeout=WEIGHTS_TIMEOUT_S + _TORCH_IMPORT_S)
        except subprocess.TimeoutExpired:
            errors = ""
        if self._process.returncode == 0:
            return self._settings.weights
        reason = errors.strip().rsplit("\n", 1)[-1].removeprefix("error: ")
        say.print(
            f"The trained weights of {self._settings.model} could not be downloaded. The demo goes on with an "
            "untrained network: it finds near-duplicates, but knows no concepts.",
            style="yellow",
            soft_wrap=True,
        )
        if reason:
            say.print(f"  ({reason})", style="dim", markup=False, soft_wrap=True)
        return UNTRAINED


# --- What there is to see -------------------------------------------------------------------------------------------


class _Tour:
    """The stack in the main thread, and its client in another."""

    def __init__(self, settings: Settings, *, copies: Sequence[Copy], out: Path, console: Console) -> None:
        self._settings = settings
        self._copies = copies
        self._out = out
        self._say = console
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._done = False
        self._lock = threading.Lock()
        self._over = False

    def run(self) -> int:
        """Return the exit status; raises what the supervisor or the client raised, after everything was stopped."""
        # A daemon: after Ctrl-C it may still wait for a service that is gone.
        threading.Thread(target=self._client, name="demo", daemon=True).start()
        self._say.print(
            "Starting the service: Redis, Milvus, a search worker, an ingest worker and the front end.", soft_wrap=True
        )
        try:
            status = up(UpOptions(settings=self._settings, on_event=self._on_event))
        finally:
            with self._lock:
                self._over = True
        if self._error is not None:
            raise self._error
        return status if self._done else _INTERRUPTED

    def _on_event(self, event: Event) -> None:
        match event.kind:
            case EventKind.READY:
                self._say.print(f"The service is {event.message}")
                self._ready.set()
            case EventKind.TROUBLE:
                self._say.print(event.message, style="yellow", markup=False, soft_wrap=True)

    def _client(self) -> None:
        self._ready.wait()
        try:
            with Client(f"http://{self._settings.host}:{self._settings.port}") as client:
                self._show(client)
            self._done = True
        except BaseException as error:  # noqa: BLE001 - Raised anew in the main thread.
            self._error = error
        with self._lock:
            if not self._over:
                os.kill(os.getpid(), signal.SIGTERM)  # What the supervisor stops for.

    def _show(self, client: Client) -> None:
        self._ingest(client)
        began = time.monotonic()
        job = client.search(*(copy.path for copy in self._copies), collection=COLLECTION, limit=HITS, wait=False)
        job.wait()
        result = job.search_result()
        took_s = time.monotonic() - began
        self._say.print(
            _table(self._copies, result, title=f"{len(self._copies)} altered copies, found in {took_s:.2f} s")
        )
        self._out.write_bytes(job.figure())
        self._say.print(verdict(self._copies, result), soft_wrap=True)
        self._say.print(f"The same as a picture: {self._out.absolute()}", soft_wrap=True)

    def _ingest(self, client: Client) -> None:
        """Ingest into an empty collection, so that every run shows the whole work."""
        with suppress(CollectionNotFound):
            client.collections.delete(COLLECTION)
        with progress_report("Ingesting") as report:
            summary = client.ingest(
                self._settings.roots[0], collection=COLLECTION, upload=False, on_progress=report.progress
            )
        done = summary.progress
        rate = f", {done.images_per_s:.0f} a second" if done.images_per_s else ""
        self._say.print(f"Ingested {done.stored} pictures{rate}; {done.failed} failed.")


def _name(hit: Hit) -> str:
    return hit.name or hit.uri.rsplit("/", 1)[-1]


def _found(copy: Copy, hits: Sequence[Hit]) -> bool:
    return bool(hits) and _name(hits[0]) == copy.original


def _table(copies: Sequence[Copy], result: SearchResult, *, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("searched")
    for rank in range(1, TABLE_HITS + 1):
        table.add_column(f"hit {rank}")
    for copy, answer in zip(copies, result.queries, strict=True):
        cells = [f"{Path(_name(hit)).stem}\n[dim]{hit.distance:.4f}[/dim]" for hit in answer.hits[:TABLE_HITS]]
        if _found(copy, answer.hits):
            cells[0] = f"[green]{cells[0]}[/green]"
        table.add_row(f"{Path(copy.original).stem}\n[dim]{copy.kind.label}[/dim]", *cells)
    return table


def verdict(copies: Sequence[Copy], result: SearchResult) -> str:
    """Say in one sentence which copies found their original first, and which did not."""
    answers = zip(copies, result.queries, strict=True)
    missed = [copy for copy, answer in answers if not _found(copy, answer.hits)]
    if not missed:
        return f"Each of the {len(copies)} altered copies found its original first."
    names = ", ".join(f"{copy.original} ({copy.kind.label})" for copy in missed)
    return f"{len(copies) - len(missed)} of {len(copies)} altered copies found their original first; not so: {names}."
