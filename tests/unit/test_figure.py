"""The figure: what is asked beside what was found, whatever the numbers, labels and missing images."""

import io

import pytest
from PIL import Image

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
    figure = opened(draw_figure([row], title="one query"))
    red, green, blue = area(figure, (255, 0, 0)), area(figure, (0, 255, 0)), area(figure, (0, 0, 255))
    assert red
    assert green
    assert blue
    assert red[2] < green[0]
    assert green[2] < blue[0]
    assert red[1] == green[1] == blue[1], "on one line"


def test_each_query_has_a_row_of_its_own() -> None:
    rows = [FigureRow("a", thumbnail("#ff0000"), hits(1)), FigureRow("b", thumbnail("#0000ff"), hits(1))]
    figure = opened(draw_figure(rows, title="two"))
    red, blue = area(figure, (255, 0, 0)), area(figure, (0, 0, 255))
    assert red
    assert blue
    assert red[3] < blue[1]


@pytest.mark.parametrize("size", [(320, 80), (80, 320), (320, 320), (3, 2)])
def test_an_image_is_shown_whole_and_keeps_its_shape(size: tuple[int, int]) -> None:
    figure = opened(draw_figure([FigureRow("q", thumbnail("#ff0000", size), hits(2))], title="t"))
    box = area(figure, (255, 0, 0))
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
    figure = opened(draw_figure(rows, title="t"))
    assert 640 <= figure.width <= 3_000
    assert figure.height <= 10_240


def test_what_is_left_out_is_counted_in_the_figure() -> None:
    def bottom(queries: int, found: int) -> Image.Image:
        figure = opened(draw_figure([FigureRow("q", None, hits(found))] * queries, title="t"))
        return figure.crop((0, figure.height - 60, 640, figure.height))

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
    figure = opened(draw_figure([row], title="Titel " * 200))
    margin = figure.crop((figure.width - 30, 0, figure.width, 90)).convert("L").getextrema()
    assert margin[0] == margin[1], "the title ends before the margin"


def test_the_same_input_gives_the_same_bytes() -> None:
    rows = [FigureRow("q", thumbnail("#ff0000"), hits(3, thumbnail("#00ff00")))]
    assert draw_figure(rows, title="t") == draw_figure(rows, title="t")
