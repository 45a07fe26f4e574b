"""Paying at a process' start what its first request would pay: imports, connections, decoders, collections in memory.

Nothing here is needed for a right answer, so nothing that fails here is more than a line in the log.
"""

import logging
import threading
import time
from collections.abc import Callable

from lookalike.decodepool import DecodePool
from lookalike.errors import ImageError, LookalikeError

log = logging.getLogger(__name__)


class WarmUp(threading.Thread):
    """Takes steps in the background, one after the other, once."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__(name="warm-up", daemon=True)
        self._steps = steps

    def run(self) -> None:
        """Take the steps; what cannot be warmed now is paid for by the first who needs it."""
        began_s = time.monotonic()
        for step in self._steps:
            try:
                step()
            except LookalikeError as error:
                log.info("not warmed up: %s", error)
            except Exception:  # Not what the process is there for; but a defect should be seen.
                log.exception("not warmed up")
        log.debug("warmed up in %.2f s", time.monotonic() - began_s)


def start_decoder(decoders: DecodePool) -> None:
    """Start a decoder ahead of its first image. Raises `SetupError` where none can be started."""
    try:
        decoders.probe("file:///").result()  # No image, which it finds out once it is there.
    except ImageError:
        return
