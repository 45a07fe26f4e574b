"""Preprocessing is the tutorial's: the same pixels as torchvision makes of the same picture."""

import numpy as np
import pytest
from PIL import Image
from skimage import data
from torchvision.transforms import CenterCrop, Compose, Resize

from lookalike.decode import preprocess

REFERENCE = Compose([Resize(256), CenterCrop(224)])

SIZES = [
    *((side, side) for side in (2, 3, 7, 224, 255, 256, 257, 1000)),
    *((640, 480), (480, 640), (1500, 1000), (1001, 667), (333, 500), (257, 256), (256, 511), (225, 224)),
    *((2, 3), (3, 2), (2, 127), (128, 2), (5, 300), (4000, 64), (64, 4001), (16_000, 256)),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_shape_has_torchvisions_pixels(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))

    assert np.array_equal(preprocess(image), np.asarray(REFERENCE(image)))


def test_random_shapes_have_torchvisions_pixels() -> None:
    random = np.random.default_rng(5)
    for width, height in random.integers(2, 700, size=(150, 2)):
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        difference = preprocess(image).astype(int) - np.asarray(REFERENCE(image))
        # Beyond 64 to 1 only the part that is cut out is scaled, which rounds otherwise here and there.
        allowed = 1 if max(width, height) > 64 * min(width, height) else 0
        assert np.abs(difference).max() <= allowed, (width, height)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_photographs_have_torchvisions_pixels(name: str) -> None:
    image = Image.fromarray(getattr(data, name)())

    assert np.array_equal(preprocess(image), np.asarray(REFERENCE(image)))
