"""Every engine's vectors are those of the tutorial's reference, and find what they should find."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from skimage import data
from torchvision.models import resnet50

from lookalike.decode import Limits, cut, decode, decode_reduced, preprocess, to_rgb
from lookalike.decodepool import DecodePool
from lookalike.gallery import STYLES, draw_picture
from lookalike.roots import file_uri
from lookalike.settings import Decoding, EngineKind, Precision, Settings
from lookalike_worker.engines.hardware import look
from lookalike_worker.model import Embedder, load_embedder
from lookalike_worker.network import build, fill_untrained
from reference import reference_embed, reference_network

Vectors = NDArray[np.float32]

#: Those that come inside scikit-image's wheel.
PHOTOGRAPHS: Final = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "microaneurysms", "moon", "page", "retina", "rocket", "text"),
)
PER_STYLE: Final = 3
#: What is left of a picture's sides in the members of its family. Its top 3 are its siblings, most of them, in a clear
#: order; among pictures with no more in common than a style, the third and the fourth are often equally close.
FAMILY: Final = (1.0, 0.95, 0.8, 0.5)

#: The first values and the norm of the `untrained` network's vector of a picture of the gallery, in fp32.
CANONICAL_STYLE: Final = "glows"
CANONICAL_NORM: Final = 16.12928
CANONICAL_FIRST: Final = (0.23002, 0.22293, 0.15166, 0.33443, 0.22651, 0.24564, 0.40476, 0.65057)


def engines_here() -> list[tuple[EngineKind, str, Precision]]:
    """Every engine, device and precision of this machine; the explicit settings, so that none is chosen instead."""
    hardware = look()
    on_cpu = [Precision.FP32, Precision.BF16] if hardware.computes_bf16 else [Precision.FP32]
    kinds = [EngineKind.TORCH, EngineKind.OPENVINO] if hardware.has_openvino else [EngineKind.TORCH]
    on_gpu = [Precision.FP32, Precision.FP16, Precision.BF16] if hardware.cuda else []
    return [(kind, "cpu", precision) for kind in kinds for precision in on_cpu] + [
        (EngineKind.TORCH, "cuda", precision) for precision in on_gpu
    ]


def photographs() -> dict[str, Image.Image]:
    return {name: to_rgb(Image.fromarray(getattr(data, name)())) for name in PHOTOGRAPHS}


def centre(picture: Image.Image, share: float) -> Image.Image:
    """Cut the middle out, so much of each side."""
    x, y = (round(side * (1.0 - share) / 2.0) for side in picture.size)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def normalised(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(left: Vectors, right: Vectors) -> Vectors:
    """Row by row."""
    result: Vectors = (normalised(left) * normalised(right)).sum(axis=1)
    return result


def top_3(vectors: Vectors) -> NDArray[np.intp]:
    """The closest others of each picture, by exact search."""
    scores = normalised(vectors) @ normalised(vectors).T
    np.fill_diagonal(scores, -np.inf)
    result: NDArray[np.intp] = np.argsort(-scores, axis=1)[:, :3]
    return result


@pytest.fixture(scope="module")
def spread_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full ResNet50 state dict whose vectors of different pictures differ, as torch saves it."""
    network, head = build("resnet50")
    fill_untrained(network)
    layer = {f"{head}.{name}": tensor for name, tensor in resnet50(weights=None).fc.state_dict().items()}
    path = tmp_path_factory.mktemp("spread") / "spread.pth"
    torch.save({**network.state_dict(), **layer}, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    drawn = [draw_picture(style, number) for style in STYLES for number in range(PER_STYLE)]
    return [centre(picture, share) for picture in (*photographs().values(), *drawn) for share in FAMILY]


@pytest.fixture(scope="module")
def reference(spread_weights: Path, pictures: list[Image.Image]) -> Vectors:
    return reference_embed(reference_network(spread_weights), pictures)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Embedder]:
    """Loads with settings changed; all loads share one models folder, as workers of one service do."""
    data_dir = tmp_path_factory.mktemp("models")

    def load(**changes: Any) -> Embedder:
        return load_embedder(Settings(data_dir=data_dir, **changes))

    return load


@pytest.fixture(scope="module")
def untrained(load: Callable[..., Embedder]) -> Embedder:
    return load(weights="untrained", engine="torch", device="cpu", precision="fp32")


@pytest.mark.parametrize(("kind", "device", "precision"), engines_here())
def test_an_engine_gives_the_references_vectors_and_neighbours(  # noqa: PLR0917
    kind: EngineKind,
    device: str,
    precision: Precision,
    load: Callable[..., Embedder],
    spread_weights: Path,
    pictures: list[Image.Image],
    reference: Vectors,
) -> None:
    embedder = load(weights=str(spread_weights), engine=kind, device=device, precision=precision)
    assert (embedder.engine.name, embedder.engine.precision) == (kind.value, precision.value)
    assert embedder.engine.device.startswith(device)

    vectors = embedder.engine.embed(np.stack([preprocess(picture) for picture in pictures]))

    assert len(pictures) >= 200
    assert cosines(vectors, reference).min() >= (0.9999 if precision is Precision.FP32 else 0.999)
    assert (top_3(vectors) == top_3(reference)).mean() >= 0.98


