"""The search lane: claim all that waits, decode in one round, embed in one pass, ask Milvus once, answer each.

At rest a search is served alone and at once; under load those that wait share the network, without any timer, and are
decoded while the network is at those before them. `asking` makes vectors of what is searched for, `answering` hits of
those. Here is only who is served when.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import partial
from typing import Final

from lookalike.errors import LookalikeError, ModelMismatch, Quarantined, QueueUnavailable
from lookalike.jobstore import Lane
from lookalike.records import JobError
from lookalike_worker.answering import answer, outcome
from lookalike_worker.asking import Picture, Search, embed, look_up, parts_of, read, take_pictures
from lookalike_worker.context import Context
from lookalike_worker.keeping import Keeper
from lookalike_worker.routing import aim_search, hand_over, own_model

log = logging.getLogger(__name__)

#: For as long one message keeps its worker at it. Then Celery has its turn: a signal to stop, the connection's health.
SERVE_FOR_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.1  #: For searches that come while all others wait for pictures from elsewhere.


@dataclass
class _Round:
    """Searches that are claimed, decoded, embedded and answered together."""

    began_s: float
    searches: list[Search]
    keepers: list[Keeper]

    def keep(self) -> None:
        """Keep the claims."""
        for keeper in self.keepers:
            keeper.keep()

    def persist(self, call: Callable[[], bool]) -> bool:
        """Hand an answer in, again and again while the job store is away and the claims may last."""
        return self.keepers[0].persist(call)


@dataclass(eq=False)
class _Parked:
    """A search whose pictures are still on their way here. It keeps nobody waiting but itself."""

    began_s: float
    search: Search
    keeper: Keeper


def serve_searches(context: Context) -> int:
    """Answer the searches that wait, and those that come meanwhile; returns how many there were.

    While the network is at one round, the decoders are at the next. It returns after a while although more may wait:
    their messages do, too.
    """
    served, until_s = 0, time.monotonic() + SERVE_FOR_S
    current, parked = _begin(context), list[_Parked]()
    while current.searches or parked:
        following: _Round | None = None
        try:
            _park(context, current, parked)
            pictures = take_pictures(context, _alive(current.searches), partial(_keep_all, current, parked))
            # A search that was tried before may be what killed its worker. It takes no other with it.
            alone = any(search.claim.attempts > 1 for search in current.searches)
            # Without pictures there is no forward pass to decode the next round in.
            ahead = bool(pictures) and not alone and time.monotonic() <= until_s
            following = _begin_ahead(context) if ahead else None
            if current.searches:
                _answer_all(context, current, pictures)
        except Exception:
            waiting = [*(following.searches if following else ()), *(one.search for one in parked)]
            for search in waiting:
                context.jobs.give_back(search.claim, burn_attempt=False)
            raise
        served += len(current.searches)
        if following is None or not following.searches:
            if time.monotonic() > until_s and not parked:
                break
            following = _Round(0.0, [], []) if time.monotonic() > until_s else _begin(context)
        current = following
        _unpark(current, parked)
    return served


def _keep_all(current: _Round, parked: Sequence[_Parked]) -> None:
    current.keep()
    for one in parked:
        one.keeper.keep()


def _park(context: Context, current: _Round, parked: list[_Parked]) -> None:
    """Take the searches out of a round whose pictures are not here yet: the others need not wait for them."""
    if not any(search.claim.attempts > 1 for search in current.searches):
        for search in [search for search in current.searches if search.is_fetching]:
            keeper = Keeper(context.jobs, context.heart, [search.claim], lease_s=context.settings.search_lease_s)
            parked.append(_Parked(current.began_s, search, keeper))
            current.searches.remove(search)
    for one in parked:
        one.keeper.keep()
    if parked and not current.searches:
        on_their_way = [
            part.fetching
            for _, part in parts_of([one.search for one in parked])
            if part.fetching and not part.fetching.done()
        ]
        wait(on_their_way, timeout=_LOOK_AGAIN_S, return_when=FIRST_COMPLETED)


def _unpark(current: _Round, parked: list[_Parked]) -> None:
    """Have the searches whose pictures have come answered with a round, unless that one is to be alone."""
    if any(search.claim.attempts > 1 for search in current.searches):
        return
    for one in [one for one in parked if not one.search.is_fetching]:
        parked.remove(one)
        current.began_s = min(current.began_s or one.began_s, one.began_s)
        current.searches.append(one.search)
        current.keepers.append(one.keeper)


def _begin(context: Context) -> _Round:
    """Claim what waits, and have its pictures decoded."""
    began_s = time.monotonic()
    claims = context.jobs.claim_searches(limit=context.settings.search_batch, model=own_model(context))
    searches = [search for search in map(Search.of, claims) if _open(context, search)]
    claims = [search.claim for search in searches]
    keeper = Keeper(context.jobs, context.heart, claims, lease_s=context.settings.search_lease_s)
    read(context, _alive(searches))
    return _Round(began_s, searches, [keeper])


def _begin_ahead(context: Context) -> _Round | None:
    """Begin the next round. What goes wrong there is no reason to leave the one in hand unanswered."""
    try:
        return _begin(context)
    except Exception:
        log.exception("the next searches could not be begun; those in hand are answered first")
        return None


def _answer_all(context: Context, current: _Round, pictures: Sequence[Picture]) -> None:
    embed(context, pictures)
    alive = _alive(current.searches)
    look_up(context, alive)
    answer(context, alive)
    for search in current.searches:
        told = outcome(search, 1000 * (time.monotonic() - current.began_s))
        if isinstance(told, JobError):
            log.info("search %s failed: %s", search.claim.job_id, told.code)
        if not current.persist(partial(context.jobs.finish_search, search.claim, told)):
            log.warning("search %s was taken from this worker before it was answered", search.claim.job_id)


def _alive(searches: Sequence[Search]) -> list[Search]:
    return [search for search in searches if search.error is None]


def _open(context: Context, search: Search) -> bool:
    """Find the search's collection, and see that this worker's network made it; False where it is handed over."""
    try:
        if search.claim.attempts > context.settings.max_attempts:
            raise Quarantined
        try:
            search.collection, search.claim = aim_search(context, search.claim)
        except ModelMismatch:
            if hand_over(context, Lane.SEARCH, search.claim, search.claim.request.collection):
                return False
            raise
    except QueueUnavailable:
        raise
    except LookalikeError as error:
        search.error = error
    return True
