"""One HTTP connection to a service: retries, problem documents turned back into errors, answers into records.

Knows HTTP and nothing of ingests, searches or jobs. `Wire` has the rules, which `AsyncConnection` goes by as well;
`Connection` sends, and is safe to use from several threads.
"""

import ipaddress
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from pydantic import BaseModel

from lookalike.client.arriving import Arriving
from lookalike.errors import (
    IdempotencyConflict,
    InvalidParameter,
    LookalikeError,
    PayloadTooLarge,
    ServiceUnreachable,
    error_classes,
)

R = TypeVar("R", bound=BaseModel)

_BUSY: Final = frozenset({429, 503})  #: The service's own answers that may be better in a moment.
_GATEWAY: Final = frozenset({502, 503, 504})  #: What a proxy answers while the service behind it is away.
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
#: How long a service that never answered is tried: a mistyped address should not take half a minute to be noticed.
_FIRST_CONTACT_S: Final = 1.5
_SILENCE_S: Final = 3.0  #: Who waits longer than this for repetitions is told of them.


class Repeat(Enum):
    """When a request may be sent again."""

    ALWAYS = auto()  #: Reading, or carrying an Idempotency-Key: doing it twice is doing it once.
    UNSENT = auto()  #: Only where the service cannot have acted on it.


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, in a form that can be sent again."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None  #: A body as it is.
    data: Mapping[str, Any] | None = None  #: Form fields of a multipart request.
    files: list[tuple[str, Any]] | None = None
    repeat: Repeat = Repeat.ALWAYS
    hold_s: float = 0.0  #: The service may hold its answer back this long, beyond the usual time.
    patience_s: float | None = None  #: How long to try again; None takes the connection's `timeout_s`.
    #: What errors of a class are about, to begin their sentence with; an empty text takes the service's name for it.
    about: Mapping[type[LookalikeError], str] = field(default_factory=dict)


class Wire:
    """What sending has to know: how a call is laid out, what its outcome means, and when it is sent again."""

    def __init__(
        self, url: str, *, api_key: str | None, timeout_s: float, on_retry: Callable[[], None] | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._on_retry = on_retry  # None also once it was called.
        self._answered = False
        try:
            base = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise InvalidParameter(f"{url!r} is not a URL. One looks like http://127.0.0.1:8000.") from error
        if base.scheme not in {"http", "https"} or not base.host:
            raise InvalidParameter(f"{url!r} is not a URL of a service. One looks like http://127.0.0.1:8000.")
        self.is_local = _is_loopback(base.host)
        self._options: dict[str, Any] = {
            "base_url": base,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "timeout": timeout_s,
            # A proxy from the environment cannot reach this machine's loopback.
            "trust_env": not self.is_local,
        }

    def _arguments(self, call: Call) -> dict[str, Any]:
        return {
            "params": dict(call.params),
            "headers": dict(call.headers),
            "json": call.json,
            "content": call.content,
            "data": call.data,
            "files": call.files,
            "timeout": httpx2.Timeout(self._timeout_s, read=self._timeout_s + call.hold_s),
        }

    def _pauses(self, call: Call) -> "_Pauses":
        return _Pauses(self, call, time.monotonic())

    def _patience_s(self, call: Call) -> float:
        patience_s = self._timeout_s if call.patience_s is None else call.patience_s
        return patience_s if self._answered else min(patience_s, _FIRST_CONTACT_S)

    def _read(self, record: type[R], answer: httpx2.Response) -> R:
        try:
            # A newer service may have added fields; the contract is that it renames none.
            return record.model_validate(answer.json(), extra="ignore")
        except ValueError as error:
            raise self._stranger(answer) from error

    def _tell_retry(self) -> None:
        told, self._on_retry = self._on_retry, None
        if told:
            told()

    def _judge(
        self, call: Call, outcome: httpx2.Response | httpx2.TransportError
    ) -> tuple[LookalikeError, bool, float]:
        """Say what went wrong, whether to send the call again, and the pause the service asked for."""
        if isinstance(outcome, httpx2.TransportError):
            unsent = isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout)
            error = self._unreachable(outcome)
            error.__cause__ = outcome
            return error, unsent or call.repeat is Repeat.ALWAYS, 0.0
        problem = self._problem(call, outcome)
        busy = _GATEWAY if isinstance(problem, ServiceUnreachable) else _BUSY
        # 422 is a key used for something else; 409 says that the first sending is still in work.
        in_flight = problem.code == IdempotencyConflict.code and outcome.status_code == 409
        return problem, outcome.status_code in busy or in_flight, _retry_after_s(outcome)

    def _unreachable(self, cause: httpx2.TransportError) -> ServiceUnreachable:
        if isinstance(cause, httpx2.TimeoutException):
            return ServiceUnreachable(f"The service at {self.url} did not answer within {self._timeout_s:g} seconds.")
        return ServiceUnreachable(
            f"No lookalike service answers at {self.url} ({str(cause) or type(cause).__name__}). "
            "Start one with `lookalike up`, or name another with --url."
        )

    def _problem(self, call: Call, answer: httpx2.Response) -> LookalikeError:
        try:
            problem = answer.json()
            code, detail = str(problem["code"]), str(problem.get("detail") or problem.get("title") or problem["code"])
        except (ValueError, KeyError, TypeError, AttributeError):
            # A proxy before the service has a limit of its own.
            return PayloadTooLarge() if answer.status_code == 413 else self._stranger(answer)
        error = error_from(code, detail)
        name = next((name or problem.get("name") for cls, name in call.about.items() if isinstance(error, cls)), None)
        if name and name not in detail:
            error = error_from(code, f"{name}: {detail}")
        if answer.status_code == 500 and problem.get("request_id"):
            error.add_note(f"The service's log has the details under request id {problem['request_id']}.")
        return error

    def _stranger(self, answer: httpx2.Response) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"What answers at {self.url} is not a lookalike service of a version that this client knows "
            f"({answer.request.method} {answer.request.url.path}: HTTP {answer.status_code})."
        )


