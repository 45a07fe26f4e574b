"""Styles that are computed pixel by pixel: every picture is a function of its coordinates and some smooth noise."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.gallery.palette import Palette, pigment

Field = NDArray[np.float32]
Size = tuple[int, int]  #: Width, height.


def coordinates(size: Size) -> tuple[Field, Field]:
    """Return x as a row and y as a column, both in units of the shorter side."""
    width, height = size
    unit = min(size)
    x = np.arange(width, dtype=np.float32)[None, :] / np.float32(unit)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(unit)
    return x, y


def smooth_noise(rng: np.random.Generator, size: Size, *, cells: float, octaves: int = 1) -> Field:
    """Return noise of about `cells` bumps along the shorter side, in 0..1; each octave doubles the detail."""
    width, height = size
    unit = min(size)
    total = np.zeros((height, width), dtype=np.float32)
    weight = 0.0
    for octave in range(octaves):
        per_unit = cells * 2**octave
        grid = (max(2, round(height / unit * per_unit) + 1), max(2, round(width / unit * per_unit) + 1))
        coarse = Image.fromarray(rng.random(grid, dtype=np.float32))
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) * 0.5**octave
        weight += 0.5**octave
    noise: Field = np.clip(total / np.float32(weight), 0.0, 1.0)
    return noise


def _to_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _blend(pixels: Field, colour: Field, share: Field) -> None:
    """Lay `colour` over `pixels`, in place; `share` is how much of it shows, per pixel."""
    pixels += (colour - pixels) * share[..., None]


def stripes(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Bands of uneven width in one direction, gently bent, each lit from one side."""
    x, y = coordinates(size)
    angle = float(rng.uniform(0, np.pi))
    bend = smooth_noise(rng, size, cells=1.5) * float(rng.choice([0.0, 0.25, 0.6]))
    place = x * np.cos(angle) + y * np.sin(angle) + bend
    widths = rng.uniform(0.03, 0.14, size=64).astype(np.float32)
    edges = np.cumsum(widths) - 2.5
    band = np.clip(np.searchsorted(edges, place.ravel()), 1, 63).reshape(place.shape)
    inside = (place - edges[band - 1]) / widths[band]
    colours = palette.array()[rng.permutation(np.arange(64) % 5)]
    return _to_image(colours[band] * (0.82 + 0.22 * np.clip(inside, 0, 1))[..., None])


