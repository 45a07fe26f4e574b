"""The project's pages, cut into what tests look at: fenced blocks, inline code, links and tables."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]

#: `sh`, `bash` and `python` blocks run as they stand; `text` right after one of them is what it prints.
RUN_KINDS: Final = frozenset({"sh", "bash", "python"})
#: `console` blocks start long things, a command behind each `$`.
CONSOLE: Final = "console"
PRINTED: Final = "text"

_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    kind: str
    text: str
    printed: str | None = None  #: For a block that runs: what the page says it prints.

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page, the root's first."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted(REPOSITORY.glob("docs/**/*.md"))]


def name(page: Path) -> str:
    """A page as people name it."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    cut = []
    for at, match in enumerate(found):
        follower = found[at + 1] if at + 1 < len(found) else None
        answered = follower and follower["kind"] == PRINTED and not text[match.end() : follower.start()].strip()
        printed = follower["text"] if follower and answered and match["kind"] in RUN_KINDS else None
        line = text.count("\n", 0, match.start()) + 1
        cut.append(Block(name(page), line, match["kind"], match["text"], printed))
    return cut


def console_commands(block: Block) -> list[str]:
    """The commands of a console block."""
    return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, line breaks as spaces."""
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def anchors(page: Path) -> set[str]:
    """The fragments that links into this page may have, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def table_rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, its headings and rules apart."""
    rows = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows if not set(row) <= set("-| ")]


def known_tests() -> set[str]:
    """The names of all tests."""
    sources = (path.read_text() for path in (REPOSITORY / "tests").glob("**/test_*.py"))
    return {test for source in sources for test in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
