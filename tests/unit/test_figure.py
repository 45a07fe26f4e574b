"""The figure: what is asked beside what was found, whatever the numbers, labels and missing images."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageFont

from lookalike import figure
from lookalike.figure import MAX_HITS, MAX_ROWS, FigureHit, FigureRow, draw_figure


def thumbnail(colour: str, size: tuple[int, int] = (320, 200)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return image.convert("RGB")


def area(figure: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The box around all pixels of exactly this colour."""
    mask = Image.new("1", figure.size)
    mask.putdata([pixel == colour for pixel in figure.get_flattened_data()])
    return mask.getbbox()


def hits(count: int, image: bytes | None = None) -> list[FigureHit]:
    return [FigureHit(f"{1 - at / 100:.4f}\nhit-{at}.jpg", image) for at in range(count)]


def test_the_query_stands_left_of_its_hits_in_their_order() -> None:
    row = FigureRow(
        "query", thumbnail("#ff0000"), [FigureHit("1", thumbnail("#00ff00")), FigureHit("2", thumbnail("#0000ff"))]
    )
    drawn = opened(draw_figure([row], title="one query"))
    red, green, blue = area(drawn, (255, 0, 0)), area(drawn, (0, 255, 0)), area(drawn, (0, 0, 255))
    assert red
    assert green
    assert blue
    assert red[2] < green[0]
    assert green[2] < blue[0]
    assert red[1] == green[1] == blue[1], "on one line"


def test_each_query_has_a_row_of_its_own() -> None:
    rows = [FigureRow("a", thumbnail("#ff0000"), hits(1)), FigureRow("b", thumbnail("#0000ff"), hits(1))]
    drawn = opened(draw_figure(rows, title="two"))
    red, blue = area(drawn, (255, 0, 0)), area(drawn, (0, 0, 255))
    assert red
    assert blue
    assert red[3] < blue[1]


@pytest.mark.parametrize("size", [(320, 80), (80, 320), (320, 320), (3, 2)])
def test_an_image_is_shown_whole_and_keeps_its_shape(size: tuple[int, int]) -> None:
    drawn = opened(draw_figure([FigureRow("q", thumbnail("#ff0000", size), hits(2))], title="t"))
    box = area(drawn, (255, 0, 0))
    assert box
    assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize("image", [None, b"", b"not an image", thumbnail("#ff0000")[:60]])
def test_a_missing_or_broken_image_costs_its_place_only(image: bytes | None) -> None:
    row = FigureRow("q", image, [FigureHit("a", image), FigureHit("b", thumbnail("#0000ff"))])
    assert area(opened(draw_figure([row], title="t")), (0, 0, 255))


@pytest.mark.parametrize(
    ("queries", "found"), [(0, 0), (1, 0), (1, 1), (6, 5), (1, 20), (64, 20), (64, 24), (200, 1000)]
)
def test_any_number_of_queries_and_hits_gives_a_figure_of_bounded_size(queries: int, found: int) -> None:
    rows = [FigureRow(f"query {at}", None, hits(found)) for at in range(queries)]
    drawn = opened(draw_figure(rows, title="t"))
    assert 640 <= drawn.width <= 3_000
    assert drawn.height <= 10_240


def test_what_is_left_out_is_counted_in_the_figure() -> None:
    def bottom(queries: int, found: int) -> Image.Image:
        drawn = opened(draw_figure([FigureRow("q", None, hits(found))] * queries, title="t"))
        return drawn.crop((0, drawn.height - 60, 640, drawn.height))

    def ink(strip: Image.Image) -> int:
        return sum(1 for pixel in strip.convert("L").get_flattened_data() if pixel < 160)

    assert ink(bottom(2, MAX_HITS)) == 0
    assert ink(bottom(2, MAX_HITS + 1)) > 0
    assert ink(bottom(MAX_ROWS, 1)) == 0
    assert ink(bottom(MAX_ROWS + 1, 1)) > 0


def test_a_long_label_stays_under_its_own_tile() -> None:
    short, long = (
        opened(draw_figure([FigureRow(label, None, [FigureHit("1.0000", None)])], title="t"))
        for label in ("q", "a-very-long-name-" * 20)
    )
    right_of_tile = (36 + 200 + 2, 0, short.width, short.height)
    assert long.crop(right_of_tile).tobytes() == short.crop(right_of_tile).tobytes()
    assert long.tobytes() != short.tobytes()


