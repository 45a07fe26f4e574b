"""Decoding: every accepted kind of image comes out upright and RGB, every other one with its code."""

import io
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from bad_files import BAD_FILES
from lookalike.decode import (
    Limits,
    cut,
    decode,
    decode_reduced,
    preprocess,
    read_header,
    resize_and_crop,
    thumbnail,
    to_rgb,
)
from lookalike.errors import (
    FileEmpty,
    ImageCorrupt,
    ImageError,
    ImageTooLarge,
    ImageTooSmall,
    ImageTruncated,
    UnsupportedFormat,
)

LIMITS = Limits(max_pixels=89_000_000, min_side_px=2)
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF"]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Draw a picture in which no two regions are alike, and no symmetry holds."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x * y) / 255], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def noise(kind: str) -> bytes:
    """Encode a picture large enough that half of its file is half of its pixels."""
    return encoded(Image.effect_noise((300, 200), 80).convert("RGB"), kind)


def values(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


# --- What is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_read_by_content(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(), kind, **options)

    image = decode(data, LIMITS)
    header = read_header(data, LIMITS)

    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert (header.format, header.width, header.height) == (kind, 60, 40)
    if kind in {"PNG", "WEBP", "BMP"}:
        assert (values(image) == values(picture())).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (20, 20), (250, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 250))
    data = encoded(first, kind, save_all=True, append_images=[second])

    red, green, blue = decode(data, LIMITS).getpixel((10, 10))  # type: ignore[misc]

    assert red > 240
    assert max(green, blue) < 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")

    image = decode(data, LIMITS)
    header = read_header(data, LIMITS)

    assert (values(image) == values(expected)).all()
    assert (header.width, header.height) == image.size == ((40, 60) if orientation > 4 else (60, 40))


def test_broken_exif_costs_the_orientation_and_not_the_picture() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40))

    assert decode(data, LIMITS).size == (60, 40)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    grey = Image.new("RGBA", (4, 4), (100, 100, 100, 128))
    image = grey.convert("LA").convert("La") if mode == "La" else grey.convert(mode)

    assert abs(to_rgb(image).getpixel((1, 1))[0] - 177) <= 1  # type: ignore[index]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_in_a_file_is_white(kind: str) -> None:
    data = encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0)), kind, lossless=True)

    assert decode(data, LIMITS).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "transparent"), [("1", 0), ("L", 18), ("RGB", (10, 20, 30)), ("P", 0)])
def test_a_transparent_colour_is_white_and_the_others_stay(mode: str, transparent: int | tuple[int, int, int]) -> None:
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    image.paste((255, 255, 0), (2, 0, 4, 4))
    converted = image.quantize(2) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
    if mode == "P":
        transparent = converted.getpixel((0, 0))  # type: ignore[assignment]

    flat = decode(encoded(converted, "PNG", transparency=transparent), LIMITS)

    assert flat.getpixel((0, 0)) == (255, 255, 255)
    assert flat.getpixel((3, 3)) == converted.convert("RGB").getpixel((3, 3))


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (1, 0, 2, 2))

    flat = decode(encoded(image, "PNG", transparency=bytes([128, 255])), LIMITS)

    assert flat.getpixel((0, 0)) == (255, 127, 127)
    assert flat.getpixel((1, 0)) == (0, 0, 255)


def test_cmyk_keeps_its_colours() -> None:
    cmyk = picture().convert("CMYK")
    data = encoded(cmyk, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data  # Inverted, as Photoshop writes it.

    assert np.abs(values(decode(data, LIMITS)) - values(cmyk.convert("RGB"))).max() < 12


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "F"])
def test_deep_greys_are_scaled_and_not_clipped(mode: str) -> None:
    shades = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    if mode.startswith("I;16"):
        image = Image.frombytes(mode, (64, 64), shades.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    else:
        image = Image.fromarray(shades.astype(np.int32 if mode == "I" else np.float32))
    assert image.mode == mode

    red = values(to_rgb(image))[..., 0]

    assert np.abs(red - shades / 257).max() <= 0.51


def test_a_16_bit_png_is_scaled_and_its_transparent_shade_is_white() -> None:
    shades = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    image = Image.fromarray(shades)

    assert values(decode(encoded(image), LIMITS))[..., 0].tolist() == [[0, 100], [200, 255]]
    assert values(decode(encoded(image, transparency=257 * 100), LIMITS))[..., 0].tolist() == [[0, 255], [200, 255]]


def test_floats_from_zero_to_one_fill_the_range() -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))

    assert values(to_rgb(image))[0, :, 0].tolist() == [0, 128, 255]


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_its_code(name: str) -> None:
    make, code = BAD_FILES[name]

    for read in (decode, decode_reduced):
        with pytest.raises(ImageError) as raised:
            read(make(), LIMITS)
        assert raised.value.code == code


