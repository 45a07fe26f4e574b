"""Chunks: what one costs beyond its images, and how ingest workers add up; with stand-ins for network, codec and store.

The same files go through in chunks of two lengths. What the shorter ones take more, over how many more there are of
them, is the cost of a chunk: queue, ledger, leases, and whatever stands still between two chunks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from speed.figures import Part, Say, Table, Values, median, shown
from speed.options import Options
from stand_in.service import Run, running
from stand_in.tree import plant

_FILES: Final = 4096
_LONG: Final = 128
_SHORT: Final = 8
_WARM_FILES: Final = 256  #: Ingested first, so that figures do not tell of imports.
_PER_FOLDER: Final = 512
_IMAGE_MS: Final = 10.0  #: What the sleeping network takes for an image: long beside everything that is not asleep.
_FILES_A_WORKER: Final = 640
_WORKERS: Final = 4
_SLEEPY_CHUNK: Final = 32  #: Short enough that the last chunks of a job leave no worker idle for long.


def measure(place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the part `chunks`."""
    part = Part("chunks")
    root = place / "chunks-root"
    for files in (_WARM_FILES, _FILES, _FILES_A_WORKER, _FILES_A_WORKER * _WORKERS):
        plant(root / str(files), files, per_folder=_PER_FOLDER)
    part.tables = [_cost(part, place, root, options, say), _scaling(part, place, root, options, say)]
    yield part


def _cost(part: Part, place: Path, root: Path, options: Options, say: Say) -> Table:
    taken: dict[int, list[Run]] = {_LONG: [], _SHORT: []}
    for turn in range(options.turns):
        for length, runs in taken.items():
            say(f"chunks: turn {turn + 1} of {options.turns}, {length} files in each")
            runs.append(_run(place / f"{length}-{turn}", root, _FILES, workers=1, length=length))
    more = _FILES / _SHORT - _FILES / _LONG
    wall_ms = [1000 * (a.seconds - b.seconds) / more for a, b in zip(taken[_SHORT], taken[_LONG], strict=True)]
    cpu_ms = [
        1000 * (sum(a.cpu_s.values()) - sum(b.cpu_s.values())) / more
        for a, b in zip(taken[_SHORT], taken[_LONG], strict=True)
    ]
    per_file = {length: [1e6 * run.seconds / _FILES for run in runs] for length, runs in taken.items()}
    part.data |= {"chunk_ms": wall_ms, "chunk_cpu_ms": cpu_ms, "us_per_file": {str(k): v for k, v in per_file.items()}}
    part.ratio(f"a file in chunks of {_SHORT} over one in chunks of {_LONG}", per_file[_SHORT], per_file[_LONG])
    return Table(
        f"Cost of a chunk beyond its images: {_FILES:,} files in chunks of {_SHORT} and of {_LONG}",
        ("what", "ms"),
        [("a chunk, by the clock", shown(wall_ms, 2)), ("a chunk, CPU of all processes", shown(cpu_ms, 2))],
    )


def _scaling(part: Part, place: Path, root: Path, options: Options, say: Say) -> Table:
    rates: dict[int, Values] = {1: [], _WORKERS: []}
    for turn in range(options.turns):
        for workers, values in rates.items():
            say(f"chunks: turn {turn + 1} of {options.turns}, {workers} workers with a network that sleeps")
            files = _FILES_A_WORKER * workers
            where = place / f"workers-{workers}-{turn}"
            run = _run(where, root, files, workers=workers, length=_SLEEPY_CHUNK, image_ms=_IMAGE_MS)
            values.append(files / run.seconds)
    part.data["images_per_s_by_workers"] = {str(workers): values for workers, values in rates.items()}
    part.ratio(f"{_WORKERS} ingest workers over one, with a network that sleeps", rates[_WORKERS], rates[1])
    return Table(
        f"Ingest workers with a network that sleeps {_IMAGE_MS:.0f} ms an image",
        ("workers", "images/s", "over one"),
        [
            (str(workers), shown(values), f"{median(values) / median(rates[1]):.2f}")
            for workers, values in rates.items()
        ],
    )


def _run(where: Path, root: Path, files: int, *, workers: int, length: int, image_ms: float = 0.0) -> Run:
    arguments = ("--store=null", "--codec=address", f"--image-ms={image_ms}")
    env = {"LOOKALIKE_CHUNK_IMAGES": str(length)}
    with running(where, root, workers=workers, arguments=arguments, env=env) as service:
        service.run("warm", str(_WARM_FILES), look_s=0.05)
        return service.run("measured", str(files), look_s=0.05)
