"""Tiles: overlapping regions of each image, embedded beside the whole, so that a part of a picture finds it."""

from pydantic import Field

from lookalike.records.base import Record

_DIGITS = 6  #: Of a region's numbers: a millionth of a side is less than a pixel.


class Tiles(Record):
    """How each image of a collection is cut into regions: `grid` x `grid` of them, which cover it.

    They have its proportions. Neighbours share `overlap` of a tile's side: with a grid of 3 and a quarter of the side,
    a tile has two fifths of the image's width and height.
    """

    grid: int = Field(default=3, ge=2, le=4)
    overlap: float = Field(default=0.25, ge=0, le=0.75)

    @property
    def count(self) -> int:
        """Tiles of one image."""
        return self.grid**2

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """Each tile's left, top, width and height in parts of the image's sides; row by row."""
        side = 1 / (1 + (self.grid - 1) * (1 - self.overlap))
        begins = [round(place * side * (1 - self.overlap), _DIGITS) for place in range(self.grid)]
        # Rounded, the last could end behind the picture.
        ends = [min(1.0, round(begin + side, _DIGITS)) for begin in begins]
        spans = [(begin, round(end - begin, _DIGITS)) for begin, end in zip(begins, ends, strict=True)]
        return tuple((left, top, width, height) for top, height in spans for left, width in spans)