OTHER_FILES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "html": b"<!doctype html><p>not a picture",
    "psd": b"8BPS\0\x01" + bytes(100),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "text that begins like a bitmap": b"BMW builds cars, motorcycles and engines.",
    "one byte": b"\xff",
    "tiff": encoded(picture(), "TIFF"),
    "ico": encoded(picture(), "ICO"),
    "ppm": encoded(picture(), "PPM"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_any_other_format_is_unsupported_whatever_its_name(name: str) -> None:
    for read in (decode, read_header):
        with pytest.raises(UnsupportedFormat):
            read(OTHER_FILES[name], LIMITS)


def test_an_empty_file_is_told_from_a_broken_one() -> None:
    for read in (decode, read_header):
        with pytest.raises(FileEmpty):
            read(b"", LIMITS)


@pytest.mark.parametrize("part", [0.03, 0.3, 0.9])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_ends_early_is_truncated(kind: str, part: float) -> None:
    data = encoded(Image.effect_noise((700, 650), 80).convert("RGB"), kind)  # A JPEG of this size is halved.

    for read in (decode, decode_reduced):
        with pytest.raises(ImageTruncated):
            read(data[: max(40, int(len(data) * part))], LIMITS)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png(64, 64, b"no zlib stream"),
        png(64, 64)[:16] + b"\xff" * 13 + png(64, 64)[29:],
        noise("PNG")[:5000] + bytes(200) + noise("PNG")[5200:],
        encoded(picture(), "WEBP", lossless=True)[:40] + bytes(4000),
        b"RIFF" + struct.pack("<I", 20) + b"WEBPVP9 " + bytes(20),
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200),
        b"BM" + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, 8, 8, 1, 77, 0) + bytes(20),
    ],
)
def test_broken_data_of_an_accepted_format_is_corrupt(data: bytes) -> None:
    with pytest.raises(ImageCorrupt):
        decode(data, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        png(0, 5),
        png(5, 0),
        b"GIF89a" + bytes(7) + b";",
        b"BM" + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, 0, 8, 1, 24, 0) + bytes(20),
        encoded(Image.new("RGB", (1, 50))),
        encoded(Image.new("RGB", (50, 1)), "JPEG"),
    ],
)
def test_an_image_without_pixels_or_thinner_than_the_limit_is_too_small(data: bytes) -> None:
    for read in (decode, read_header):
        with pytest.raises(ImageTooSmall):
            read(data, LIMITS)


def test_the_pixel_cap_is_kept_before_anything_is_decoded() -> None:
    # 60,000 x 60,000 would be ten gigabytes; the data behind the header is none.
    bombs = [png(60_000, 60_000), png(9_500, 9_500), encoded(picture(1000, 1001))]
    for data in bombs:
        for read in (decode, read_header):
            with pytest.raises(ImageTooLarge):
                read(data, Limits(max_pixels=1_000_000, min_side_px=2))
    assert decode(encoded(picture(1000, 1000)), Limits(max_pixels=1_000_000, min_side_px=2)).size == (1000, 1000)


def test_pillows_own_bomb_warning_is_an_error_even_under_a_larger_cap() -> None:
    with pytest.raises(ImageTooLarge):
        read_header(png(10_000, 10_000), Limits(max_pixels=1 << 40, min_side_px=2))


@pytest.mark.parametrize("kind", FORMATS)
def test_no_damage_gets_another_answer_than_a_code(kind: str) -> None:
    data = noise(kind)
    random = np.random.default_rng(7)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 2000), size=6):
            damaged[place] = random.integers(0, 256)
        for read in (decode, decode_reduced, read_header):
            with suppress(ImageError):  # Anything else is a defect.
                read(bytes(damaged), LIMITS)


# --- The fast way ---------------------------------------------------------------------------------------------------


def both_ways(data: bytes) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    return values(cut(decode_reduced(data, LIMITS))), values(resize_and_crop(decode(data, LIMITS)))


