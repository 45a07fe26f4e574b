"""Mutants: valid images of every accepted form with something broken in each, the same for the same seed.

A mutant is made of its seed and its number alone, so one that did harm can be made again without the others.
"""

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from odd_files import ODD_FILES

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES: Final = 64  #: Where sizes, types and tables stand: broken more often than the rest.
_NASTY: Final = (b"\0", b"\xff", b"\x7f", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")


@dataclass(frozen=True)
class Mutant:
    """A broken image, and how it was made."""

    number: int
    name: str  #: Of the image it was made from, with the names of what was done to it.
    content: bytes


def mutant(seed: int, number: int) -> Mutant:
    """Make one mutant: one to four mutations of an image."""
    chance = random.Random(f"{seed}/{number}")
    source = chance.choice(sorted(ODD_FILES))
    content, done = bytearray(_original(source)), []
    for _ in range(chance.choice((1, 1, 2, 4))):
        mutate = chance.choice(_MUTATIONS)
        mutate(content, chance)
        done.append(mutate.__name__.strip("_"))
    if content.startswith(_PNG) and chance.random() < 0.7:
        _mend_checksums(content)  # Else a PNG's decoder looks no further than at the first broken one.
        done.append("mended")
    return Mutant(number, "+".join([source, *done]), bytes(content))


@cache
def _original(name: str) -> bytes:
    return ODD_FILES[name]()


def _place(content: bytearray, chance: random.Random) -> int:
    end = min(_HEADER_BYTES, len(content)) if chance.random() < 0.5 else len(content)
    return chance.randrange(end) if end else 0


def _flip_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        if content:
            content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _set_bytes(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        place, value = _place(content, chance), chance.choice(_NASTY)
        content[place : place + len(value)] = value


def _scramble(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    length = min(chance.randint(1, 200), len(content) - place)
    content[place : place + length] = chance.randbytes(length)


def _cut_end(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content) + 1) :]


def _cut_out(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    del content[place : place + chance.randint(1, 100)]


def _put_in(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    content[place:place] = chance.randbytes(chance.randint(1, 100))


def _repeat(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    content[place:place] = content[place : place + chance.randint(1, 300)] * chance.randint(1, 5)


def _splice(content: bytearray, chance: random.Random) -> None:
    """Go on as another image from some place on."""
    other = _original(chance.choice(sorted(ODD_FILES)))
    place = _place(content, chance)
    content[place:] = other[min(place, len(other)) :]


_MUTATIONS: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flip_bits,
    _set_bytes,
    _scramble,
    _cut_end,
    _cut_out,
    _put_in,
    _repeat,
    _splice,
)


def _mend_checksums(content: bytearray) -> None:
    """Give each chunk of a PNG the checksum of what it holds now, as far as the chunks can be followed."""
    place = len(_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
