"""Run the bench: `python -m vectors`, with this folder's parent and the tests on the path. See `--help`."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from lookalike.vectorstore.indexes import ServerKind
from shared.machine import machine
from vectors import __doc__ as about
from vectors.data import Mixture, Neighbours, Vectors
from vectors.service import Server, announced, serving, started, until_told
from vectors.table import table
from vectors.trial import LIMIT, Trial, specs

_NOTES: Final = "figures.jsonl"
_UNITS: Final = {"k": 1_000, "m": 1_000_000}


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that servers are ended in any case.
    if options.step == "table":
        print(table(_noted(options.place)))
        return 0
    with ExitStack() as opened:
        options.place = options.place or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-")))
        if options.step == "run":
            _run(options)
        elif options.step == "search":
            _measure(options, serving(options.place), "search")
        else:
            server = opened.enter_context(started(ServerKind(options.server), options.place))
            if options.step == "serve":
                _measure(options, server, "load")
                with announced(server, options.place):
                    until_told()
            else:
                _measure(options, server, options.step)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-vectors", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", nargs="?", default="run", choices=["run", "fill", "index", "serve", "search", "table"])
    parser.add_argument("--server", choices=[kind.value for kind in ServerKind], default="lite")
    parser.add_argument(
        "--sizes", type=_sizes, default=_sizes("10k,30k"), help="rows, as in 10k,100k; the pieces take one"
    )
    parser.add_argument("--dim", type=int, default=2048, help="values of a vector")
    parser.add_argument("--indexes", type=lambda text: text.split(","), help="some of FLAT, IVF_1, IVF_128, HNSW, ...")
    parser.add_argument("--nprobe", type=int, help="cells a search looks into, where the index has cells")
    parser.add_argument("--ef", type=int, help="candidates a search keeps, where the index is HNSW")
    parser.add_argument("--queries", type=int, default=96)
    parser.add_argument("--place", type=Path, help="a folder with room for all vectors several times, kept afterwards")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Measure everything asked for: all sizes of one collection, which grows, with one index after the other."""
    print(", ".join(f"{name} {fact}" for name, fact in machine().items()), flush=True)
    kind = ServerKind(options.server)
    with started(kind, options.place) as server:
        for rows in options.sizes:
            each = argparse.Namespace(**vars(options) | {"sizes": [rows]})
            names = options.indexes or list(specs(kind, rows, options.dim))
            for number, name in enumerate(names):
                each.indexes = [name]
                for what in ("fill", "index", "search") if number == 0 else ("index", "search"):
                    _measure(each, server, what)
    print(table(_noted(options.place)))


def _measure(options: argparse.Namespace, server: Server, what: str) -> None:
    rows = options.sizes[0]
    name = options.indexes[0] if options.indexes else next(iter(specs(server.kind, rows, options.dim)))
    spec = specs(server.kind, rows, options.dim)[name]
    asked = {"nprobe": options.nprobe, "ef": options.ef}
    spec = replace(spec, search={key: asked.get(key) or value for key, value in spec.search.items()})
    trial = Trial(server, options.dim, spec)
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "fill": lambda: trial.fill(rows),
        "index": trial.index,
        "load": trial.load,
        "search": lambda: trial.search_all(*_asked(options, rows)),
    }
    figures = {
        "step": what,
        "server": server.kind.value,
        "rows": rows,
        "dim": options.dim,
        "index": name,
        "spec": str(spec),
        "search": dict(spec.search),
        "at": time.strftime("%H:%M:%S"),
    } | steps[what]()
    trial.close()
    line = json.dumps(figures)
    print(line, flush=True)
    with (options.place / _NOTES).open("a") as notes:
        notes.write(line + "\n")


def _asked(options: argparse.Namespace, rows: int) -> tuple[Vectors, Neighbours]:
    """Queries, and what an exact search finds for them: worked out once for each number of rows."""
    mixture = Mixture(options.dim)
    asked = mixture.queries(options.queries)
    kept = options.place / f"exact-{options.dim}-{rows}-{options.queries}.npz"
    if not kept.exists():
        found = mixture.neighbours(asked, rows, LIMIT)
        np.savez(kept, rows=found.rows, cosines=found.cosines)
    with np.load(kept) as arrays:
        return asked, Neighbours(rows=arrays["rows"], cosines=arrays["cosines"])


def _noted(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / _NOTES).read_text().splitlines()]


def _sizes(text: str) -> list[int]:
    return sorted(int(word.rstrip("kKmM")) * _UNITS.get(word[-1].lower(), 1) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
