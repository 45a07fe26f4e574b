"""Results: what has been found so far, part by part, each with its machine, commit, command and load; kept as JSON."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from shared.machine import commit, machine
from speed.figures import Part, Table, median, spread


@dataclass(frozen=True)
class Circumstances:
    """Under which figures were taken."""

    machine: dict[str, Any]
    commit: str
    command: str  #: Behind `make`.
    day: str
    load_before: float  #: Processes that wanted a core in the minute before.

    @classmethod
    def here(cls, command: str) -> Self:
        """Of now."""
        return cls(machine(), commit(), command, time.strftime("%Y-%m-%d"), os.getloadavg()[0])

    def sentence(self) -> str:
        """As it stands below a table."""
        command, _, arguments = self.command.partition(" ")
        given = f" with `{arguments}`" if arguments else ""
        return (
            f"`make {command}`{given}, {self.machine['processor']}, {self.machine['cores']} cores, "
            f"{self.machine['memory_gb']} GB, Python {self.machine['python']}, commit {self.commit}, {self.day}, "
            f"load {self.load_before:.1f} at the start."
        )


class Results:
    """Parts by name, the newest of each, in a file that outlives a run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def add(self, part: Part, circumstances: Circumstances) -> None:
        """Keep a part, in the place of what an earlier run found."""
        self._kept[part.name] = {"circumstances": asdict(circumstances), "part": part.as_json()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self._kept, indent=1) + "\n")
        partial.replace(self._file)

    def write(self, file: Path) -> None:
        """Write all of it to a file of the caller's."""
        file.write_text(json.dumps(self._kept, indent=1) + "\n")

    def parts(self) -> Iterator[tuple[Part, Circumstances]]:
        """All that is known."""
        for kept in self._kept.values():
            yield Part.from_json(kept["part"]), Circumstances(**kept["circumstances"])

    def fractions(self) -> list[Table]:
        """What was reached of what the stages allow, where both are known."""
        parts = {part.name: part for part, _ in self.parts()}
        stages = parts.get("stages")
        if stages is None:
            return []
        return [table for table in (_ingest_beside(parts, stages), _search_beside(parts, stages)) if table.rows]

    def headline(self) -> Table:
        """The ratios of all parts."""
        rows = [
            (part.name, what, f"{median(values):.2f}", spread(values, 2))
            for part, _ in self.parts()
            for what, values in part.ratios.items()
            if values
        ]
        return Table("Ratios", ("part", "what", "median", "all turns"), rows)


def _ingest_beside(parts: dict[str, Part], stages: Part) -> Table:
    rows = []
    for name, part in parts.items():
        size = name.removeprefix("ingest-")
        for variant, precision in part.data.get("precisions", {}).items():
            decode = "exact" if variant == "exact" else "fast"
            limit = stages.data["limits"].get(f"{size} MP, {decode}, {precision}")
            if limit:
                most, rate = limit["images_per_s"], median(part.data["images_per_s"][variant])
                bottleneck = limit["bottleneck"]
                rows.append((f"{size} MP, {variant}", f"{rate:.1f}", f"{most:.1f}", f"{rate / most:.2f}", bottleneck))
    header = ("pictures, variant", "images/s", "the cores allow", "fraction", "bottleneck")
    return Table("Ingest beside what the cores allow", header, rows)


def _search_beside(parts: dict[str, Part], stages: Part) -> Table:
    """Searches by path for pictures of 1.5 MP beside decoding and the network alone."""
    rows = []
    rates, cpu_ms = stages.data["images_per_s"], stages.data["cpu_ms_per_image"]
    for name, part in parts.items():
        network = f"network, {part.data.get('precision')}"
        if not name.startswith("search-") or network not in cpu_ms:
            continue
        decode_ms = median(cpu_ms["decoder, fast, 1.5 MP"])
        alone_ms = decode_ms + 1000 / median(rates[f"{network}, batch of one"])
        p50 = median([value for turn in part.data["latency_ms"]["path"] for value in turn])
        rows.append((f"{name}: p50 by path, ms", f"{p50:.1f}", f"{alone_ms:.1f}", f"{p50 - alone_ms:+.1f} ms"))
        most = 1000 * stages.data["cores"] / (decode_ms + median(cpu_ms[network]))
        rate = median(part.data["searches_per_s"]["32"])
        rows.append((f"{name}: searches/s of 32 clients", f"{rate:.1f}", f"{most:.1f}", f"{rate / most:.2f}"))
    return Table("Search beside its decoding and network alone", ("what", "measured", "alone", "beside that"), rows)
