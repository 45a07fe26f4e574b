"""Contact sheets: groups of pictures side by side, with labels, as one PNG.

For clusters of duplicates, and anything else that comes in groups. Draws what it is given and fetches nothing: the
pictures are thumbnails that this service made. Its size is bounded whatever it is given.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from lookalike import figure as house

#: What a sheet shows at most, which bounds its memory; the rest is counted.
MAX_GROUPS: Final = 24
MAX_PICTURES: Final = 8

_TILE: Final = 150
_GAP: Final = 14
_MARGIN: Final = 36
_TOP: Final = 96
_HEADING: Final = 30
_ROW: Final = _HEADING + _TILE + 68
_WIDTH: Final = 2 * _MARGIN + MAX_PICTURES * (_TILE + _GAP) - _GAP


@dataclass(frozen=True)
class SheetPicture:
    """One picture. A label's first line is set dark, a second one pale."""

    label: str
    image: bytes | None  #: An encoded thumbnail; None draws a placeholder.
    marked: bool = False  #: Set off by a frame.


@dataclass(frozen=True)
class SheetGroup:
    """Pictures that belong together, in their order."""

    heading: str
    pictures: Sequence[SheetPicture]
    left_out: int = 0  #: How many more there are than were given.


def draw_contact_sheet(groups: Sequence[SheetGroup], *, title: str, left_out: int = 0) -> bytes:
    """Draw groups below a title and return the PNG; `left_out` counts the groups that were not given.

    Shows `MAX_GROUPS` groups and `MAX_PICTURES` pictures of each at most, and says what it leaves out.
    """
    shown = groups[:MAX_GROUPS]
    more = left_out + len(groups) - len(shown)
    height = _TOP + max(1, len(shown)) * _ROW + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), house.PAPER)
    draw = ImageDraw.Draw(sheet)
    text, font = house.lettered(title, 26)
    draw.text((_MARGIN, 42), house.shortened(text, font, _WIDTH - 2 * _MARGIN), font=font, fill=house.INK, anchor="lm")
    draw.line((_MARGIN, 72, _WIDTH - _MARGIN, 72), fill=house.RIM, width=1)
    for number, group in enumerate(shown):
        _draw_group(sheet, draw, group, top=_TOP + number * _ROW)
    note = f"{more} more {'is' if more == 1 else 'are'} not shown." if more else "" if shown else "There are none."
    text, font = house.lettered(note, 15)
    draw.text((_MARGIN, height - _MARGIN // 2), text, font=font, fill=house.PALE, anchor="ls")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_group(sheet: Image.Image, draw: ImageDraw.ImageDraw, group: SheetGroup, *, top: int) -> None:
    pictures = group.pictures[:MAX_PICTURES]
    more = group.left_out + len(group.pictures) - len(pictures)
    heading = f"{group.heading}; {more} more not shown" if more else group.heading
    text, font = house.lettered(heading, 15)
    where = (_MARGIN, top + _HEADING // 2)
    draw.text(where, house.shortened(text, font, _WIDTH - 2 * _MARGIN), font=font, fill=house.PALE, anchor="lm")
    top += _HEADING
    for number, picture in enumerate(pictures):
        left = _MARGIN + number * (_TILE + _GAP)
        house.tile(sheet, draw, picture.image, (left, top), size=_TILE)
        if picture.marked:
            draw.rectangle((left - 3, top - 3, left + _TILE + 2, top + _TILE + 2), outline=house.ACCENT, width=3)
        house.caption(draw, picture.label, (left, top + _TILE + 8), size=_TILE)