def test_path_bytes_and_pil_give_one_vector(untrained: Embedder, tmp_path: Path) -> None:
    root = tmp_path.resolve()
    path = root / "cat.png"
    picture = Image.fromarray(data.chelsea())
    picture.save(path)
    config = Settings(roots=(root,), data_dir=tmp_path / "data", min_free_bytes=0, decode=Decoding.EXACT)

    with DecodePool(config, processes=1) as pool:
        by_path = pool.decode(file_uri(path)).result().pixels
    by_bytes = preprocess(decode(path.read_bytes(), Limits(max_pixels=1 << 20, min_side_px=2)))
    by_pil = preprocess(picture)

    vectors = untrained.engine.embed(np.stack([by_path, by_bytes, by_pil]))
    assert np.array_equal(by_path, by_pil)
    assert np.array_equal(by_bytes, by_pil)
    np.testing.assert_allclose(vectors[1:], vectors[:1].repeat(2, axis=0), rtol=1e-5, atol=1e-6)


def widened(picture: Image.Image, side: int) -> Image.Image:
    """Continue a picture by its mirror image, as sharp as it is, to a shorter side of so many pixels."""
    pixels, width = (
        np.asarray(picture.crop((0, 0, min(picture.width, side * 5 // 4), min(picture.height, side)))),
        side * 5 // 4,
    )
    missing = (side - pixels.shape[0], width - pixels.shape[1])
    return Image.fromarray(np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric"))


def saved(picture: Image.Image, *, orientation: int = 1, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=90, exif=exif)
    return buffer.getvalue()


def photographed(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarge a picture with the noise of a camera."""
    large = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0.0, 4.0, large.shape)
    return Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8))


def files() -> dict[str, bytes]:
    """Pictures whose vectors fast decoding could change most, and one of each kind that it treats in its own way."""
    known = photographs() | {"plaids": draw_picture("plaids", 1)}
    #: Sharp textures, at the sizes where a margin that is too small would have them reduced once more.
    sharp = [
        ("plaids", 512),
        ("plaids", 640),
        ("grass", 640),
        ("page", 1024),
        ("page", 1536),
        ("brick", 1600),
        ("brick", 3000),
    ]
    made = {f"{name} {side}": saved(widened(known[name], side)) for name, side in sharp}
    for orientation in (3, 6, 7):
        made[f"turned {orientation}"] = saved(widened(known["astronaut"], 801), orientation=orientation)
    for size in ((4000, 3000), (2600, 641), (700, 4000), (30, 40)):
        made[f"{size}"] = saved(photographed(known["retina"], size))
    for kind in ("PNG", "WEBP"):
        made[kind] = saved(photographed(known["coffee"], (1203, 801)), kind=kind)
    return made


def test_a_file_decoded_fast_has_the_vector_of_one_decoded_exactly(untrained: Embedder) -> None:
    made, limits = files(), Limits(max_pixels=1 << 24, min_side_px=2)
    exact = np.stack([preprocess(decode(content, limits)) for content in made.values()])
    fast = np.stack([np.asarray(cut(decode_reduced(content, limits))) for content in made.values()])

    likeness = cosines(untrained.engine.embed(fast), untrained.engine.embed(exact))

    far = {name: float(cosine) for name, cosine in zip(made, likeness, strict=True) if cosine < 0.999}
    assert not far


def test_the_untrained_networks_vectors_stay_what_they_are(untrained: Embedder) -> None:
    vector = untrained.engine.embed(preprocess(draw_picture(CANONICAL_STYLE, 0))[None])[0]

    # AVX2 and AVX-512 agree in all digits given; other processors may round otherwise through 50 layers.
    assert np.linalg.norm(vector) == pytest.approx(CANONICAL_NORM, rel=1e-3)
    np.testing.assert_allclose(vector[:8], CANONICAL_FIRST, rtol=2e-3, atol=1e-4)


def recompressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


ALTERATIONS: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "recompressed": recompressed,
    "rescaled": lambda picture: picture.resize((picture.width * 3 // 5, picture.height * 3 // 5)),
    "cropped by a tenth": lambda picture: centre(picture, 0.9),
    "brightened": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
}


def test_an_altered_photograph_finds_its_original_without_training(untrained: Embedder) -> None:
    originals = photographs()
    known = normalised(untrained.engine.embed(np.stack([preprocess(picture) for picture in originals.values()])))
    lost = []
    for what, alter in ALTERATIONS.items():
        copies = np.stack([preprocess(to_rgb(alter(picture))) for picture in originals.values()])
        nearest = (normalised(untrained.engine.embed(copies)) @ known.T).argmax(axis=1)
        lost += [f"{name} {what}" for row, name in enumerate(originals) if nearest[row] != row]

    assert not lost
    assert untrained.model.trained is False