def test_a_long_title_and_odd_characters_do_not_break_the_figure() -> None:
    row = FigureRow("ein\nBild\nüber 日本\t\x00", None, [FigureHit("", None)])
    drawn = opened(draw_figure([row], title="Titel " * 200))
    margin = drawn.crop((drawn.width - 30, 0, drawn.width, 90)).convert("L").getextrema()
    assert margin[0] == margin[1], "the title ends before the margin"


class AccentedFont(ImageFont.FreeTypeFont):
    """Pillow's own font with one letter more: its `\u00e9` looks like a Q."""

    def getmask2(self, text: str | bytes, *args: Any, **options: Any) -> Any:
        return super().getmask2(str(text).replace("\u00e9", "Q"), *args, **options)

    def getlength(self, text: str | bytes, *args: Any, **options: Any) -> float:
        return super().getlength(str(text).replace("\u00e9", "Q"), *args, **options)


def caption(label: str) -> bytes:
    return draw_figure([FigureRow(label, None, [])], title="t")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """What is installed here: nothing, until a test adds plain.ttf or accented.ttf."""
    names: set[str] = set()
    real = ImageFont.truetype

    def truetype(name: Any, size: float, **options: Any) -> ImageFont.FreeTypeFont:
        if not isinstance(name, str):  # Pillow's own font, which lies in its source.
            return real(name, size, **options)
        if name not in names:
            raise OSError("cannot open resource")
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        if name == "accented.ttf":
            font.__class__ = AccentedFont
        return font

    monkeypatch.setattr(figure, "FONT_FILES", ("absent.ttf", "plain.ttf", "accented.ttf"))
    monkeypatch.setattr(ImageFont, "truetype", truetype)
    figure._fonts.cache_clear()
    yield names
    figure._fonts.cache_clear()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("label", "drawn"),
    [
        ("Gr\u00fc\u00dfe \u00e9t\u00e9.jpg", "Gru?e ete.jpg"),
        ("e\u0301", "e"),
        ("\u65e5\u672c", "??"),
        ("a\x00b", "a?b"),
        ("\u2460n", "1n"),
    ],
)
def test_without_an_installed_font_a_label_is_written_in_ascii_and_never_in_boxes(label: str, drawn: str) -> None:
    assert caption(label) == caption(drawn)
    assert caption(label) != caption("x" * len(drawn))


def test_the_first_installed_font_that_has_a_labels_letters_writes_it(installed: set[str]) -> None:
    installed |= {"plain.ttf", "accented.ttf"}
    assert caption("\u00e9t\u00e9") == caption("QtQ")
    assert caption("e\u0301t\u00e9") == caption("QtQ"), "macOS writes the accents of file names apart"
    assert caption("\u00e9\u65e5") == caption("e?"), "no font has both"


def test_the_fonts_of_this_machine_write_without_boxes() -> None:
    assert caption("a\U0010ffff") == caption("a?")
    assert caption("Gr\u00fc\u00dfe") != caption("Gr\U0010ffff\U0010ffffe")


def test_the_same_input_gives_the_same_bytes() -> None:
    rows = [FigureRow("q", thumbnail("#ff0000"), hits(3, thumbnail("#00ff00")))]
    assert draw_figure(rows, title="t") == draw_figure(rows, title="t")


def test_the_region_that_was_searched_with_and_those_that_were_found_are_framed() -> None:
    whole = [FigureHit("1", thumbnail("#00ff00", (400, 200)))]
    part = [FigureHit("1", thumbnail("#00ff00", (400, 200)), (0.0, 0.0, 0.5, 0.5))]
    plain, framed = (
        opened(draw_figure([FigureRow("query", thumbnail("#0000ff", (400, 200)), found, box)], title="regions"))
        for found, box in ((whole, None), (part, (0.5, 0.5, 0.5, 0.5)))
    )
    changed = ImageChops.difference(plain, framed)
    for colour, region in (((0, 0, 255), (0.5, 0.5, 1.0, 1.0)), ((0, 255, 0), (0.0, 0.0, 0.5, 0.5))):
        left, top, right, bottom = area(plain, colour) or (0, 0, 0, 0)
        box = changed.crop((left, top, right, bottom)).getbbox()
        assert box
        seen = [at / (bottom - top if number % 2 else right - left) for number, at in enumerate(box)]
        assert seen == pytest.approx(region, abs=0.02)
