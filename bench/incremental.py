"""How fast an ingest plans: files that are unchanged, and files that are new, into an empty collection and a full one.

Real Valkey, real Milvus Lite, the real planner; chunks are accounted without being embedded, and their time is not
counted. The tree is made of hard links to one picture.

    python bench/incremental.py --files 20000
"""

import argparse
import hashlib
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # The tests know how to start the servers.

from ingest_parts import MODEL, make_context, picture
from lookalike.jobstore import ChunkOutcome, PlanClaim
from lookalike.records import FolderSource, IngestRequest, JobKind, JobRecord
from lookalike.roots import file_uri, image_id
from lookalike.settings import Settings
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.ingest.planner import Planner
from redis_server import start_redis, valkey_binary
from servers import start_milvus_lite

_FOLDER_FILES: Final = 1000
_ROWS: Final = 1000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64, help="length of the stored vectors, which are never read")
    parser.add_argument("--lookahead", type=int, default=8, help="LOOKALIKE_LOOKAHEAD_CHUNKS")
    parser.add_argument("--keep", type=Path, help="a folder to work in, instead of a temporary one")
    options = parser.parse_args()
    with ExitStack() as opened:
        place = options.keep or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-bench-")))
        root = place / "root"
        plant(root, options.files)
        context = opened.enter_context(worker(place, root, options))
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        print(f"{options.files} files, vectors of {options.dim}, Milvus Lite\n")
        print(f"{'what':<42}{'files/s':>10}{'seconds':>10}{'CPU s':>8}{'RSS MB':>8}")
        report("new, into an empty collection", *plan(context, "empty"))
        fill(context, "full", root, options.dim)
        report("unchanged", *plan(context, "full"))
        report("unchanged, with metadata that is stored", *plan(context, "full", metadata={"album": "spring"}))
        report("new metadata for all", *plan(context, "full", metadata={"album": "summer"}, dry_run=True))
        (root / "moved").mkdir(exist_ok=True)
        for folder in list(root.iterdir()):
            if folder.name != "moved":
                folder.rename(root / "moved" / folder.name)
        report("new, into a full collection", *plan(context, "full"))


def plant(root: Path, files: int) -> None:
    """Make a tree of pictures, all links to one."""
    root.mkdir(parents=True)
    seed = root.parent / "seed.png"
    seed.write_bytes(picture(1))
    for first in range(0, files, _FOLDER_FILES):
        folder = root / f"{first // _FOLDER_FILES:05}"
        folder.mkdir()
        for number in range(first, min(first + _FOLDER_FILES, files)):
            (folder / f"{number:08}.png").hardlink_to(seed)


@contextmanager
def worker(place: Path, root: Path, options: argparse.Namespace) -> Iterator[Context]:
    """Start the servers, and build a worker's parts."""
    with ExitStack() as opened:
        (place / "redis").mkdir()
        redis_url = opened.enter_context(start_redis(valkey_binary(), place / "redis"))
        milvus_uri, _ = opened.enter_context(start_milvus_lite(place / "milvus"))
        settings = Settings(
            redis_url=redis_url,
            milvus_uri=milvus_uri,
            data_dir=place / "data",
            roots=(root,),
            lookahead_chunks=options.lookahead,
        )
        context = make_context(settings, model=MODEL.model_copy(update={"dim": options.dim}))
        opened.callback(context.close)
        yield context


def fill(context: Context, collection: str, root: Path, dim: int) -> None:
    """Store a row for every file, as it is."""
    context.vectors.bind(collection, MODEL.model_copy(update={"dim": dim}))
    paths = sorted(root.rglob("*.png"))
    status = paths[0].stat()
    for first in range(0, len(paths), _ROWS):
        some = paths[first : first + _ROWS]
        images = [row(path, status) for path in some]
        context.vectors.upsert(collection, images, np.random.default_rng(first).random((len(some), dim), np.float32))


def row(path: Path, status: os.stat_result) -> StoredImage:
    """Describe a file as an ingest would, save that each has a content of its own."""
    uri = file_uri(path)
    return StoredImage(
        id=image_id(uri),
        uri=uri,
        name=path.name,
        sha256=hashlib.sha256(uri.encode()).hexdigest(),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        width=24,
        height=24,
        job="01J",
        metadata={"album": "spring"},
    )


def plan(context: Context, collection: str, **fields: Any) -> tuple[float, float, JobRecord]:
    """Plan an ingest of the whole tree; returns the planner's seconds and its processor's, and the last record."""
    request = IngestRequest(collection=collection, source=FolderSource(path="."), **fields)
    job, _ = context.jobs.create(JobKind.INGEST, request)
    planner = Planner(context)
    seconds = cpu_s = 0.0
    while (claim := context.jobs.claim_ingest()) is not None:
        if isinstance(claim, PlanClaim):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            planner.plan(claim)
            seconds += time.perf_counter() - began_s
            cpu_s += time.process_time() - began_cpu_s
        else:
            context.jobs.account(claim, ChunkOutcome(added=len(claim.items)))
    planner.close()
    return seconds, cpu_s, context.jobs.get(job.id)


def report(what: str, seconds: float, cpu_s: float, record: JobRecord) -> None:
    """Print one line."""
    done = record.progress.done
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<42}{done / seconds:>10.0f}{seconds:>10.2f}{cpu_s:>8.2f}{rss_mb:>8.0f}")


if __name__ == "__main__":
    main()
