"""Figures: what was measured, several times each, and how it is shown."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

Values = list[float]


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column says what the row is of."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        """The table as it stands in a document."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return "\n\n".join(part for part in (f"**{self.title}**", text, self.note) if part)

    def text(self) -> str:
        """The table as it stands on a terminal."""
        rows = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.header))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells)
            )
            for cells in (list(zip(row, widths, strict=True)) for row in rows)
        ]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in lines), *([self.note] if self.note else [])])


@dataclass
class Part:
    """What one part of the bench found."""

    name: str
    tables: list[Table] = field(default_factory=list)
    ratios: dict[str, Values] = field(default_factory=dict)  #: By what over what, one for each turn.
    data: dict[str, Any] = field(default_factory=dict)  #: Every single figure, for the JSON.

    def ratio(self, what: str, values: Sequence[float], over: Sequence[float]) -> None:
        """Note a ratio of two things that were measured turn by turn."""
        self.ratios[what] = [value / other for value, other in zip(values, over, strict=False) if other]

    def ratio_table(self) -> Table:
        """The ratios, with their spread."""
        rows = [(what, f"{median(values):.2f}", spread(values, 2)) for what, values in self.ratios.items() if values]
        return Table(f"{self.name}: ratios", ("what", "median", "all turns"), rows)

    def as_json(self) -> dict[str, Any]:
        """Everything, to be kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """Read what `as_json` gave and JSON kept."""
        tables = [
            Table(table["title"], tuple(table["header"]), [tuple(row) for row in table["rows"]], table["note"])
            for table in kept["tables"]
        ]
        return cls(kept["name"], tables, kept["ratios"], kept["data"])


def median(values: Sequence[float]) -> float:
    """The middle one; not a number where there is none."""
    return statistics.median(values) if values else float("nan")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed, as in 0.95."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The least and the most."""
    if not values:
        return "-"
    low, high = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def shown(values: Sequence[float], digits: int = 1) -> str:
    """The median, and what the values lie between."""
    if not values:
        return "-"
    return f"{median(values):,.{digits}f} ({spread(values, digits)})" if len(values) > 1 else f"{values[0]:,.{digits}f}"


Say = Callable[[str], None]  #: Tells whoever waits how far the bench is.
