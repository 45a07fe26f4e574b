"""What commands print. Data goes to stdout: a table on a terminal, tab-separated in a pipe, or the records as JSON.

Tab-separated output begins with a line of column names; columns are only ever added on the right.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.session import Session

if TYPE_CHECKING:
    from pydantic import BaseModel


def show(
    session: Session,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    records: "Callable[[], BaseModel | Sequence[BaseModel | Mapping[str, Any]]]",
    spare: Sequence[str] = (),
) -> None:
    """Print rows, or with --json what `records` returns. A narrow terminal does without the `spare` columns, the first
    of them first.
    """
    if session.as_json:
        show_json(records())
    elif sys.stdout.isatty():
        from lookalike.cli.table import show_table

        show_table(columns, rows, spare=spare)
    else:
        for row in (columns, *rows):
            click.echo("\t".join(cell(value) for value in row))


def show_fields(session: Session, fields: dict[str, object], *, record: "BaseModel") -> None:
    """Print one thing: a line per field with its name and value; a terminal does without fields that have none."""
    rows = [(name, cell(value)) for name, value in fields.items()]
    if sys.stdout.isatty():
        rows = [(name, value) for name, value in rows if value]
    show(session, ("field", "value"), rows, records=lambda: record)


def show_json(records: "BaseModel | Sequence[BaseModel | Mapping[str, Any]]") -> None:
    """Print a record, or several, as one JSON document."""
    value = [_plain(record) for record in records] if isinstance(records, Sequence) else _plain(records)
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _plain(record: "BaseModel | Mapping[str, Any]") -> Any:
    return record if isinstance(record, Mapping) else record.model_dump(mode="json")


def note(sentence: str) -> None:
    """Write a sentence for people on stderr."""
    click.echo(printable(sentence), err=True)


def cell(value: object) -> str:
    """Return a value as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return printable(str(value))


def printable(text: str) -> str:
    """Write characters that would break a line, a column or a terminal as escapes: file names may hold any."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
