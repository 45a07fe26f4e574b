"""Pairs of hashes, and what belongs together by pairs: held against comparing each with each, and at size."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose

from lookalike.contact_sheet import MAX_GROUPS, SheetGroup, SheetPicture, draw_contact_sheet
from lookalike.gallery import STYLES, draw_picture
from lookalike.picture_hash import picture_hash
from lookalike_worker.forest import Forest
from lookalike_worker.hamming import Hashes, Neighbours, Place, distances


def pairs(hashes: Hashes, max_bits: int) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    place: Place | None = Place()
    while place is not None:
        left, right, place = Neighbours(hashes, max_bits).find(place)  # Anew, as after a restart.
        found |= {(min(pair), max(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    return found


def planted(hashes: Hashes, count: int, bits: int) -> Hashes:
    """Copies of the first hashes with exactly so many bits flipped."""
    random = np.random.default_rng(2)
    masks = [sum(1 << int(bit) for bit in random.choice(64, bits, replace=False)) for _ in range(count)]
    return hashes[:count] ^ np.array(masks, np.uint64)


@pytest.mark.parametrize("max_bits", [0, 1, 2, 3, 5, 6, 8, 12])
def test_all_pairs_are_found_and_no_others(max_bits: int) -> None:
    hashes = np.random.default_rng(1).integers(0, 1 << 63, 150, dtype=np.uint64)
    near = [planted(hashes, 20, bits) for bits in range(1, max_bits + 2)]
    hashes = np.unique(np.concatenate([hashes, *near]))
    values = hashes.tolist()
    truth = {
        (one, other)
        for one, other in combinations(range(len(values)), 2)
        if (values[one] ^ values[other]).bit_count() <= max_bits
    }
    assert pairs(hashes, max_bits) == truth


def test_planted_pairs_are_found_among_two_hundred_thousand_hashes() -> None:
    hashes = np.unique(np.random.default_rng(3).integers(0, 1 << 63, 200_000, dtype=np.uint64))
    copies = planted(hashes, 100, 6)
    both = np.concatenate([hashes, copies])
    found = pairs(both, 6)
    assert {(number, len(hashes) + number) for number in range(100)} <= found
    left, right = np.array(sorted(found)).T
    assert (distances(both[left], both[right]) <= 6).all()


def test_a_forest_joins_what_chains_of_pairs_lead_to() -> None:
    random, size = np.random.default_rng(4), 100_000
    order = random.permutation(size).astype(np.int32)
    chains = order.reshape(100, -1)  # Each a chain through a thousand things, in no order.
    links = random.permutation(np.stack([chains[:, :-1].ravel(), chains[:, 1:].ravel()], axis=1))
    forest = Forest(size)
    for some in np.array_split(links, 7):
        forest.join(some[:, 0], some[:, 1])
    roots = forest.roots()
    assert (roots[chains] == chains.min(axis=1)[:, None]).all()


def test_a_hash_stays_near_when_a_picture_is_recompressed_or_rescaled_and_far_from_others() -> None:
    drawn = [draw_picture(style, 1).convert("RGB") for style in list(STYLES)[:4]]
    for image in drawn:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        with Image.open(file) as compressed:
            assert away(image, compressed) <= 6
        assert away(image, image.resize((image.width // 2, image.height // 2))) <= 6
    assert all(away(one, other) > 6 for one, other in combinations(drawn, 2))


@pytest.mark.parametrize("turn", list(Transpose))
def test_a_picture_that_is_turned_afterwards_has_the_hash_of_the_one_turned_before(turn: Transpose) -> None:
    image = draw_picture(next(iter(STYLES)), 2).convert("RGB").resize((301, 200))
    assert (int(picture_hash(image, turn), 16) ^ int(picture_hash(image.transpose(turn)), 16)).bit_count() <= 2


def test_a_contact_sheet_is_bounded_whatever_it_is_given() -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "navy").save(file, "PNG")
    pictures = [SheetPicture("a name\n30 x 20", file.getvalue() if number else None) for number in range(50)]
    few = draw_contact_sheet([SheetGroup("some", pictures)] * MAX_GROUPS, title="t")
    many = draw_contact_sheet([SheetGroup("some", pictures)] * 10 * MAX_GROUPS, title="t", left_out=7)
    with Image.open(io.BytesIO(few)) as one, Image.open(io.BytesIO(many)) as other:
        assert one.size == other.size
        assert one.tobytes() != other.tobytes()  # It says how many are not shown.


def away(one: Image.Image, other: Image.Image) -> int:
    return (int(picture_hash(one.convert("RGB")), 16) ^ int(picture_hash(other.convert("RGB")), 16)).bit_count()
