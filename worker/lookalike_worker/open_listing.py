"""A listing that stays open between two steps of a job, so that the next one need not find its place again.

Only a convenience: a worker that has it not, or that died with it, opens the listing behind the cursor. It matters for
archives, which are read from their beginning to get anywhere.
"""

from collections.abc import Callable, Iterator

from lookalike.listing import Listed, Lister
from lookalike.records import IngestRequest


class OpenListing:
    """At most one listing. Of one thread."""

    def __init__(self) -> None:
        self._kept: tuple[str, str | None, Iterator[Listed]] | None = None
        self._keep: Callable[[], None] | None = None

    def after(
        self, cursor: str | None, *, job_id: str, lister: Lister, request: IngestRequest, keep: Callable[[], None]
    ) -> Iterator[Listed]:
        """Go on with a job's listing behind a cursor; raises as `Lister.list`. `keep` is that of the claim in hand."""
        self._keep = keep  # The open listing was begun under an earlier claim.
        kept, self._kept = self._kept, None
        if kept and kept[:2] == (job_id, cursor):
            return kept[2]
        return lister.list(request, after=cursor, keep=self._ask)

    def put_back(self, listing: Iterator[Listed], *, job_id: str, cursor: str | None) -> None:
        """Keep a listing that was read up to a cursor, and not beyond it."""
        self._kept, self._keep = (job_id, cursor, listing), None

    def drop(self) -> None:
        """Let go of what is open."""
        self._kept = None

    def _ask(self) -> None:
        if self._keep:
            self._keep()
