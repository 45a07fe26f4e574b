"""Uploads: local files sent as bounded multipart requests, each of which becomes one job.

A few requests are under way at a time, so that the service has the next one while it answers the last.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

from lookalike.client.connection import Call, Connection, submit_key
from lookalike.client.job import WATCH_S, Job, JobGroup
from lookalike.client.parts import Part
from lookalike.errors import FileTooLarge, ImageError, LookalikeError, PayloadTooLarge, TooManyItems
from lookalike.records import Failure, JobRecord, Record

IN_FLIGHT: Final = 2  #: Requests at a time.
_FORM_BYTES: Final = 4096  #: Room in a body for the frame of its form fields.


class Bounds(Record):
    """What the service takes in one request."""

    max_upload_bytes: int
    max_upload_images: int
    max_file_bytes: int
    max_queries: int

    def room_bytes(self, fields: Mapping[str, Any]) -> int:
        """Return what a multipart body with these fields leaves for images."""
        return self.max_upload_bytes - _FORM_BYTES - sum(len(str(value).encode()) for value in fields.values())


class Uploader:
    """Sends files to `POST /v1/ingests`."""

    def __init__(self, connection: Connection, bounds: Bounds, fields: Mapping[str, str]) -> None:
        self._connection = connection
        self._fields = fields
        self._max_bytes = bounds.room_bytes(fields)
        self._max_file_bytes = bounds.max_file_bytes
        self._max_images = bounds.max_upload_images

    def run(
        self,
        parts: Iterable[Part | Failure],
        group: JobGroup,
        *,
        on_job: Callable[[Job], None],
        tick: Callable[[], None],
    ) -> None:
        """Send all parts and enter what becomes of them in the group; calls `tick` about once a second meanwhile.

        Raises what the service answers to a request that it does not take; requests taken before stay jobs.
        """
        outcomes: _Outcomes = SimpleQueue()
        batches = _Shared(self._batches(parts, outcomes))
        # Daemons: Ctrl-C leaves at once, whatever they are waiting for.
        for _ in range(IN_FLIGHT):
            threading.Thread(target=self._work, args=(batches, outcomes), daemon=True).start()
        working = IN_FLIGHT
        try:
            while working:
                outcome = _next(outcomes, tick)
                if outcome is None:
                    working -= 1
                    continue
                group.unsent += outcome.failures
                if outcome.job is not None:
                    group.uploaded.append(outcome.job)
                    on_job(outcome.job)
                if outcome.error is not None:
                    raise outcome.error
        finally:
            batches.stop()

    def _batches(self, parts: Iterable[Part | Failure], outcomes: "_Outcomes") -> Iterator[list[Part]]:
        def refuse(failure: Failure) -> None:
            outcomes.put(_Outcome(failures=[failure]))

        def sendable() -> Iterator[Part]:
            for part in parts:
                if isinstance(part, Failure):
                    refuse(part)
                elif part.cost_bytes > self._max_bytes or part.size > self._max_file_bytes:
                    refuse(part.failure(_too_large(min(self._max_bytes, self._max_file_bytes))))
                else:
                    yield part

        return batches_of(sendable(), max_bytes=self._max_bytes, max_images=self._max_images)

    def _work(self, batches: "_Shared", outcomes: "_Outcomes") -> None:
        try:
            while (batch := batches.take()) is not None:
                self._send(batch, outcomes)
        except Exception as error:  # noqa: BLE001 - Raised anew in the thread that waits for it.
            outcomes.put(_Outcome(error=error))
        finally:
            outcomes.put(None)

    def _send(self, batch: Sequence[Part], outcomes: "_Outcomes") -> None:
        """Send one request. Where it is one file's fault that it cannot be, that file fails and the others are sent."""
        try:
            record = self._connection.fetch(JobRecord, submission("/v1/ingests", batch, self._fields))
        except LookalikeError as error:
            broken = [part.failure(part.error) for part in batch if part.error is not None]
            rest = [part for part in batch if part.error is None]
            if broken:
                outcomes.put(_Outcome(failures=broken))
                if rest:
                    self._send(rest, outcomes)
            elif not isinstance(error, PayloadTooLarge | TooManyItems | ImageError):
                raise
            elif len(batch) > 1:
                # The service refuses one of the images without saying which, or a proxy takes less than we know of.
                self._send(batch[: len(batch) // 2], outcomes)
                self._send(batch[len(batch) // 2 :], outcomes)
            else:
                refused = error if isinstance(error, ImageError) else _too_large(batch[0].size - 1)
                outcomes.put(_Outcome(failures=[batch[0].failure(refused)]))
        else:
            outcomes.put(_Outcome(job=Job(self._connection, record)))


def batches_of(parts: Iterable[Part], *, max_bytes: int, max_images: int) -> Iterator[list[Part]]:
    """Cut parts, none of which is larger than `max_bytes`, into requests in their order."""
    batch: list[Part] = []
    room = max_bytes
    for part in parts:
        if batch and (part.cost_bytes > room or len(batch) >= max_images):
            yield batch
            batch, room = [], max_bytes
        batch.append(part)
        room -= part.cost_bytes
    if batch:
        yield batch


def submission(
    path: str,
    parts: Sequence[Part],
    fields: Mapping[str, str],
    *,
    hold_s: float = 0.0,
    about: Mapping[type[LookalikeError], str] | None = None,
) -> Call:
    """Return the multipart request for some images, under a key of its own, so that sending it twice makes one job."""
    return Call(
        method="POST",
        path=path,
        headers=submit_key(),
        data=fields,
        files=[part.field() for part in parts],
        hold_s=hold_s,
        about=about or {},
    )


def _too_large(limit: int) -> FileTooLarge:
    return FileTooLarge(
        f"The file is larger than one upload may be ({limit} bytes). Let the service read its folder instead: "
        "start it with --root for that folder."
    )


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What one request, or one file that is in none, came to."""

    job: Job | None = None
    failures: Sequence[Failure] = ()
    error: Exception | None = None


_Outcomes = SimpleQueue[_Outcome | None]  # None: a sender has ended.


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, batches: Iterator[list[Part]]) -> None:
        self._batches = batches
        self._lock = threading.Lock()
        self._stopped = False

    def take(self) -> list[Part] | None:
        with self._lock:
            return None if self._stopped else next(self._batches, None)

    def stop(self) -> None:
        self._stopped = True


def _next(outcomes: _Outcomes, tick: Callable[[], None]) -> _Outcome | None:
    while True:
        try:
            return outcomes.get(timeout=WATCH_S)
        except Empty:
            tick()
