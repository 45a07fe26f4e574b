"""Run the bench: `python -m speed`, with this folder's parent and the tests on the path. See `--help`."""

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final

from speed import __doc__ as about
from speed import document
from speed.figures import Part
from speed.options import Options, quick
from speed.results import Circumstances, Results

#: Module by part; the parts of one module and one group run together.
_PARTS: Final = {
    "ingest-0.1": "ingest",
    "ingest-1.5": "ingest",
    "ingest-12": "ingest",
    "stages": "stages",
    "search-10k": "search",
    "search-100k": "search",
    "overhead": "overhead",
    "start": "start",
    "chunks": "chunks",
}
_QUICK: Final = ("ingest-1.5", "search-10k")


def main() -> int:
    options, arguments = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that servers and workers are ended in any case.
    began_s = time.monotonic()
    circumstances = Circumstances.here(" ".join(["bench-quick" if options.quick else "bench", *_args()]))
    results = Results(options.place / ("quick.json" if options.quick else "figures.json"))
    print(circumstances.sentence(), flush=True)
    with tempfile.TemporaryDirectory(prefix="lookalike-speed-") as place:
        for part in _measured(arguments.parts, Path(place), options, lambda what: _say(what, began_s)):
            results.add(part, circumstances)
            for table in [*([] if options.quick else part.tables), *([part.ratio_table()] if part.ratios else [])]:
                print(f"\n{table.text()}", flush=True)
    for table in [] if options.quick else results.fractions():
        print(f"\n{table.text()}")
    print(f"\n{(time.monotonic() - began_s) / 60:.1f} minutes")
    if arguments.json:
        results.write(arguments.json)
    if arguments.write_docs:
        for name in document.write(document.PAGE, results):
            print(f"{document.PAGE} has no place for {name}")
    return 0


def _measured(names: Sequence[str], place: Path, options: Options, say: Callable[[str], None]) -> Iterator[Part]:
    """Measure the parts, those of ingest with the same processes."""
    ingests = [name for name in names if _PARTS[name] == "ingest"]
    if ingests:
        yield from import_module("speed.ingest").measure(ingests, place / "ingest", options, say)
    for name in names:
        if name in ingests:
            continue
        module = import_module(f"speed.{_PARTS[name]}")
        where = place / name
        where.mkdir()
        if _PARTS[name] == "search":
            yield from module.measure(name, where, options, say)
        else:
            yield from module.measure(where, options, say)


def _options() -> tuple[Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="make bench", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)}; or ingest, search")
    parser.add_argument("--quick", action="store_true", help="ratios only, of little, in about two minutes")
    parser.add_argument("--turns", type=int, help="times that everything is measured; 3")
    parser.add_argument("--seconds", type=float, help="what one ingest should take; 6")
    parser.add_argument("--files", type=int, help="pictures of a size, at most; 512")
    parser.add_argument("--variants", type=_words, help="of the service: fast,exact,int8; also fp32")
    parser.add_argument("--rivals", type=_words, help="tutorial,fastembed,ray")
    parser.add_argument("--clients", type=_numbers, help="that search at the same time: 1,8,32,128")
    parser.add_argument("--place", type=Path, default=Path("build/bench"), help="keeps pictures, networks and figures")
    parser.add_argument("--json", type=Path, help="where to write all figures, those of earlier runs' parts included")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    place = arguments.place.absolute()
    options = quick(place) if arguments.quick else Options(place=place)
    given = {name: getattr(arguments, name) for name in ("turns", "seconds", "files", "variants", "rivals", "clients")}
    options = replace(options, **{name: value for name, value in given.items() if value is not None})
    arguments.parts = _chosen(parser, arguments.parts) or (_QUICK if options.quick else list(_PARTS))
    return options, arguments


def _chosen(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The parts that are meant, in the order of all parts."""
    meant = {part for word in words for part in _PARTS if word in {part, _PARTS[part]}}
    for word in words:
        if word not in _PARTS and word not in _PARTS.values():
            parser.error(f"there is no part {word}")
    return [part for part in _PARTS if part in meant]


def _args() -> list[str]:
    """What was measured, in words of the command line; where else it was written to is nobody's business."""
    given = sys.argv[1:]
    paths = {n for n, word in enumerate(given) if {word, given[n - 1] if n else ""} & {"--json", "--place"}}
    told = shlex.join(word for n, word in enumerate(given) if n not in paths and word != "--quick")
    return [f'ARGS="{told}"'] if told else []


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _say(what: str, began_s: float) -> None:
    print(f"{time.monotonic() - began_s:6.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
