"""A worker process of either lane, as `lookalike_worker` runs it, with stand-ins in the places of the dear parts.

    python -m stand_in.worker NAME REPORT [--lane ingest|search] [--store null|full|milvus] [--codec address|pillow]
                              [--chunks real|null] [--image-ms MS]

At its end it writes to REPORT what planning took, by job: seconds by the clock and of the processor.
"""

import argparse
import json
import logging
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lookalike.decodepool import DecodePool
from lookalike.jobstore import Lane, PlanClaim, Receipt
from lookalike.settings import Settings
from lookalike_worker import celery_app, lanes
from lookalike_worker.ingest.planner import Planner
from stand_in import parts, tree

_CODEC = (sys.executable, "-P", "-m", "stand_in.decoder")


class TimedPlanner(Planner):
    """A planner that adds up what it takes, by job."""

    wall_s: ClassVar[dict[str, float]] = defaultdict(float)
    cpu_s: ClassVar[dict[str, float]] = defaultdict(
        float
    )  #: Of the whole process: threads that look things up are part of it.

    def plan(self, claim: PlanClaim) -> Receipt:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            return super().plan(claim)
        finally:
            self.wall_s[claim.job_id] += time.perf_counter() - began_s
            self.cpu_s[claim.job_id] += time.process_time() - began_cpu_s


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("report", type=Path)
    parser.add_argument("--store", choices=["null", "full", "milvus"], default="milvus")
    parser.add_argument("--codec", choices=["address", "pillow"], default="address")
    parser.add_argument("--chunks", choices=["real", "null"], default="real")
    parser.add_argument("--lane", choices=list(Lane), type=Lane, default=Lane.INGEST)
    parser.add_argument("--image-ms", type=float, default=0.0, help="what the network sleeps for each image")
    options = parser.parse_args()
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _stand_in(settings, options)
    try:
        return celery_app.run_worker(settings, options.lane, options.name)
    finally:
        options.report.write_text(json.dumps({"wall_s": TimedPlanner.wall_s, "cpu_s": TimedPlanner.cpu_s}))


def _stand_in(settings: Settings, options: argparse.Namespace) -> None:
    """Put the stand-ins where the composition root looks for the parts."""
    root: Any = celery_app
    lane: Any = lanes
    root.load_embedder = lambda _: parts.embedder(image_s=options.image_ms / 1000)
    lane.Planner = TimedPlanner
    if options.codec == "address":
        root.DecodePool = partial(DecodePool, command=_CODEC)
    if options.store != "milvus":
        root.VectorStore = parts.NullStore
    if options.store == "full":
        status = tree.one_file(next(path for path in settings.roots[0].iterdir() if (path / "00000").is_dir()))
        parts.NullStore.full = parts.state_of({"size": status.st_size, "mtime_ns": status.st_mtime_ns})
    if options.chunks == "null":
        lane.Pipeline = parts.NullPipeline


if __name__ == "__main__":
    sys.exit(main())