class _Pauses:
    """The pauses between the sendings of one call."""

    def __init__(self, wire: Wire, call: Call, began_s: float) -> None:
        self._wire = wire
        self._call = call
        self._began_s = began_s
        self._pause_s = _FIRST_PAUSE_S

    def after(self, outcome: httpx2.Response | httpx2.TransportError) -> float:
        """Return the seconds to wait before the call is sent again; raises what went wrong where it is not to be."""
        error, again, asked_s = self._wire._judge(self._call, outcome)
        wait_s = max(self._pause_s, asked_s)
        waited_s = time.monotonic() - self._began_s + wait_s
        if not again or waited_s > self._wire._patience_s(self._call):
            raise error
        if waited_s > _SILENCE_S:
            self._wire._tell_retry()
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return wait_s


class Connection(Wire):
    """Sends calls to one service."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        timeout_s: float,
        transport: httpx2.BaseTransport | None = None,
        on_retry: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(url, api_key=api_key, timeout_s=timeout_s, on_retry=on_retry)
        self._http = httpx2.Client(**self._options, transport=transport)

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()

    def fetch(self, record: type[R], call: Call) -> R:
        """Send a call and read its answer as a record."""
        return self._read(record, self.send(call))

    def send(self, call: Call) -> httpx2.Response:
        """Send a call until it is answered for good or patience is over; raises what a problem document says."""
        pauses = self._pauses(call)
        while True:
            outcome = self._try(call)
            if isinstance(outcome, httpx2.Response) and outcome.is_success:
                return outcome
            time.sleep(pauses.after(outcome))

    def save(self, call: Call, path: Path) -> None:
        """Write the body of an answer to a file as it comes: it may be larger than memory.

        Goes on where it was interrupted, in this call or in an earlier one. Raises as `send` does.
        """
        arriving = Arriving(path)
        pauses = self._pauses(call)
        while True:
            before = arriving.size
            outcome = self._receive(call, arriving)
            if outcome is None:
                return
            if arriving.size > before:
                pauses = self._pauses(call)
            time.sleep(pauses.after(outcome))

    def _receive(self, call: Call, arriving: Arriving) -> httpx2.Response | httpx2.TransportError | None:
        """Ask for what is missing of a file; returns what went wrong, None where it is whole now."""
        headers = {**call.headers, **arriving.headers()}
        try:
            with self._http.stream(call.method, call.path, params=dict(call.params), headers=headers) as answer:
                self._answered = True
                if answer.is_success:
                    arriving.take(answer)
                    return None
                answer.read()
        except httpx2.TransportError as error:
            return error
        if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE and arriving.size:
            arriving.discard()  # It is no beginning of what is there.
            return self._receive(call, arriving)
        return answer

    def probe(self, path: str) -> dict[str, Any]:
        """Ask once for a JSON object that comes with whatever status; raises `ServiceUnreachable`."""
        answer = self._try(Call(method="GET", path=path))
        if isinstance(answer, httpx2.TransportError):
            raise self._unreachable(answer) from answer
        try:
            return dict(answer.json())
        except (ValueError, TypeError) as error:
            raise self._stranger(answer) from error

    def _try(self, call: Call) -> httpx2.Response | httpx2.TransportError:
        try:
            answer = self._http.request(call.method, call.path, **self._arguments(call))
        except httpx2.TransportError as error:
            return error
        self._answered = True
        return answer


def submit_key() -> dict[str, str]:
    """Return the header under which a submit may be repeated."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def error_from(code: str, message: str) -> LookalikeError:
    """Turn a received code back into an error of its class; a code from a newer service stays on the base class."""
    known = error_classes().get(code)
    if known is not None:
        return known(message)
    error = LookalikeError(message)
    # On the instance: a class for it would join the tree of codes that this version knows.
    vars(error)["code"] = code
    return error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _retry_after_s(answer: httpx2.Response) -> float:
    """Read Retry-After in seconds. The other form, a date, needs the service's clock; our own pauses serve there."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
