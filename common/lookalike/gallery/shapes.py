"""Styles that are drawn shape by shape, at twice the size and then halved so that edges come out smooth."""

import numpy as np
from PIL import Image, ImageDraw

from lookalike.gallery.fields import Size, coordinates, smooth_noise
from lookalike.gallery.palette import RGB, Palette, mix, pigment

_SCALE = 2  #: Supersampling.


def _canvas(size: Size, ground: RGB) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), ground)
    return image, ImageDraw.Draw(image)


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: RGB) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _pick(rng: np.random.Generator, palette: Palette) -> RGB:
    return palette.accents[int(rng.integers(len(palette.accents)))]


def dots(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Rows of discs, offset like bricks, that swell and shrink across the picture."""
    image, draw = _canvas(size, palette.ground)
    step = min(image.size) / float(rng.uniform(7, 15))
    swell = smooth_noise(rng, size, cells=2.0)
    runs = rng.random() < 0.5
    for row in range(int(image.height / step) + 2):
        for column in range(int(image.width / step) + 2):
            x, y = (column + (row % 2) / 2) * step, row * step
            at = swell[min(size[1] - 1, int(y / _SCALE)), min(size[0] - 1, int(x / _SCALE))]
            colour = palette.accents[(row if runs else int(rng.integers(4))) % 4]
            _disc(draw, (x, y), step * (0.12 + 0.5 * float(at) ** 1.3), colour)
    return image.reduce(_SCALE)


def rings(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """A patchwork of squares, each with its own target of circles."""
    image, draw = _canvas(size, palette.ground)
    columns = int(rng.integers(2, 6))
    side = image.width / columns
    colours = (palette.ground, *palette.accents)
    for row in range(int(image.height / side) + 1):
        for column in range(columns):
            left, top = column * side, row * side
            order = [colours[int(at)] for at in rng.permutation(len(colours))]
            draw.rectangle((left, top, left + side, top + side), fill=order[0])
            for ring, radius in enumerate(np.sort(rng.uniform(0.08, 0.49, size=int(rng.integers(4, 7))))[::-1], 1):
                colour = mix(order[ring % len(order)], order[(ring + 2) % len(order)], float(rng.uniform(0, 0.3)))
                _disc(draw, (left + side / 2, top + side / 2), side * float(radius), colour)
    return image.reduce(_SCALE)


def triangles(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Facets of a crumpled sheet: a shaken grid cut into triangles, shaded from corner to corner."""
    image, draw = _canvas(size, palette.ground)
    step = min(image.size) / float(rng.uniform(4, 9))
    columns, rows = int(image.width / step) + 3, int(image.height / step) + 3
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) - 1.0
    grid = (grid + rng.uniform(-0.36, 0.36, size=grid.shape)) * step
    colours = palette.array()
    drift = rng.uniform(-1, 1, size=2) / np.array(image.size) * 4
    for row in range(rows - 1):
        for column in range(columns - 1):
            corners = [grid[row + down, column + right] for down, right in ((0, 0), (0, 1), (1, 1), (1, 0))]
            for facet in ((0, 1, 2), (0, 2, 3)) if (row + column) % 2 else ((0, 1, 3), (1, 2, 3)):
                points = np.array([corners[at] for at in facet])
                place = float(np.clip(points.mean(axis=0) @ drift % 4 + rng.normal(0, 0.35), 0, 3.999))
                low = int(place)
                tint = colours[low] + (colours[low + 1] - colours[low]) * (place - low)
                tint = np.clip(tint * rng.uniform(0.85, 1.1), 0, 255)
                draw.polygon([(float(x), float(y)) for x, y in points], fill=(int(tint[0]), int(tint[1]), int(tint[2])))
    return image.reduce(_SCALE)


def strokes(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Brush strokes that follow an invisible current."""
    image, draw = _canvas(size, palette.ground)
    angle = smooth_noise(rng, size, cells=float(rng.uniform(1.2, 2.6))) * np.float32(rng.uniform(4, 9))
    count, steps = 420, 16
    place = rng.uniform(0, 1, size=(count, 2)) * np.array(size)
    trail = [place]
    for _ in range(steps):
        column = np.clip(place[:, 0].astype(int), 0, size[0] - 1)
        row = np.clip(place[:, 1].astype(int), 0, size[1] - 1)
        heading = angle[row, column]
        place = place + np.stack([np.cos(heading), np.sin(heading)], axis=-1) * min(size) * 0.016
        trail.append(place)
    paths = np.stack(trail, axis=1) * _SCALE
    base = float(rng.uniform(0.006, 0.022)) * min(image.size)
    for path in paths:
        colour = mix(_pick(rng, palette), palette.ground, float(rng.uniform(0, 0.35)))
        width = max(2, round(base * float(rng.uniform(0.5, 1.6))))
        draw.line([(float(x), float(y)) for x, y in path], fill=colour, width=width)
    return image.reduce(_SCALE)


def stars(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """A night sky: a faint nebula, many small stars, and a few bright ones joined by lines."""
    x, y = coordinates(size)
    tint = pigment(*_pick(rng, palette))
    night = pigment(*palette.ground) * (0.35 if palette.dark else 0.12) + pigment(4, 5, 14)
    cloud = smooth_noise(rng, size, cells=2, octaves=4) ** 3 * (1.1 - 0.4 * (x * 0 + y) / y.max())
    sky = night + tint * cloud[..., None] * np.float32(1.1)
    image = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8)).resize((size[0] * _SCALE, size[1] * _SCALE))
    draw = ImageDraw.Draw(image)
    for left, top, radius in rng.random((320, 3)):
        _disc(
            draw,
            (left * image.width, top * image.height),
            0.5 + 1.6 * radius**3,
            mix((255, 255, 255), (90, 95, 130), radius),
        )
    for _ in range(int(rng.integers(2, 5))):
        middle = rng.uniform(0.2, 0.8, size=2) * image.size
        figure = middle + rng.normal(0, 0.14, size=(int(rng.integers(5, 9)), 2)) * min(image.size)
        figure = figure[np.argsort(np.arctan2(*(figure - middle).T))]
        draw.line(
            [(float(a), float(b)) for a, b in figure], fill=mix(_pick(rng, palette), (255, 255, 255), 0.35), width=3
        )
        for a, b in figure:
            _disc(draw, (float(a), float(b)), float(rng.uniform(5, 10)), (255, 250, 235))
    return image.reduce(_SCALE)


def scales(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Overlapping fans in rows, like waves on a Japanese print."""
    image, draw = _canvas(size, palette.ground)
    radius = min(image.size) / float(rng.uniform(5, 12))
    bands = int(rng.integers(3, 6))
    order = [int(at) for at in rng.permutation(5)]
    colours = (palette.ground, *palette.accents)
    flat = float(rng.uniform(0.4, 0.6))
    for row in range(int(image.height / (radius * flat)) + 4):
        for column in range(int(image.width / (radius * 2)) + 3):
            centre = (column * radius * 2 - (row % 2) * radius, row * radius * flat)
            lead = order[int(rng.integers(5))] if rng.random() < 0.12 else order[0]
            for band in range(bands):
                colour = colours[lead] if band == 0 else colours[order[(band % 2) + 1 + (band // 2) % 2]]
                _disc(draw, centre, radius * (1 - band / bands), colour)
    return image.reduce(_SCALE)
