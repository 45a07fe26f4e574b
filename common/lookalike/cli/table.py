"""Tables on a terminal: what identifies or counts stays whole on one line, whatever the terminal's width.

Where there is too little room, columns that can be done without are left out, paths lose their beginning, and sentences
go on in the next line.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookalike.cli.output import cell

_PATHS: Final = frozenset({"query", "image", "uri", "name"})  #: Their end says most.
_SENTENCES: Final = frozenset({"message", "detail", "value"})
_LEAST_CELLS: Final = 16  #: What a path or a sentence is not pressed below.
_GAP: Final = 2


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, spare: Sequence[str] = ()) -> None:
    """Print a table on stdout, without as many of the `spare` columns, from the first, as there is no room for."""
    lines = [{name: _text(value) for name, value in zip(columns, row, strict=True)} for row in rows]
    widths = {name: max(cell_len(text) for text in (name, *(line[name] for line in lines))) for name in columns}
    room = Console().width
    widths = _fitted(widths, spare, room)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name, width in widths.items():
        table.add_column(name, width=width, no_wrap=name not in _SENTENCES, overflow="fold")
    for line in lines:
        table.add_row(
            *(Text(_end(line[name], width) if name in _PATHS else line[name]) for name, width in widths.items())
        )
    # A terminal that is narrower still breaks the lines itself, which keeps an id whole for who copies it.
    Console(width=max(room, _total(widths))).print(table)


def _fitted(widths: Mapping[str, int], spare: Sequence[str], room: int) -> dict[str, int]:
    least = {name: min(width, _LEAST_CELLS) if _bends(name) else width for name, width in widths.items()}
    for name in spare:
        if _total(least) > room:
            least.pop(name, None)
    # The narrow ones get what they need, the wide ones share what is left.
    left = room - _total(least)
    bending = sorted((name for name in least if _bends(name)), key=lambda name: widths[name])
    for place, name in enumerate(bending):
        more = max(0, min(widths[name] - least[name], left // (len(bending) - place)))
        least[name] += more
        left -= more
    return least


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _bends(name: str) -> bool:
    return name in _PATHS or name in _SENTENCES


def _text(value: object) -> str:
    # For people, who know in which time zone they are.
    return f"{value.astimezone():%Y-%m-%d %H:%M}" if isinstance(value, datetime) else cell(value)


def _end(text: str, width: int) -> str:
    """Return the end of a path that is too long, so that the file's name stays."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) >= width:
        text = text[1:]
    return f"…{text}"
