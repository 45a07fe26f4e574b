"""Globs: which entries of a folder, or keys of an object store, a listing takes.

A glob compares with the name, or, where it holds a `/`, with the path relative to what is listed, in which `**` stands
for any number of folders. Case is ignored, since cameras write `.JPG`.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence

from lookalike.listing.listed import IMAGE_SUFFIXES

Parts = tuple[str, ...]  #: A path relative to what is listed.


class Choice:
    """Which files are listed, and which folders are entered."""

    def __init__(
        self, *, recursive: bool = True, include: Sequence[str] = (), exclude: Sequence[str] = (), hidden: bool = False
    ) -> None:
        self._recursive = recursive
        self._include = [_glob(pattern) for pattern in include]
        self._exclude = [_glob(pattern) for pattern in exclude]
        self._hidden = hidden

    def takes_folder(self, parts: Parts, name: str) -> bool:
        """Tell whether the folder `name` in the folder `parts` is entered."""
        return self._recursive and self._shows(name) and not self._excludes(parts, name)

    def takes_file(self, parts: Parts, name: str) -> bool:
        """Tell whether the file `name` in the folder `parts` is listed."""
        if name[0] == "." and not self._hidden:
            return False
        if self._include:
            path = (*parts, name)
            wanted = any(matches(path) for matches in self._include)
        else:
            _, dot, suffix = name.rpartition(".")
            wanted = bool(dot) and suffix.lower() in IMAGE_SUFFIXES
        return wanted and not (self._exclude and self._excludes(parts, name))

    def reaches_folder(self, path: Parts) -> bool:
        """Tell whether a walk from the top enters this folder on its way."""
        return all(self.takes_folder(path[:depth], name) for depth, name in enumerate(path))

    def reaches_file(self, path: Parts) -> bool:
        """Tell whether a walk from the top lists this file."""
        return self.reaches_folder(path[:-1]) and self.takes_file(path[:-1], path[-1])

    def _shows(self, name: str) -> bool:
        return self._hidden or not name.startswith(".")

    def _excludes(self, parts: Parts, name: str) -> bool:
        return any(matches((*parts, name)) for matches in self._exclude)


def _glob(pattern: str) -> Callable[[Parts], bool]:
    """Compile a glob to a test of a relative path."""
    if "/" not in pattern:
        fits = _name_glob(pattern)
        return lambda parts: fits(parts[-1])
    steps = [None if step == "**" else _name_glob(step) for step in pattern.strip("/").split("/")]

    def open_after(place: int) -> Iterator[int]:
        yield place
        while place < len(steps) and steps[place] is None:
            place += 1
            yield place

    def matches(parts: Parts) -> bool:
        # All ways to match are followed side by side: going back would take for ever on a hostile glob.
        places = set(open_after(0))
        for part in parts:
            reached: set[int] = set()
            for place in places:
                if place < len(steps):
                    step = steps[place]
                    if step is None:
                        reached.update(open_after(place))
                    elif step(part):
                        reached.update(open_after(place + 1))
            places = reached
        return len(steps) in places

    return matches


def _name_glob(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(fnmatch.translate(pattern), re.IGNORECASE)
    return lambda name: compiled.match(name) is not None
