"""Meters: what processes take of memory and processor while a job runs, and the line through their memory."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

_MB = 1 << 20


@dataclass
class Meter:
    """Looks at groups of processes, each with its children told apart."""

    groups: Mapping[str, Sequence[int]]  #: Process ids by what they are.
    samples: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  #: Files done, and the largest RSS in MB.

    def sample(self, done: int) -> None:
        """Note how much memory the largest process of each group has."""
        for name, pids in self.groups.items():
            largest = max(psutil.Process(pid).memory_info().rss for pid in pids)
            self.samples.setdefault(name, []).append((done, largest / _MB))

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds each group has taken so far; those of children as a group `decoders`."""
        taken = {"decoders": 0.0}
        for name, pids in self.groups.items():
            taken[name] = 0.0
            for pid in pids:
                process = psutil.Process(pid)
                taken[name] += cpu_s(process)
                taken["decoders"] += sum(cpu_s(child) for child in process.children())
        return taken

    def memory(self) -> dict[str, dict[str, float]]:
        """Of each group's largest process: MB at the start and at most, and bytes it grew by per file."""
        return {
            name: {
                "start_mb": round(points[0][1], 1),
                "peak_mb": round(max(mb for _, mb in points), 1),
                "bytes_per_file": round(_slope(points) * _MB, 2),
            }
            for name, points in self.samples.items()
        }


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds that a process has taken since its start, without its children's."""
    times = process.cpu_times()
    return float(times.user + times.system)


def peak_mb(process: psutil.Process) -> float:
    """The most memory a process has had resident since its start, in MB; where the system keeps no record, has now."""
    if sys.platform == "linux":
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return float(process.memory_info().rss / _MB)


def _slope(points: Sequence[tuple[int, float]]) -> float:
    """MB per file over the last three quarters of a run: what is learnt and cached at its start is not growth."""
    last = points[-1][0]
    late = [(done, mb) for done, mb in points if done >= last / 4]
    if len({done for done, _ in late}) < 3:
        return 0.0
    done, mb = np.array(late, dtype=float).T
    return float(np.polyfit(done, mb, 1)[0])
