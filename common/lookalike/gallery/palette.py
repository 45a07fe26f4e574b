"""Colours for the gallery: hand-picked palettes, turned a little for each picture so that no two are quite alike."""

import colorsys
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

#: Each begins with a ground colour, dark or light, followed by four accents.
_PALETTES: Final = (
    "0b132b 1c2541 3a506b 5bc0be f4f1de",
    "fdf6e3 e63946 f1a208 457b9d 1d3557",
    "2d132c 801336 c72c41 ee4540 ffd5a5",
    "f7f3e9 264653 2a9d8f e9c46a e76f51",
    "10002b 5a189a 9d4edd e0aaff ffba08",
    "fefae0 606c38 283618 dda15e bc6c25",
    "03071e 9d0208 dc2f02 f48c06 ffe169",
    "f1faee a8dadc 457b9d e63946 1d3557",
    "081c15 1b4332 40916c 95d5b2 f9dc5c",
    "fff1e6 ff006e 8338ec 3a86ff ffbe0b",
    "22223b 4a4e69 9a8c98 c9ada7 f2e9e4",
    "faf3dd 5e6472 aed9e0 ffa69e b8f2e6",
    "001219 005f73 94d2bd ee9b00 bb3e03",
    "fbf8f1 b5179e 7209b7 4361ee 4cc9f0",
    "1a1423 3d314a 684756 96705b ffc49b",
    "f8f9fa 2b9348 80b918 f6cb0f 007f5f",
    "14213d 274690 fca311 e5e5e5 f25c54",
    "fff8f0 9e2a2b e09f3e 335c67 540b0e",
    "0d1b2a 1b998b fffd82 ff9b71 e84855",
    "f5ebe0 d5bdaf 7f5539 b08968 432818",
)


@dataclass(frozen=True)
class Palette:
    """The colours of one picture."""

    ground: RGB
    accents: tuple[RGB, ...]

    @property
    def dark(self) -> bool:
        """True where the ground is darker than middle grey."""
        return sum(self.ground) < 384

    def array(self) -> NDArray[np.float32]:
        """Return the ground and the accents as rows of a float array, (n, 3) in 0..255."""
        return np.array([self.ground, *self.accents], dtype=np.float32)


def _turned(code: str, *, hue: float, light: float) -> RGB:
    red, green, blue = (int(code[at : at + 2], 16) / 255 for at in (0, 2, 4))
    h, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    rgb = colorsys.hls_to_rgb((h + hue) % 1.0, min(1.0, max(0.0, lightness * light)), saturation)
    return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def choose(rng: np.random.Generator) -> Palette:
    """Choose a palette, turn its hues by up to a tenth of the circle and shuffle its accents."""
    codes = _PALETTES[int(rng.integers(len(_PALETTES)))].split()
    hue, light = float(rng.uniform(-0.1, 0.1)), float(rng.uniform(0.92, 1.06))
    ground, *accents = (_turned(code, hue=hue, light=light) for code in codes)
    order = rng.permutation(len(accents))
    return Palette(ground, tuple(accents[int(at)] for at in order))


def pigment(red: float, green: float, blue: float) -> NDArray[np.float32]:
    """Return a colour as floats, to compute with."""
    return np.array([red, green, blue], dtype=np.float32)


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Return `first` with a share of `second` in it, 0 to 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return (red, green, blue)
