"""Ingest: files to stored vectors by this service and its variants, over what users would pick instead."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from speed.figures import Part, Say, Table, Values, median, shown, spread
from speed.options import Options
from speed.pictures import SIZES, Size, bits_per_pixel, make
from speed.runners import LABELS, VARIANTS, Runner, Service, start
from speed.stack import NotHere

_WARM_UP: Final = 32
_STEP: Final = 32  #: Numbers of pictures are multiples of this, so that few different folders are laid out.
_BASE: Final = "tutorial"


def measure(names: Sequence[str], place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the parts `ingest-SIZE` that are named; all of them use the same processes."""
    place.mkdir(parents=True, exist_ok=True)
    sizes = [SIZES[name.removeprefix("ingest-")] for name in names]
    for size in sizes:
        say(f"making pictures of {size.label}")
        make(options.pictures, size, options.files)
    with ExitStack() as opened:
        runners, missing = _start((*options.variants, *options.rivals), place, options, opened, say)
        for size in sizes:
            part = _measure(size, runners, options, say)
            part.data["missing"] = missing
            yield part


def _start(
    names: Sequence[str], place: Path, options: Options, opened: ExitStack, say: Say
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Start all that are to be compared, and keep them running; returns also which are not here, and why."""
    runners: dict[str, Runner] = {}
    missing: dict[str, str] = {}
    for name in names:
        say(f"starting {LABELS[name]}")
        try:
            runners[name] = opened.enter_context(start(name, place, options))
        except NotHere as error:
            missing[name] = str(error)
            say(f"{LABELS[name]} is not here: {error}")
    return runners, missing


def _measure(size: Size, runners: dict[str, Runner], options: Options, say: Say) -> Part:
    part = Part(f"ingest-{size.name}")
    counts = {name: _fitting(runner, size, options) for name, runner in runners.items()}
    rates: dict[str, Values] = {name: [] for name in runners}
    cpu_ms: dict[str, dict[str, Values]] = {name: {} for name in runners if name in VARIANTS}
    for turn in range(options.turns):
        say(f"{part.name}: turn {turn + 1} of {options.turns}")
        for name, runner in runners.items():
            seconds, images = runner.run(size, counts[name])
            rates[name].append(images / seconds)
            if isinstance(runner, Service):
                for process, cpu_s in runner.cpu_s.items():
                    cpu_ms[name].setdefault(process, []).append(1000 * cpu_s / images)
    for name, values in rates.items():
        if name != _BASE and _BASE in rates:
            part.ratio(f"{LABELS[name]} over {LABELS[_BASE]}, {size.label}", values, rates[_BASE])
    peaks = {name: runner.stack.peak_mb() for name, runner in runners.items() if isinstance(runner, Service)}
    density = bits_per_pixel(make(options.pictures, size, counts[max(counts, key=lambda name: counts[name])]), size)
    part.data |= {"images_per_s": rates, "images": counts, "cpu_ms_per_image": cpu_ms, "peak_mb": peaks}
    part.data["bits_per_pixel"] = density
    part.data["precisions"] = {
        name: runner.precision for name, runner in runners.items() if isinstance(runner, Service)
    }
    part.tables = [_rates(size, part, rates, counts, density), _cpu(size, cpu_ms), _memory(size, peaks)]
    return part


def _fitting(runner: Runner, size: Size, options: Options) -> int:
    """Warm a runner up, and say how many pictures it takes in about the seconds wanted."""
    seconds, images = runner.run(size, _WARM_UP)
    wanted = int(options.seconds * images / seconds) // _STEP * _STEP
    most = min(options.files, size.most)
    return max(min(options.least, most), min(wanted, most))


def _rates(size: Size, part: Part, rates: dict[str, Values], counts: dict[str, int], density: float) -> Table:
    rows = []
    for name, values in rates.items():
        ratio = part.ratios.get(f"{LABELS[name]} over {LABELS[_BASE]}, {size.label}", [])
        over = f"{median(ratio):.2f} ({spread(ratio, 2)})" if ratio else "1"
        rows.append((LABELS[name], shown(values), over, str(counts[name])))
    return Table(
        f"Ingest of JPEGs of {size.label} ({size.width} x {size.height}, {density:.1f} bits a pixel)",
        ("who", "images/s", "over the tutorial's loop", "images a run"),
        rows,
    )


def _cpu(size: Size, cpu_ms: dict[str, dict[str, Values]]) -> Table:
    processes = list(dict.fromkeys(process for taken in cpu_ms.values() for process in taken))
    rows = [
        (process, *(f"{median(taken.get(process, [0.0])):.2f}" for taken in cpu_ms.values())) for process in processes
    ]
    sums = (f"{sum(median(values) for values in taken.values()):.2f}" for taken in cpu_ms.values())
    return Table(
        f"CPU ms an image of {size.label}, by process, while all of them work",
        ("process", *(LABELS[name] for name in cpu_ms)),
        [*rows, ("all", *sums)],
    )


def _memory(size: Size, peaks: dict[str, dict[str, float]]) -> Table:
    processes = list(dict.fromkeys(process for of in peaks.values() for process in of))
    rows = [(process, *(f"{of.get(process, 0):,.0f}" for of in peaks.values())) for process in processes]
    return Table(
        f"Peak memory in MB after ingests of up to {size.label}, the largest process of each kind",
        ("process", *(LABELS[name] for name in peaks)),
        rows,
    )
