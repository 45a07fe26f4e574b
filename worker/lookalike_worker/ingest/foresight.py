"""Foresight: what a dry run has to find out by reading, where a listing cannot tell it.

A listing of addresses on the web knows neither sizes nor times, and an object's tag may change with its content as it
was. So a dry run asks for such files as the real run would, if they are stored: most servers answer in a few bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Final

from lookalike.errors import ImageError
from lookalike.jobstore import Change
from lookalike.listing import Listed
from lookalike.records import IngestRequest
from lookalike.remote import Fetched
from lookalike.roots import image_id
from lookalike.vectorstore import RowState
from lookalike_worker.context import Context
from lookalike_worker.ingest.comparing import Verdict
from lookalike_worker.ingest.ledger import holds, wanted_metadata
from lookalike_worker.keeping import result_of

_SLAB: Final = 64  #: Files asked for together.


def content_of(context: Context, uri: str, keep: Callable[[], None]) -> str | None:
    """Return the SHA-256 of a file here or elsewhere, None where it cannot be read. Raises `SourceUnavailable`."""
    try:
        readable = result_of(context.remote.fetch(uri), keep).uri if context.remote.is_remote(uri) else uri
        return result_of(context.decoders.probe(readable), keep).sha256
    except ImageError:
        return None  # The real run will say what is wrong with it.


class Foresight:
    """Looks closer at remote files that seem to have changed."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def settle(
        self, verdicts: Iterator[Verdict], request: IngestRequest, keep: Callable[[], None]
    ) -> Iterator[Verdict]:
        """Yield the verdicts in their order; of a changed remote file that turns out to be as stored, a better one."""
        while slab := list(islice(verdicts, _SLAB)):
            states = self._states(slab, request)
            asked = self._ask(slab, states)
            try:
                for listed, change in slab:
                    future = asked.pop(listed.uri, None)
                    same = future is not None and self._is_same(future, states[listed.uri], keep)
                    yield listed, None if same else change
            finally:
                for future in asked.values():
                    future.cancel()

    def _states(self, slab: Sequence[Verdict], request: IngestRequest) -> dict[str, RowState]:
        """The rows of files that would be unchanged if only their content were, by address."""
        doubtful = {
            image_id(listed.uri): listed
            for listed, change in slab
            if change is Change.CHANGED and listed.error is None and self._context.remote.is_remote(listed.uri)
        }
        if not doubtful:
            return {}
        found = self._context.vectors.states(request.collection, list(doubtful))
        return {
            doubtful[row].uri: state
            for row, state in found.items()
            if _may_be_same(doubtful[row], state)
            and holds(state.metadata, wanted_metadata(request, doubtful[row].metadata))
        }

    def _ask(self, slab: Sequence[Verdict], states: Mapping[str, RowState]) -> dict[str, Future[Fetched]]:
        fetch = self._context.remote.fetch
        return {
            listed.uri: fetch(listed.uri, etag=states[listed.uri].etag, mtime_ns=states[listed.uri].mtime_ns)
            for listed, _ in slab
            if listed.uri in states
        }

    def _is_same(self, future: Future[Fetched], state: RowState, keep: Callable[[], None]) -> bool:
        try:
            fetched = result_of(future, keep)
            if fetched.not_modified:
                return True
            return result_of(self._context.decoders.probe(fetched.uri), keep).sha256 == state.sha256
        except ImageError:
            return False  # The real run will say what is wrong with it.


def _may_be_same(listed: Listed, state: RowState) -> bool:
    return listed.size is None or listed.size == state.size
