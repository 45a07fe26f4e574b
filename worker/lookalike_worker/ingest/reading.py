"""Reading: files fetched and decoded ahead of the network, never more than a few batches of pixels at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from lookalike.decode import Region
from lookalike.decodepool import Decoded, Probe
from lookalike.errors import ImageError
from lookalike.records import Stage
from lookalike.remote import Fetched
from lookalike_worker.context import Context
from lookalike_worker.ingest.ledger import stage_of
from lookalike_worker.ingest.work import File, Work
from lookalike_worker.keeping import result_of

#: A decoder may have died of what other programs did to the machine, so these are tried once more, alone.
_WORTH_A_RETRY: Final = frozenset({"decoder_crashed", "decode_timeout", "decode_oom"})
_SMALLEST_AHEAD: Final = 32

T = TypeVar("T", Decoded, Probe)


class Reader:
    """Reads the files of one chunk. What cannot be read ends in the work's failures."""

    def __init__(self, context: Context, work: Work, keep: Callable[[], None], tiles: Sequence[Region] = ()) -> None:
        self._context = context
        self._tiles = tiles
        self._work = work
        self._keep = keep
        batch = context.embedder.engine.batch_images
        ahead = max(2 * batch, 2 * context.settings.fetch_threads, _SMALLEST_AHEAD)
        # An image's tiles are as many pictures more to be kept in memory.
        self._ahead = max(ahead // (1 + len(tiles)), _SMALLEST_AHEAD // 4) if tiles else ahead

    def fetched(self, files: Sequence[File]) -> Iterator[File]:
        """Fetch remote files, those that are not already; local ones come through as they are.

        Raises `SourceUnavailable` where a place cannot be reached for now.
        """
        ahead: deque[tuple[File, Future[Fetched] | None]] = deque()
        waiting = deque(files)
        try:
            while waiting or ahead:
                while waiting and len(ahead) < self._ahead:
                    file = waiting.popleft()
                    ahead.append((file, self._fetch(file)))
                file, future = ahead.popleft()
                if future is None:
                    yield file
                    continue
                try:
                    with self._work.timed(Stage.READ):
                        file.fetched = result_of(future, self._keep)
                except ImageError as error:
                    self._work.fail(file, error, Stage.READ)
                else:
                    yield file
        finally:
            for _, future in ahead:
                if future:
                    future.cancel()

    def probed(self, files: Iterator[File]) -> Iterator[tuple[File, Probe | None]]:
        """Hash files without decoding them; None where that fails, which decoding will explain."""
        for file, outcome in _Ahead(files, self._probe, self._ahead):
            try:
                probe = result_of(outcome, self._keep)
            except ImageError:
                yield file, None
            else:
                self._work.stage_s[Stage.READ] += probe.read_ms / 1000
                yield file, probe

    def decoded(self, files: Iterator[File]) -> Iterator[tuple[File, Decoded]]:
        """Decode files, in their order; those whose decoder died come once more at the end, one at a time."""
        again: list[File] = []
        for file, outcome in _Ahead(files, self._decode, self._ahead):
            decoded = self._decoded(file, outcome, again)
            if decoded:
                yield file, decoded
        for file in again:
            file.attempts += 1
            decoded = self._decoded(file, self._decode(file), None)
            if decoded:
                yield file, decoded

    def _decoded(self, file: File, outcome: Future[Decoded], again: list[File] | None) -> Decoded | None:
        try:
            decoded = result_of(outcome, self._keep)
        except ImageError as error:
            if again is not None and error.code in _WORTH_A_RETRY:
                again.append(file)
            else:
                self._work.fail(file, error, stage_of(error))
            return None
        self._work.stage_s[Stage.READ] += decoded.read_ms / 1000
        self._work.stage_s[Stage.DECODE] += decoded.decode_ms / 1000
        return decoded

    def _probe(self, file: File) -> Future[Probe]:
        return self._context.decoders.probe(file.readable_uri)

    def _decode(self, file: File) -> Future[Decoded]:
        if not self._tiles:
            return self._context.decoders.decode(file.readable_uri)
        return self._context.decoders.decode(file.readable_uri, tiles=self._tiles)

    def _fetch(self, file: File) -> Future[Fetched] | None:
        remote = self._context.remote
        if file.fetched or not remote.is_remote(file.item.uri):
            return None
        if file.row is None:
            return remote.fetch(file.item.uri)
        return remote.fetch(file.item.uri, etag=file.row.etag, mtime_ns=file.row.mtime_ns)


class _Ahead(Generic[T]):
    """Futures of files, a bounded number of them under way."""

    def __init__(self, files: Iterator[File], begin: Callable[[File], Future[T]], most: int) -> None:
        self._files = files
        self._begin: Callable[[File], Future[T]] = begin
        self._most = most

    def __iter__(self) -> Iterator[tuple[File, Future[T]]]:
        ahead: deque[tuple[File, Future[T]]] = deque()
        try:
            for file in self._files:
                ahead.append((file, self._begin(file)))
                if len(ahead) >= self._most:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for _, future in ahead:
                future.cancel()
