"""The figure of a search: every query beside its hits, with the labels under them, as one PNG.

Draws what it is given and fetches nothing: the images are thumbnails that this service made.
"""

import contextlib
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

#: What a figure shows at most, which bounds its memory; the rest is counted in its last line.
MAX_ROWS: Final = 64
MAX_HITS: Final = 24

_TALL_PX: Final = 4_000  #: Tiles shrink, down to the smallest, while the figure is taller than this.
_TILE_PX: Final = (96, 200)  #: The side of a tile: at least, and at most.
_WIDE_PX: Final = 1_800  #: Tiles shrink so that the figure stays about this wide.
_MARGIN: Final = 36
_GAP: Final = 14
_DIVIDER: Final = 26  #: Between a query and its hits, in addition to the gap.

PAPER: Final = "#fbfaf7"
_TILE: Final = "#efede7"
RIM: Final = "#d9d5cb"
INK: Final = "#1f2328"
PALE: Final = "#6f7680"
ACCENT: Final = "#c8502d"  #: Marks what was asked for.

#: Fonts to write with where they are installed, the one with the most alphabets first: Linux, macOS, Windows.
FONT_FILES: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "Arial.ttf",
)
_NO_LETTER: Final = "\U0010ffff"  #: Never a letter, so every font draws its box for it.

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Region = tuple[float, float, float, float]  #: Left, top, width and height, in parts of the picture's width and height.


@dataclass(frozen=True)
class FigureHit:
    """One image found. A label's first line is set dark, a second one pale."""

    label: str
    image: bytes | None  #: An encoded thumbnail; None draws a placeholder.
    box: Region | None = None  #: Framed: the region that was found.


@dataclass(frozen=True)
class FigureRow:
    """One query and its hits, closest first."""

    label: str
    image: bytes | None
    hits: Sequence[FigureHit]
    box: Region | None = None  #: Framed: the region that was searched with.


@dataclass(frozen=True)
class _Layout:
    tile: int
    columns: int  #: Hits per row.
    rows: int

    @property
    def row_height(self) -> int:
        return self.tile + 2 * _line_px(self.tile) + 30

    @property
    def hits_left(self) -> int:
        return _MARGIN + self.tile + _GAP + _DIVIDER

    @property
    def width(self) -> int:
        return max(self.hits_left + self.columns * (self.tile + _GAP) - _GAP + _MARGIN, 640)

    @property
    def top(self) -> int:
        return 96

    @property
    def height(self) -> int:
        return self.top + self.rows * self.row_height + 2 * _MARGIN


def draw_figure(rows: Sequence[FigureRow], *, title: str) -> bytes:
    """Draw queries and hits below a title and return the PNG.

    Shows `MAX_ROWS` queries and `MAX_HITS` hits of each at most, and says below how many it left out.
    """
    shown = rows[:MAX_ROWS]
    layout = _plan(rows=len(shown), columns=max((len(row.hits[:MAX_HITS]) for row in shown), default=0))
    figure = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(figure)
    _title(draw, title, layout)
    for at, row in enumerate(shown):
        _row(figure, draw, row, top=layout.top + at * layout.row_height, layout=layout)
    more = _left_out(rows)
    if more:
        draw.text((_MARGIN, layout.height - _MARGIN), more, font=_fonts(15)[0], fill=PALE, anchor="ls")
    buffer = io.BytesIO()
    figure.save(buffer, "PNG")
    return buffer.getvalue()


def _plan(*, rows: int, columns: int) -> _Layout:
    smallest, largest = _TILE_PX
    room = (_WIDE_PX - 2 * _MARGIN - _DIVIDER) // (columns + 1) - _GAP
    tile = max(smallest, min(largest, room))
    while tile > smallest and _Layout(tile, columns, rows).height > _TALL_PX:
        tile -= 4
    return _Layout(tile, columns, rows)


def _title(draw: ImageDraw.ImageDraw, title: str, layout: _Layout) -> None:
    text, font = lettered(title, 26)
    text = shortened(text, font, layout.width - 2 * _MARGIN)
    draw.text((_MARGIN, 42), text, font=font, fill=INK, anchor="lm")
    draw.line((_MARGIN, 72, layout.width - _MARGIN, 72), fill=RIM, width=1)


def _row(figure: Image.Image, draw: ImageDraw.ImageDraw, row: FigureRow, *, top: int, layout: _Layout) -> None:
    size = layout.tile
    tile(figure, draw, row.image, (_MARGIN, top), size=size, box=row.box)
    draw.rectangle((_MARGIN - 3, top - 3, _MARGIN + size + 2, top + size + 2), outline=ACCENT, width=3)
    caption(draw, row.label, (_MARGIN, top + size + 8), size=size)
    middle = top + size // 2
    arrow = _MARGIN + size + (_GAP + _DIVIDER) // 2
    draw.line((arrow - 4, middle - 9, arrow + 5, middle, arrow - 4, middle + 9), fill=PALE, width=3, joint="curve")
    if not row.hits:
        draw.text((layout.hits_left, middle), "no hits", font=_fonts(18)[0], fill=PALE, anchor="lm")
    for at, hit in enumerate(row.hits[:MAX_HITS]):
        left = layout.hits_left + at * (size + _GAP)
        tile(figure, draw, hit.image, (left, top), size=size, box=hit.box)
        caption(draw, hit.label, (left, top + size + 8), size=size)


