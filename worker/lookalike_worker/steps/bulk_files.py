"""The files of a bulk search: its answers as JSON lines and as CSV, and some of them as contact sheets."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from lookalike.contact_sheet import MAX_GROUPS, MAX_PICTURES, SheetGroup, SheetPicture, draw_contact_sheet
from lookalike.spreadsheet import cell
from lookalike_worker.context import Context
from lookalike_worker.steps.bulk_asking import Answered
from lookalike_worker.thumbnails import awaited, begin_thumbnail

LINES: Final = "results.jsonl"
TABLE: Final = "results.csv"
SHEET: Final = "sheet-{:03}.png"
_HIT_FIELDS: Final = ("rank", "uri", "name", "id", "score", "distance", "percentile", "band", "group", "variant", "box")
COLUMNS: Final = ("query", "query_uri", "query_name", "error", *_HIT_FIELDS)


class Part:
    """What one step adds to both files."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lines, self._table = io.StringIO(), io.StringIO()
        self._writer = csv.writer(self._table)
        if not number:
            self._writer.writerow(COLUMNS)

    def add(self, answered: Iterable[Answered], *, first: int) -> None:
        """Add queries, `first` being the number of the first one; each is a line, and has a row for each hit or one."""
        for number, one in enumerate(answered, first):
            result = one.result
            plain = result.model_dump(
                mode="json", exclude={"next_offset": True, "hits": {"__all__": {"thumbnail_url"}}}
            )
            self._lines.write(json.dumps({"number": number, **plain}, ensure_ascii=False) + "\n")
            asked = (number, cell(one.uri), cell(one.name), result.error.code if result.error else "")
            if not result.hits:
                self._writer.writerow((*asked, *("" for _ in _HIT_FIELDS)))
            for hit in plain["hits"]:
                self._writer.writerow((*asked, *(cell(hit[name]) for name in _HIT_FIELDS)))

    def write(self, context: Context, job_id: str) -> None:
        """Write it in the place of what an earlier try left."""
        context.artifacts.write(job_id, LINES, self._lines.getvalue().encode(), part=self._number)
        context.artifacts.write(job_id, TABLE, self._table.getvalue().encode(), part=self._number)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet that is to be drawn."""

    number: int
    title: str
    offset: int  #: Bytes of the JSON lines before its first query.
    left_out: int  #: Queries that it is to say are on no sheet.


def draw_sheet(context: Context, job_id: str, sheet: Sheet, keep: Callable[[], None]) -> tuple[int, int]:
    """Draw the next answered queries; returns how many there were, and the offset behind them."""
    groups: list[SheetGroup] = []
    with context.artifacts.open(job_id, LINES) as file:
        file.seek(sheet.offset)
        while len(groups) < MAX_GROUPS and (line := file.readline()):
            keep()
            answer = json.loads(line)
            if answer["error"] is None:
                groups.append(_group(context, answer, keep))
        offset = file.tell()
    picture = draw_contact_sheet(groups, title=sheet.title, left_out=sheet.left_out)
    context.artifacts.write(job_id, SHEET.format(sheet.number), picture)
    return len(groups), offset


def _group(context: Context, answer: dict[str, Any], keep: Callable[[], None]) -> SheetGroup:
    query, hits = answer["query"], answer["hits"]
    shown = hits[: MAX_PICTURES - 1]
    thumbnails = [begin_thumbnail(context, one["uri"]) for one in (query, *shown)]
    labels = [f"{query['name'] or query['uri']}\nquery {answer['number']}", *map(_label, shown)]
    pictures = [
        SheetPicture(label, awaited(future, keep), marked=place == 0)
        for place, (label, future) in enumerate(zip(labels, thumbnails, strict=True))
    ]
    found = f"{len(hits)} {'hit' if len(hits) == 1 else 'hits'}" if hits else "nothing found"
    return SheetGroup(f"Query {answer['number']}: {found}", pictures, left_out=len(hits) - len(shown))


def _label(hit: dict[str, Any]) -> str:
    band = f", {hit['band']}" if hit["band"] else ""
    return f"{hit['name'] or hit['uri']}\n{hit['score']:.4g}{band}"
