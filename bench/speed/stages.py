"""Stages: what reading, decoding, resizing, the network and storing cost alone, and what that leaves possible together.

Each stage keeps all cores busy as it does in the service: decoders in processes of their own, the network on its own
threads, Milvus Lite in its server. CPU seconds an image add up; over the cores they are what no pipeline can beat.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from lookalike.decode import Limits, cut, decode, decode_reduced, resize_and_crop
from lookalike.decodepool import DecodePool
from lookalike.errors import LookalikeError
from lookalike.records import ModelInfo
from lookalike.roots import file_uri
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike_worker.engines import Engine
from lookalike_worker.model import load_embedder
from servers import start_milvus_lite
from shared.machine import cores
from shared.meter import cpu_s
from speed.figures import Part, Say, Table, Values, median, shown
from speed.options import Options
from speed.pictures import SIZES, Size, make

_DIM: Final = 2048
_UPSERT_ROWS: Final = 128  #: A chunk's.
_PRECISIONS: Final = ("fp32", "bf16", "int8")
_MODEL: Final = ModelInfo(name="made-up", weights="none", trained=False, fingerprint="57a9e" + "0" * 59, dim=_DIM)


class Meter:
    """Notes rates and CPU seconds an image, by stage, a value for each turn."""

    def __init__(self) -> None:
        self.images_per_s: dict[str, Values] = {}
        self.cpu_ms: dict[str, Values] = {}

    def note(self, stage: str, images: int, work: Callable[[], Any], others: Sequence[psutil.Process] = ()) -> None:
        """Do the work of so many images; the CPU seconds are this process's and those of the others."""
        before = time.process_time() + sum(cpu_s(process) for process in others)
        began_s = time.perf_counter()
        work()
        wall_s = time.perf_counter() - began_s
        taken_s = time.process_time() + sum(cpu_s(process) for process in others) - before
        self.images_per_s.setdefault(stage, []).append(images / wall_s)
        self.cpu_ms.setdefault(stage, []).append(1000 * taken_s / images)


