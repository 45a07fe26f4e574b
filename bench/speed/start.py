"""Start: from the command to a service that is ready, and to the first search, ingest and embedding."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lookalike.roots import file_uri, image_id
from speed.figures import Part, Say, Table, Values, shown
from speed.load import Searches, answered, client
from speed.options import Options
from speed.pictures import SIZES, take
from speed.stack import Stack, clean_environment

_SIZE: Final = SIZES["0.1"]
_COLLECTION: Final = "stored"
_EMBEDDING_S: Final = 300.0
_FIRST_EMBEDDING: Final = """
import numpy
from lookalike.settings import Settings
from lookalike_worker.model import load_embedder
load_embedder(Settings()).engine.embed(numpy.zeros((1, 224, 224, 3), numpy.uint8))
"""


def measure(place: Path, options: Options, say: Say) -> Iterator[Part]:
    """Measure the part `start`: cold once, with nothing converted; warm as often as there are turns."""
    part = Part("start")
    seconds: dict[str, Values] = {}
    folder, paths = take(options.pictures, _SIZE, 32)
    more, _ = take(options.pictures, _SIZE, 64)
    ids = [image_id(file_uri(path)) for path in paths]
    searches = Searches(_COLLECTION, paths, options.pictures, ids)
    data_dir, models = place / "start", place / "start-models"
    say("start: cold")
    with Stack(data_dir, root=options.pictures, models=models) as stack:
        seconds["cold start, which converts the network, to ready"] = [stack.ready_s]
        stack.ingest(folder, _COLLECTION)
    for turn in range(options.turns):
        say(f"start: warm, turn {turn + 1} of {options.turns}")
        # Everything is as the last stop left it: the same data folder, with what was stored.
        with Stack(data_dir, root=options.pictures, models=models) as stack:
            times = {"`lookalike up` to ready": stack.ready_s}
            with client(stack.service.url) as http:
                for what in ("first search by path", "second search by path"):
                    began_s = time.perf_counter()
                    answered(http, searches.by_path(http, turn))
                    times[what] = time.perf_counter() - began_s
            times["first ingest of 64 pictures"] = stack.ingest(more, f"later{turn}")
        times["worker's process to its first embedding"] = _first_embedding(data_dir)
        for what, value in times.items():
            seconds.setdefault(what, []).append(value)
    part.data["seconds"] = seconds
    part.ratio("first search over second", seconds["first search by path"], seconds["second search by path"])
    rows = [(what, shown(values, 2)) for what, values in seconds.items()]
    part.tables = [Table("Start, seconds", ("what", "s"), rows)]
    yield part


def _first_embedding(data_dir: Path) -> float:
    """Seconds of a new process until a picture is embedded and the process has ended."""
    env = clean_environment() | {"LOOKALIKE_WEIGHTS": "untrained", "LOOKALIKE_DATA_DIR": str(data_dir)}
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", _FIRST_EMBEDDING], env=env, check=True, timeout=_EMBEDDING_S)
    return time.perf_counter() - began_s
