"""Cells of CSV files that people open in a spreadsheet."""

import json
from typing import Final

#: A spreadsheet would take a cell that begins with one of these for a formula.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """Return a value as a CSV cell that no spreadsheet takes for a formula; an object as JSON."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