def tile(
    figure: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: bytes | None,
    place: tuple[int, int],
    *,
    size: int,
    box: Region | None = None,
) -> None:
    """Draw an image into a square, whole and centred, with a frame around a region; or the sign for a missing one."""
    left, top = place
    draw.rectangle((left, top, left + size - 1, top + size - 1), fill=_TILE, outline=RIM)
    picture = _opened(image, size - 2)
    if picture is not None:
        corner = left + (size - picture.width) // 2, top + (size - picture.height) // 2
        figure.paste(picture, corner)
        if box is not None:
            _frame(draw, corner, picture.size, box)
        return
    x, y, unit = left + size // 2, top + size // 2, size // 8
    draw.rectangle((x - 2 * unit, y - unit - unit // 2, x + 2 * unit, y + unit + unit // 2), outline=RIM, width=3)
    draw.line((x - 2 * unit, y + unit + unit // 2, x + 2 * unit, y - unit - unit // 2), fill=RIM, width=3)


def _frame(draw: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int], box: Region) -> None:
    """Draw a line with a pale rim around a region of a picture, so that it is seen on any ground."""
    x, y, width, height = box
    left, top = corner[0] + round(x * size[0]), corner[1] + round(y * size[1])
    right, bottom = left + round(width * size[0]) - 1, top + round(height * size[1]) - 1
    for inset, colour in enumerate((PAPER, ACCENT, ACCENT, PAPER)):
        if right - left > 2 * inset and bottom - top > 2 * inset:
            draw.rectangle((left + inset, top + inset, right - inset, bottom - inset), outline=colour)


def _opened(image: bytes | None, size: int) -> Image.Image | None:
    if image is None:
        return None
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG", "WEBP")) as picture:
            return ImageOps.contain(picture.convert("RGB"), (size, size))
    except OSError:
        # A thumbnail that cannot be read costs its place in the figure, not the figure.
        return None


def caption(draw: ImageDraw.ImageDraw, label: str, place: tuple[int, int], *, size: int) -> None:
    """Write a label of one or two lines below a square, the first dark, the second pale."""
    left, top = place
    for at, line in enumerate(label.split("\n", 1)):
        text, font = lettered(line, _line_px(size) - 4)
        where = (left, top + at * _line_px(size))
        draw.text(where, shortened(text, font, size), font=font, fill=PALE if at else INK, anchor="la")


def _line_px(tile: int) -> int:
    return 21 if tile >= 160 else 18 if tile >= 120 else 15


def _left_out(rows: Sequence[FigureRow]) -> str:
    queries, hits = len(rows) - MAX_ROWS, max((len(row.hits) for row in rows), default=0) - MAX_HITS
    parts = [f"{hits} more hits per query"] if hits > 0 else []
    parts += [f"{queries} more queries"] if queries > 0 else []
    return f"Not shown: {' and '.join(parts)}." if parts else ""


def shortened(text: str, font: _Font, width: int) -> str:
    """Cut `text` so that it fits `width` pixels, with an ellipsis in its middle: names differ at their ends."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if font.getlength(_without_middle(text, kept)) <= width else (low, kept - 1)
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


def lettered(text: str, size: int) -> tuple[str, _Font]:
    """Choose a font that has all letters of a text; where none has, write the text with those of the first."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    for font in _fonts(size):
        if all(_has(font, letter) for letter in text):
            return text, font
    font = _fonts(size)[0]
    return "".join(letter if _has(font, letter) else _plain(letter, font) for letter in text), font


def _plain(letter: str, font: _Font) -> str:
    """Write a letter without its accents, or as a question mark."""
    parts = [part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)]
    return "".join(part if _has(font, part) else "?" for part in parts) or "?"


@lru_cache(maxsize=8192)
def _has(font: _Font, letter: str) -> bool:
    """Whether a font draws something else for a letter than its box for letters it lacks."""
    if letter.isascii():
        return letter.isprintable()
    drawn, box = font.getmask(letter), font.getmask(_NO_LETTER)
    return drawn.size != box.size or bytes(drawn) != bytes(box)


@lru_cache(maxsize=16)
def _fonts(size: int) -> tuple[_Font, ...]:
    """Return the installed fonts and, last, Pillow's own, which has ASCII's letters only."""
    installed: list[_Font] = []
    for name in FONT_FILES:
        with contextlib.suppress(OSError):  # Not installed here.
            installed.append(ImageFont.truetype(name, size))
    return (*installed, ImageFont.load_default(size))
