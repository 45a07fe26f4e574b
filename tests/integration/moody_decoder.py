"""A decoder's child process that misbehaves for files of certain names, and is the real one for all others."""

import os
import time
from pathlib import Path
from typing import Any

from lookalike.decoder_child import Decoder, Reply, serve


class MoodyDecoder(Decoder):
    """Does to a file what its name says."""

    def answer(self, request: dict[str, Any]) -> Reply:
        name = request["uri"].rpartition("/")[2]
        if name.startswith("abort-once"):
            self._abort_once(name)
        elif name.startswith("abort"):
            os.abort()
        if name.startswith("hang"):
            time.sleep(600)
        if name.startswith("bug"):
            raise ZeroDivisionError("meant to be")
        return super().answer(request)

    def _abort_once(self, name: str) -> None:
        """Die of a file's first try, and leave a mark beside it."""
        mark = Path(self._sources.roots.folders[0]) / f"{name}.tried"
        if not mark.exists():
            mark.touch()
            os.abort()


if __name__ == "__main__":
    serve(MoodyDecoder)
