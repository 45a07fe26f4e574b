"""The document: tables written between the markers that `docs/benchmarks.md` has for them."""

from pathlib import Path
from typing import Final

from speed.figures import Part, Table
from speed.results import Circumstances, Results

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def write(page: Path, results: Results) -> list[str]:
    """Put all that is known into a page; returns the names of the sections for which it has no markers."""
    sections = {part.name: _section(part, circumstances) for part, circumstances in results.parts()}
    sections["ratios"] = results.headline().markdown()
    fractions = results.fractions()
    if fractions:
        sections["fractions"] = "\n\n".join(table.markdown() for table in fractions)
    text = page.read_text(encoding="utf-8")
    missing = []
    for name, section in sections.items():
        begin, end = (f"<!-- speed:{name}:{mark} -->" for mark in ("begin", "end"))
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            missing.append(name)
            continue
        text = f"{before}{begin}\n\n{section}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")
    return missing


def _section(part: Part, circumstances: Circumstances) -> str:
    ratios = [part.ratio_table()] if part.ratios else []
    tables: list[Table] = [*part.tables, *ratios]
    return "\n\n".join([*(table.markdown() for table in tables), circumstances.sentence()])
