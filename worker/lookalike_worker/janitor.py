"""The janitor: removes search uploads whose jobs have expired."""

import logging
import threading
from typing import Final

from lookalike.uploads import UploadStore

log = logging.getLogger(__name__)

_EVERY_S: Final = 3600.0
_SLACK_S: Final = 3600.0  # An upload is older than the end of its job, from which the job's time to live counts.


class Janitor(threading.Thread):
    """Cleans up at its start and then every hour, until stopped."""

    def __init__(self, uploads: UploadStore, *, keep_s: float) -> None:
        super().__init__(name="janitor", daemon=True)
        self._uploads = uploads
        self._keep_s = keep_s
        self._stopped = threading.Event()

    def run(self) -> None:
        """Remove what is old enough until `stop`."""
        while True:
            try:
                removed = self._uploads.expire_queries(self._keep_s + _SLACK_S)
            except OSError as error:
                log.warning("old search uploads could not be removed: %s", error)
            else:
                if removed:
                    log.info("removed %d old search uploads", removed)
            if self._stopped.wait(_EVERY_S):
                return

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()
