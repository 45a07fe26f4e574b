"""Run the bench: `python -m scale`, with this folder's parent and the tests on the path. See `--help`."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from scale import __doc__ as about
from scale.phases import HEADER, PHASES, Bench, Figures, report
from shared.machine import machine
from stand_in.tree import plant

_WARM_FILES: Final = 3_000
_DEFAULT_PHASES: Final = ("plan", "plan-unchanged", "milvus")
_UNITS: Final = {"k": 1_000, "m": 1_000_000}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-scale", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=_sizes, default=_sizes("10k,100k,1M"), help="files, as in 10k,100k,1M")
    parser.add_argument("--phases", type=_words, default=_DEFAULT_PHASES, help=f"of {','.join(PHASES)}")
    parser.add_argument("--repeat", type=int, default=3, help="times that the smallest size is run")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of an ingest, each with one decoder")
    parser.add_argument("--folders-of", type=int, default=1_000, help="files in each folder of a tree")
    parser.add_argument("--codec", choices=["address", "pillow"], default="address", help="pillow decodes for real")
    parser.add_argument("--place", type=Path, help="a folder on a disk with room for the trees, kept afterwards")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that servers and workers are ended in any case.
    began_s = time.monotonic()
    facts = machine()
    print(", ".join(f"{name} {fact}" for name, fact in facts.items()), flush=True)
    taken: list[Figures] = []
    with ExitStack() as opened:
        place = options.place or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-scale-")))
        root = place / "root"
        plant(root / "warm", _WARM_FILES, per_folder=options.folders_of)
        bench = Bench(place=place / "runs", root=root, workers=options.workers, codec=options.codec, warm="warm")
        print(HEADER, flush=True)
        for phase in options.phases:
            for files in options.sizes:
                for turn in range(options.repeat if files == min(options.sizes) else 1):
                    _tree(root, files, options.folders_of)
                    for figures in bench.phase(phase, files, turn):
                        report(lambda line: print(line, flush=True), figures)
                        taken.append(figures)
    minutes = (time.monotonic() - began_s) / 60
    print(f"{minutes:.1f} minutes, load {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "minutes": minutes, "runs": taken}, indent=1) + "\n")
    return 0


def _tree(root: Path, files: int, per_folder: int) -> None:
    """Plant a tree, or put back what a cancelled run has renamed."""
    folder = root / str(files)
    if not folder.exists():
        plant(folder, files, per_folder=per_folder)
    for moved in folder.glob("moved-*"):
        moved.rename(moved.with_name(moved.name.removeprefix("moved-")))


def _sizes(text: str) -> list[int]:
    return sorted(int(word.rstrip("kKmM")) * _UNITS.get(word[-1].lower(), 1) for word in _words(text))


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    sys.exit(main())
