"""Selecting: which of the images that were found become hits. Pure functions on what was found, closest first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lookalike.records import Metric, SearchTerms, Variant, score


@dataclass(frozen=True, kw_only=True)
class Match:
    """One image that was found, with what is decided by."""

    key: str
    distance: float
    sha256: str = ""
    group: Any = None
    variant: Variant | None = None
    row: Any = None  #: The image itself, where it was fetched already.
    box: tuple[float, float, float, float] | None = None  #: The region that was found; None of the whole image.
    is_stale: bool = False  #: A region of what is not stored any more, or not yet.


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What makes an image no hit: itself, the same again, or too far away."""

    metric: Metric
    max_distance: float | None = None
    min_score: float | None = None
    distinct: bool = False
    grouped: bool = False
    own_ids: frozenset[str] = frozenset()
    own_contents: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, terms: SearchTerms, metric: Metric, own_ids: Iterable[str] = (), own_contents: Iterable[str] = ()
    ) -> Self:
        """Take the rules of a search's terms. What is its own counts only where it is to be left out."""
        own = terms.exclude_self
        return cls(
            metric=metric,
            max_distance=terms.max_distance,
            min_score=terms.min_score,
            distinct=terms.distinct,
            grouped=terms.group_by is not None,
            own_ids=frozenset(own_ids) if own else frozenset(),
            own_contents=frozenset(own_contents) if own else frozenset(),
        )

    @property
    def is_picky(self) -> bool:
        """True where images in the middle of what was found may be no hits, so that more have to be looked at."""
        return self.distinct or self.grouped or bool(self.own_ids or self.own_contents)

    def reaches(self, distance: float) -> bool:
        """Tell whether an image at this distance is close enough."""
        if self.max_distance is not None and self.metric.nearness(distance) < self.metric.nearness(self.max_distance):
            return False
        return self.min_score is None or score(distance, self.metric) >= self.min_score


def merged(lists: Sequence[Sequence[Match]], metric: Metric, *, asked_for: int) -> tuple[list[Match], bool]:
    """Merge what several vectors of one query found, each closest first: an image counts at its best distance.

    A list of `asked_for` images goes on where it ends; beyond that nothing is said, since the order is not known.
    Returns the images, and whether there may be more.
    """
    open_ends = [metric.nearness(found[-1].distance) for found in lists if len(found) >= asked_for]
    horizon = max(open_ends, default=None)
    if len(lists) == 1:
        return list(lists[0]), bool(open_ends)
    best: dict[str, Match] = {}
    for match in sorted(
        (match for found in lists for match in found), key=lambda match: -metric.nearness(match.distance)
    ):
        if not match.is_stale and (horizon is None or metric.nearness(match.distance) >= horizon):
            best.setdefault(match.key, match)
    return list(best.values()), bool(open_ends)


def selected(matches: Iterable[Match], rules: Rules, *, needed: int) -> tuple[list[Match], bool]:
    """Take the first `needed` hits; returns them, and whether the search is over: with them, or by their distance."""
    hits: list[Match] = []
    contents: set[str] = set()
    groups: set[str] = set()
    for match in matches:
        if not rules.reaches(match.distance):
            return hits, True
        if match.key in rules.own_ids or match.sha256 in rules.own_contents:
            continue
        if rules.distinct and match.sha256:
            if match.sha256 in contents:
                continue
            contents.add(match.sha256)
        if rules.grouped:
            group = repr(match.group)  # A list, which metadata may be, is no key.
            if group in groups:
                continue
            groups.add(group)
        hits.append(match)
        if len(hits) == needed:
            return hits, True
    return hits, False