# Of these sizes the middle is not in whole pixels, so what is cut out of a mirrored picture is cut elsewhere.
@pytest.mark.parametrize("size", [(331, 263), (290, 401), (97, 60), (900, 33), (256, 259)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_not_reduced_differs_by_rounding_only_however_it_is_turned(
    size: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    fast, exact = both_ways(encoded(Image.effect_noise(size, 90).convert("RGB"), "PNG", exif=exif))

    assert np.abs(fast - exact).max() <= 2


@pytest.mark.parametrize("size", [(1027, 1031), (1403, 641), (2051, 3102)])
@pytest.mark.parametrize("orientation", [1, 4, 6, 7])
def test_a_reduced_jpeg_shows_the_same_part_the_same_way_up(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Soft blobs in three colours: a pixel's shift shows, and a JPEG keeps them.
    blobs = np.random.default_rng(3).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC)

    fast, exact = both_ways(encoded(image, "JPEG", exif=exif, quality=95, subsampling=0))

    assert np.abs(fast - exact).mean() < 0.6
    assert np.abs(fast[:, 1:] - exact[:, :-1]).mean() > 1.5
    assert np.abs(fast[1:] - exact[:-1]).mean() > 1.5


@pytest.mark.parametrize(
    ("size", "factor"),
    [((639, 700), 1), ((700, 640), 2), ((1599, 2001), 2), ((1603, 1601), 4), ((9000, 300), 1), ((3400, 3500), 4)],
)
def test_a_jpeg_is_reduced_as_far_as_its_shorter_side_allows_and_reports_its_whole_size(
    size: tuple[int, int], factor: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    reduced = decode_reduced(encoded(Image.new("RGB", size), "JPEG", exif=exif), LIMITS)

    assert reduced.factor == factor
    assert reduced.image.size == (-(-size[0] // factor), -(-size[1] // factor))
    assert (reduced.height, reduced.width) == size


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_formats_are_not_reduced(kind: str) -> None:
    reduced = decode_reduced(encoded(picture(1100, 1030), kind), LIMITS)

    assert (reduced.factor, reduced.image.size, reduced.image.mode) == (1, (1100, 1030), "RGB")


# --- What the network and people get --------------------------------------------------------------------------------


def test_the_networks_input_is_a_square_of_bytes() -> None:
    for size in ((2, 2), (224, 224), (256, 256), (1, 3000), (640, 480)):
        pixels = preprocess(Image.new("RGB", size, (1, 2, 3)))
        assert pixels.shape == (224, 224, 3)
        assert pixels.dtype == np.uint8
        assert (pixels == (1, 2, 3)).all()


def test_an_extreme_picture_is_not_scaled_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: object, **options: object) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(image, size, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    for size in ((65_000, 2), (2, 65_000), (20_000, 300)):
        assert resize_and_crop(picture(*size)).size == (224, 224)
    assert largest <= 64 * 256 * 256


@pytest.mark.parametrize("size", [(3000, 40), (40, 3001), (2999, 45)])
def test_the_two_ways_of_scaling_differ_by_rounding_only(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.effect_noise(size, 90).convert("RGB")
    cut_first = values(resize_and_crop(image))
    monkeypatch.setattr("lookalike.decode._MAX_RESIZED_PIXELS", 1 << 40)

    whole = values(resize_and_crop(image))

    assert np.abs(cut_first - whole).max() <= 1


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (320, 240)), ((100, 50), (100, 50)), ((9000, 2), (320, 1))]
)
def test_a_thumbnail_is_a_small_webp_that_is_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(thumbnail(picture(*size), 320))) as image:
        assert (image.format, image.size) == ("WEBP", expected)


def test_a_thumbnail_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(picture(), "JPEG", exif=exif, icc_profile=profile, comment=b"secret")

    made = thumbnail(decode(data, LIMITS), 320)

    with Image.open(io.BytesIO(made)) as image:
        assert not {"exif", "icc_profile", "xmp", "comment"} & image.info.keys()
    assert b"where I live" not in made


def test_a_fast_decode_keeps_what_was_asked_for() -> None:
    data = encoded(picture(1600, 1200), "JPEG")

    assert decode(data, LIMITS, at_least_px=300).size == (400, 300)
    assert decode(data, LIMITS, at_least_px=301).size == (800, 600)
    assert decode(encoded(picture(), "PNG"), LIMITS, at_least_px=10).size == (60, 40)


def test_decoding_leaves_the_callers_warnings_alone() -> None:
    before = list(warnings.filters)
    decode(encoded(picture()), LIMITS)

    assert warnings.filters == before
