"""The gallery: deterministic, complete, and made of styles that are really different."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from lookalike.gallery import STYLES, Alteration, alter, draw_gallery, draw_picture, encode


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    draw_gallery(folder, count=60)
    return folder


def test_drawing_twice_gives_the_same_bytes(gallery: Path, tmp_path: Path) -> None:
    draw_gallery(tmp_path, count=60)
    assert digests(tmp_path) == digests(gallery)


def test_another_seed_gives_other_pictures(gallery: Path, tmp_path: Path) -> None:
    paths = draw_gallery(tmp_path, count=12, seed=8)
    known = set(digests(gallery).values())
    assert not {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths} & known


def test_each_style_has_its_folder_and_all_three_formats_occur(gallery: Path) -> None:
    paths = [path for path in gallery.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(paths) == 60
    assert {path.parent.name for path in paths} == set(STYLES)
    assert len(STYLES) >= 10
    assert all(path.name.startswith(f"{path.parent.name}-") for path in paths)
    formats = []
    for path in paths:
        with Image.open(path) as image:
            assert {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[path.suffix] == image.format
            formats.append(image.format)
            assert min(image.size) >= 320
            assert max(image.size) <= 640
    draw = {draw_picture("dots", number).size for number in range(12)}
    assert len(draw) > 3, "sizes vary"
    assert formats.count("JPEG") > 40
    assert "PNG" in formats


def test_no_two_pictures_are_alike(gallery: Path) -> None:
    found = [value for name, value in digests(gallery).items() if not name.startswith(".")]
    assert len(set(found)) == 60
    small = {
        path: np.asarray(Image.open(path).convert("RGB").resize((8, 8)), dtype=float).ravel()
        for path in gallery.rglob("*.jpg")
    }
    paths = sorted(small)
    for at, first in enumerate(paths):
        for second in paths[at + 1 :]:
            assert np.abs(small[first] - small[second]).mean() > 3, f"{first.name} and {second.name} look the same"


def test_a_complete_gallery_is_not_drawn_again(tmp_path: Path) -> None:
    first = draw_gallery(tmp_path, count=12)
    before = {path: path.stat().st_mtime_ns for path in first}
    assert draw_gallery(tmp_path, count=12) == first
    assert {path: path.stat().st_mtime_ns for path in first} == before


def test_a_gallery_with_a_missing_or_cut_file_is_mended(tmp_path: Path) -> None:
    paths = draw_gallery(tmp_path, count=12)
    whole = digests(tmp_path)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    draw_gallery(tmp_path, count=12)
    assert digests(tmp_path) == whole


def test_a_smaller_gallery_leaves_nothing_of_a_larger_one(tmp_path: Path) -> None:
    draw_gallery(tmp_path, count=24)
    paths = draw_gallery(tmp_path, count=12)
    assert {path for path in tmp_path.rglob("*-*.*") if path.is_file()} == set(paths)


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "dots").mkdir()
    (tmp_path / "dots" / "mine.jpg").write_bytes(b"mine")
    draw_gallery(tmp_path, count=12)
    draw_gallery(tmp_path, count=13)
    assert (tmp_path / "dots" / "mine.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", list(Alteration))
def test_an_altered_copy_differs_but_is_still_the_same_picture(kind: Alteration) -> None:
    original = draw_picture("glows", 3)
    copy = alter(original, kind)
    assert copy.mode == "RGB"
    assert encode(copy, ".png") != encode(original, ".png")
    compared = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if kind is Alteration.MIRROR else copy
    fitted = compared.resize(original.size, Image.Resampling.BILINEAR)
    away = np.asarray(ImageChops.difference(fitted, original), dtype=float).mean()
    assert away < 32, f"{kind} changes a picture by {away:.1f} of 255"


def test_each_alteration_does_what_it_is_called() -> None:
    original = draw_picture("stripes", 1)
    width, height = original.size
    assert alter(original, Alteration.CROP).width == width - 2 * (width // 12)
    assert alter(original, Alteration.RESCALE).size == (round(width * 0.45), round(height * 0.45))
    assert alter(original, Alteration.RECOMPRESS).size == original.size
    assert alter(original, Alteration.MIRROR).getpixel((0, 5)) == original.getpixel((width - 1, 5))
    bright = np.asarray(alter(original, Alteration.BRIGHTEN), dtype=float).mean()
    assert bright > np.asarray(original, dtype=float).mean() * 1.05


def test_a_rotated_copy_has_no_black_corners() -> None:
    white = Image.new("RGB", (640, 360), "white")
    assert Image.Image.getextrema(alter(white, Alteration.ROTATE)) == ((255, 255),) * 3


def test_encoding_picks_the_format_by_the_suffix() -> None:
    picture = draw_picture("rings", 0)
    for suffix, expected in ((".jpg", "JPEG"), (".png", "PNG"), (".webp", "WEBP")):
        assert Image.open(io.BytesIO(encode(picture, suffix))).format == expected
    with pytest.raises(ValueError, match="tiff"):
        encode(picture, ".tiff")
