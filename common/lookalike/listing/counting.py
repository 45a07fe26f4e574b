"""Counting: about how many files a folder holds, far faster than they can be listed, so that people can be told."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from lookalike.listing.folder import FolderOptions
from lookalike.listing.globs import Choice, Parts
from lookalike.listing.stores import Keep

_KEEP_EVERY: Final = 256


def count_folder(folder: Path, options: FolderOptions, *, keep: Keep) -> int:
    """Count about how many files `walk_folder` lists, in no order and with one look at each folder.

    Links are left out, and what cannot be read. `keep` is called as by `walk_folder`.
    """
    choice = Choice(
        recursive=options.recursive, include=options.include, exclude=options.exclude, hidden=options.hidden
    )
    found = 0
    levels: list[tuple[Parts, Iterator[os.DirEntry[str]]]] = [((), _entries(folder))]
    while levels:
        parts, entries = levels[-1]
        keep()
        batch = list(islice(entries, _KEEP_EVERY))
        if not batch:
            levels.pop()
        # A folder is gone into after the rest of its batch: the entries behind that wait in the iterator.
        for entry in batch:
            if entry.is_file(follow_symlinks=False):
                found += choice.takes_file(parts, entry.name)
            elif entry.is_dir(follow_symlinks=False) and choice.takes_folder(parts, entry.name):
                levels.append(((*parts, entry.name), _entries(Path(entry.path))))
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder, opened when the first is asked for; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:  # The listing will say so.
        return