def measure(place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the part `stages`."""
    part = Part("stages")
    meter = Meter()
    with ExitStack() as opened:
        works: list[Callable[[], None]] = []
        for size in SIZES.values():
            say(f"stages: pictures of {size.label}")
            works += _decoding(size, options, meter, opened)
        missing: dict[str, str] = {}
        for precision in _PRECISIONS:
            say(f"stages: the network in {precision}")
            try:
                engine = load_embedder(_settings(options, place, precision=precision)).engine
            except (LookalikeError, ValueError) as error:
                missing[precision] = str(error)
            else:
                works.append(_network(precision, engine, meter))
        works.append(_storing(place, meter, opened))
        for turn in range(options.turns):
            say(f"stages: turn {turn + 1} of {options.turns}")
            for work in works:
                work()
    limits = _limits(meter)
    part.data |= {"images_per_s": meter.images_per_s, "cpu_ms_per_image": meter.cpu_ms, "limits": limits}
    part.data |= {"missing": missing, "cores": cores()}
    part.tables = [_stage_table(meter), _limit_table(limits)]
    yield part


def _settings(options: Options, place: Path, **others: Any) -> Settings:
    """The settings of a worker; converted networks are those that the services of this bench use."""
    data_dir = place / "stages"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "models").is_symlink():
        (data_dir / "models").symlink_to(options.models.absolute())
    return Settings(weights="untrained", data_dir=data_dir, roots=(options.pictures,), **others)


def _decoding(size: Size, options: Options, meter: Meter, opened: ExitStack) -> list[Callable[[], None]]:
    """What is done to a file: in the decoders, as the service does it; and piece by piece, in one thread."""
    paths = make(options.pictures, size, 2 * size.sheets)
    uris = [file_uri(path) for path in paths]
    limits = Limits(max_pixels=Settings().max_pixels, min_side_px=1)

    def pooled(mode: str) -> Callable[[], None]:
        settings = Settings(roots=(options.pictures.absolute(),), decode=mode, decode_processes=cores())
        pool = opened.enter_context(DecodePool(settings))

        def work() -> None:
            _all(pool, uris[: 2 * cores()])  # Has every decoder started, and known to the meter.
            meter.note(f"decoder, {mode}, {size.label}", len(uris), lambda: _all(pool, uris), _children())

        return work

    def pieces() -> None:
        some = paths[: size.sheets]
        data = [path.read_bytes() for path in some]
        whole = [decode(one, limits) for one in data]
        reduced = [decode_reduced(one, limits) for one in data]
        meter.note(f"read and hash, {size.label}", len(some), lambda: [_read(path) for path in some])
        meter.note(f"decode, exact, {size.label}", len(some), lambda: [decode(one, limits) for one in data])
        meter.note(f"decode, fast, {size.label}", len(some), lambda: [decode_reduced(one, limits) for one in data])
        meter.note(f"resize, exact, {size.label}", len(some), lambda: [resize_and_crop(image) for image in whole])
        meter.note(f"resize, fast, {size.label}", len(some), lambda: [cut(image) for image in reduced])

    return [pooled("exact"), pooled("fast"), pieces]


def _all(pool: DecodePool, uris: Sequence[str]) -> None:
    for future in [pool.decode(uri) for uri in uris]:
        future.result()


def _read(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _network(precision: str, engine: Engine, meter: Meter) -> Callable[[], None]:
    pixels = np.random.default_rng(1).integers(0, 256, (4 * engine.batch_images, 224, 224, 3), np.uint8)
    engine.embed(pixels[:1])
    engine.embed(pixels)

    def work() -> None:
        meter.note(f"network, {precision}", len(pixels), lambda: engine.embed(pixels))
        some = pixels[:8]
        meter.note(f"network, {precision}, batch of one", 8, lambda: [engine.embed(one[None]) for one in some])

    return work


def _storing(place: Path, meter: Meter, opened: ExitStack) -> Callable[[], None]:
    uri, process = opened.enter_context(start_milvus_lite(place / "stages-milvus"))
    store = VectorStore(Settings(milvus_uri=uri))
    opened.callback(store.close)
    store.bind("made_up", _MODEL)
    rng = np.random.default_rng(1)
    stored = 0

    def work() -> None:
        nonlocal stored
        calls = [
            ([_row(first + number) for number in range(_UPSERT_ROWS)], rng.random((_UPSERT_ROWS, _DIM), np.float32))
            for first in range(stored, stored + 4 * _UPSERT_ROWS, _UPSERT_ROWS)
        ]
        stored += 4 * _UPSERT_ROWS

        def upsert() -> None:
            for call in calls:
                store.upsert("made_up", *call)

        meter.note("upsert", 4 * _UPSERT_ROWS, upsert, [psutil.Process(process.pid)])

    return work


def _row(number: int) -> StoredImage:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    uri = f"file:///made/up/{number:07}.jpg"
    return StoredImage(
        id=digest[:32], uri=uri, name=uri[-11:], sha256=digest, size=1, mtime_ns=1, width=1, height=1, metadata={}
    )


def _limits(meter: Meter) -> dict[str, dict[str, Any]]:
    """What the cores allow for each size, decode mode and precision, and which stage takes most of them."""
    limits: dict[str, dict[str, Any]] = {}
    for size in SIZES.values():
        for mode in ("fast", "exact"):
            for precision in _PRECISIONS:
                names = (f"decoder, {mode}, {size.label}", f"network, {precision}", "upsert")
                if all(name in meter.cpu_ms for name in names):
                    cpu_ms = {name: median(meter.cpu_ms[name]) for name in names}
                    limits[f"{size.label}, {mode}, {precision}"] = {
                        "images_per_s": 1000 * cores() / sum(cpu_ms.values()),
                        "bottleneck": max(names, key=lambda name: cpu_ms[name]).split(",")[0],
                        "cpu_ms": cpu_ms,
                    }
    return limits


def _stage_table(meter: Meter) -> Table:
    rows = [(stage, shown(meter.images_per_s[stage]), shown(meter.cpu_ms[stage], 2)) for stage in sorted(meter.cpu_ms)]
    return Table(
        "Stages alone",
        ("stage", "images/s", "CPU ms an image"),
        rows,
        "A decoder reads, hashes, decodes and resizes; there is one on each core. Its pieces were run in one thread.",
    )


def _limit_table(limits: dict[str, dict[str, Any]]) -> Table:
    rows = [
        (
            what,
            f"{limit['images_per_s']:.1f}",
            limit["bottleneck"],
            " + ".join(f"{cpu_ms:.1f}" for cpu_ms in limit["cpu_ms"].values()),
        )
        for what, limit in limits.items()
    ]
    return Table(
        "What the cores allow: decode, network and upsert together",
        ("pictures, decode, precision", "images/s at most", "bottleneck", "CPU ms: decoder + network + upsert"),
        rows,
    )
