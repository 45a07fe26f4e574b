"""The courier: sends the records of finished jobs to the addresses their senders gave, signed.

Every worker runs one, in a thread: deliveries are claimed from the job store, so any number may deliver at once. A slow
receiver holds up a few threads of its own and nothing else. The signature is that of the Standard Webhooks
specification (https://www.standardwebhooks.com), which most languages have a library for.
"""

import base64
import hashlib
import hmac
import logging
import ssl
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

from lookalike.errors import InvalidURL, LookalikeError, QueueUnavailable, URLBlocked
from lookalike.jobstore import JobStore, WebhookClaim
from lookalike.records import JobRecord
from lookalike.remote.addresses import Resolver, system_resolver
from lookalike.remote.http import Deadline, HTTPFetcher
from lookalike.remote.passing import Passing, pause_s
from lookalike.remote.politeness import NoTimetable
from lookalike.remote.urls import allowed_ports
from lookalike.settings import Settings

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 256 << 10  #: A record with a larger result is sent without it.

_EVERY_S: Final = 1.0
_AT_ONCE: Final = 4  #: Deliveries of one worker under way.
_TIMEOUT_S: Final = 10.0  #: One delivery.
_FIRST_PAUSE_S: Final = 10.0  #: Then it doubles: eight attempts take about twenty minutes.
_MAX_PAUSE_S: Final = 3600.0
_DELIVERED: Final = range(200, 300)
_GONE: Final = 410  #: The receiver's word that it wants no more.
_KEY_PREFIX: Final = "whsec_"  #: Of a secret that is written as the specification writes it, in base64.


class Courier(threading.Thread):
    """Delivers what is due, until stopped."""

    def __init__(  # noqa: PLR0913 - what it is given, its pace, and what tests put in the system's place
        self,
        jobs: JobStore,
        settings: Settings,
        *,
        every_s: float = _EVERY_S,
        timeout_s: float = _TIMEOUT_S,
        first_pause_s: float = _FIRST_PAUSE_S,
        resolve: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(name="courier", daemon=True)
        self._jobs = jobs
        self._secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        self._attempts = settings.webhook_attempts
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._http = HTTPFetcher(
            ports=allowed_ports(settings, private=settings.webhook_private),
            private=settings.webhook_private,
            redirects=0,
            timetable=NoTimetable(),  # A receiver asked to be told; the pauses between attempts are below.
            resolve=resolve,
            tls=tls,
        )
        self._stopped = threading.Event()
        self._free = threading.Semaphore(_AT_ONCE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook")

    def run(self) -> None:
        """Deliver until `stop`; an unreachable Redis is waited for, anything unexpected is logged and tried again."""
        if self._secret is None:
            return  # Nothing can be signed here. Deliveries wait for a worker that has the secret.
        while not self._stopped.is_set():
            try:
                self._begin_all(self._secret)
            except QueueUnavailable as error:
                log.warning("no webhooks are delivered: %s", error)
            except Exception:  # A courier that died would go unnoticed.
                log.exception("webhooks could not be looked for")
            self._stopped.wait(self._every_s)

    def stop(self) -> None:
        """End the thread; deliveries under way end within their time limit."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        self._threads.shutdown()

    def _begin_all(self, secret: str) -> None:
        """Begin every delivery that is due and that there is a thread for."""
        while self._free.acquire(blocking=False):
            claim = None
            try:
                claim = self._jobs.claim_webhook()
            finally:
                if claim is None:
                    self._free.release()
            if claim is None:
                return
            self._threads.submit(self._deliver, claim, secret).add_done_callback(partial(self._ended, claim))

    def _deliver(self, claim: WebhookClaim, secret: str) -> None:
        """Make one attempt at a delivery, and record what came of it."""
        try:
            error, again = self._send(claim, secret)
        except Passing as failure:
            error, again = failure.error.message, True
        except LookalikeError as failure:
            # Names, certificates and networks get mended; an address that is not to be talked to stays that.
            error, again = failure.message, not isinstance(failure, URLBlocked | InvalidURL)
        except Exception:  # It has to be recorded, or the delivery would be tried for ever.
            log.exception("the webhook of job %s failed unexpectedly", claim.record.id)
            error, again = "Something went wrong inside the service. Its log has the details.", True
        retry_in_s = None
        if again and claim.attempts < self._attempts:
            retry_in_s = pause_s(claim.attempts, first_s=self._first_pause_s, most_s=_MAX_PAUSE_S)
        if error:
            log.warning("the webhook of job %s failed at attempt %d: %s", claim.record.id, claim.attempts, error)
        self._jobs.end_webhook(claim, error=error, retry_in_s=retry_in_s)

    def _ended(self, claim: WebhookClaim, future: Future[None]) -> None:
        self._free.release()
        failure = future.exception()
        if failure:  # Its lease runs out, and it is delivered once more then.
            log.error("the webhook of job %s could not be recorded", claim.record.id, exc_info=failure)

    def _send(self, claim: WebhookClaim, secret: str) -> tuple[str | None, bool]:
        """Send; returns what went wrong, and whether another attempt is worth it. Raises as a fetch does."""
        body, timestamp = body_of(claim.record), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": claim.record.id,  # One message a job: who has seen it drops it.
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, claim.record.id, timestamp, body),
        }
        status = self._http.post(claim.url, Deadline(self._timeout_s), headers, body)
        if status in _DELIVERED:
            return None, False
        return f"The receiver answered with HTTP status {status}.", status != _GONE


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the `webhook-signature` header: `v1,` and a base64 HMAC-SHA256."""
    key = base64.b64decode(secret.removeprefix(_KEY_PREFIX)) if secret.startswith(_KEY_PREFIX) else secret.encode()
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def body_of(record: JobRecord) -> bytes:
    """Return a job's record as its own address answers it, without a result that is too large for a message."""
    shown = record.model_copy(update={"links": {"self": f"/v1/jobs/{record.id}"}})
    body = shown.model_dump_json().encode()
    if len(body) > MAX_BODY_BYTES:
        body = shown.model_copy(update={"result": None}).model_dump_json().encode()
    return body