def plaids(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Tartan: the same sequence of threads crosswise, woven in a twill."""
    width, height = size
    threads: list[int] = []
    for _ in range(int(rng.integers(4, 7))):
        threads += [int(rng.integers(5))] * int(rng.choice([4, 8, 14, 30, 44]))
    sett = np.array(threads + threads[::-1])
    colours = palette.array()
    across = colours[sett[np.arange(width) % len(sett)]][None, :, :]
    down = colours[sett[np.arange(height) % len(sett)]][:, None, :]
    diagonal = (np.arange(width)[None, :] + np.arange(height)[:, None]) // 2 % 4 < 2
    cloth = np.where(diagonal[..., None], across, down) * 0.55 + (across + down) * 0.225
    return _to_image(cloth.astype(np.float32))


def glows(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Soft lights that melt into each other, with a little grain."""
    x, y = coordinates(size)
    accents = palette.array()[1:]
    width, height = size[0] / min(size), size[1] / min(size)
    pixels = np.broadcast_to(pigment(*palette.ground), (size[1], size[0], 3)).copy()
    for turn in range(int(rng.integers(4, 8))):
        centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
        radius = float(rng.uniform(0.18, 0.5))
        square = (x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2
        _blend(pixels, accents[turn % 4], np.exp(-square / radius**2) * np.float32(0.95))
    pixels += rng.normal(0, 3.0, size=(size[1], size[0], 1)).astype(np.float32)
    return _to_image(pixels)


def landscapes(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Mountain ranges one behind the other in a haze, with a low sun."""
    width, height = size
    x, y = coordinates(size)
    deep, haze, glow = (pigment(*colour) for colour in (palette.ground, *palette.accents[:2]))
    if not palette.dark:
        deep, haze = pigment(*palette.accents[2]) * 0.45, deep
    top, share = haze * 0.5 + pigment(*palette.accents[3]) * 0.5, np.linspace(0, 1, height, dtype=np.float32)
    pixels = (top + (glow * 0.35 + 165 - top) * share[:, None])[:, None, :].repeat(width, axis=1)
    sun_x, sun_y = rng.uniform(0.15, 0.85) * width / min(size), rng.uniform(0.12, 0.34) * height / min(size)
    away = np.hypot(x - np.float32(sun_x), y - np.float32(sun_y))
    radius = float(rng.uniform(0.07, 0.15))
    sun = pigment(255, 244, 214)
    _blend(pixels, sun, np.exp(-away / (radius * 2.5)) * np.float32(0.6))
    _blend(pixels, sun, np.clip((radius - away) * 90, 0, 1))
    ranges = int(rng.integers(4, 7))
    rows = np.arange(height, dtype=np.float32)[:, None]
    for layer in range(ranges):
        near = (layer + 1) / ranges
        ridge = np.zeros(width, dtype=np.float32)
        for octave in range(5):
            knots = rng.random((1, 3 + 2 ** (octave + 1)), dtype=np.float32)
            ridge += np.asarray(Image.fromarray(knots).resize((width, 1), Image.Resampling.BICUBIC))[0] * 0.5**octave
        line = height * (0.30 + 0.55 * near - 0.22 * (ridge - 0.9))
        _blend(pixels, haze * (1 - near) + deep * near, np.clip(rows - line, 0, 1))
    return _to_image(pixels)


def mosaics(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """Voronoi cells like leaded glass: each pane has its colour and its slant, the joints are dark."""
    x, y = coordinates(size)
    scale = float(rng.uniform(5, 11))
    u, v = x * scale, y * scale
    columns, rows = int(u.max()) + 4, int(v.max()) + 4
    tints = palette.array()[rng.choice(5, size=rows * columns, p=[0.12, 0.22, 0.22, 0.22, 0.22])]
    tints *= rng.uniform(0.82, 1.12, size=(rows * columns, 1)).astype(np.float32)
    spot_x, spot_y = rng.random((2, rows, columns), dtype=np.float32) * np.float32(0.9)
    spot_x = (spot_x + np.arange(-1, columns - 1, dtype=np.float32)[None, :]).ravel()
    spot_y = (spot_y + np.arange(-1, rows - 1, dtype=np.float32)[:, None]).ravel()
    here = v.astype(np.int32) * columns + u.astype(np.int32)
    nearest = np.full((size[1], size[0]), 81.0, dtype=np.float32)  # Squared, until the end.
    second = nearest.copy()
    owner = np.zeros(nearest.shape, dtype=np.int32)
    for step in (row * columns + column for row in range(3) for column in range(3)):
        at = here + step
        away = (spot_x[at] - u) ** 2 + (spot_y[at] - v) ** 2
        closer = away < nearest
        np.minimum(second, np.maximum(nearest, away), out=second)
        np.copyto(owner, at, where=closer)
        np.copyto(nearest, away, where=closer)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    pixels = tints[owner] * (1.08 - 0.3 * nearest)[..., None]
    _blend(pixels, pigment(18, 16, 20), np.clip((0.075 - (second - nearest)) * 24, 0, 1))
    return _to_image(pixels)


def checkers(rng: np.random.Generator, size: Size, palette: Palette) -> Image.Image:
    """A chessboard swollen by one or two lenses, as in op art."""
    x, y = coordinates(size)
    u, v = np.broadcast_arrays(x, y)
    for _ in range(int(rng.integers(1, 3))):
        centre_x, centre_y = (np.float32(rng.uniform(0.15, 0.85) * side / min(size)) for side in size)
        radius, strength = np.float32(rng.uniform(0.3, 0.55)), np.float32(rng.uniform(0.45, 0.8))
        away = np.hypot(u - centre_x, v - centre_y) / radius
        pull = 1 - strength * np.clip(1 - away, 0, 1) ** 1.5
        u, v = centre_x + (u - centre_x) * pull, centre_y + (v - centre_y) * pull
    turn = float(rng.uniform(0, np.pi / 2))
    count = float(rng.uniform(7, 14)) * np.pi
    across, down = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
    board = np.clip(np.sin(across * count) * np.sin(down * count) * 7 + 0.5, 0, 1)
    colours = palette.array()
    first, second = (colours[0], colours[1]) if palette.dark else (colours[2] * 0.5, colours[0])
    fade = smooth_noise(rng, size, cells=1.2)
    light = second + (colours[3] - second) * fade[..., None]
    return _to_image(first + (light - first) * board[..., None].astype(np.float32))
