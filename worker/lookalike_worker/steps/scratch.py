"""Scratch: what one step of a job leaves for the next that is too large for the checkpoint.

It lies beside the files of the job, is not among them, and goes with them. Each step writes under a number of its own
and reads that of the step before: one that is done twice begins from the same.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.uploads.space import full_disk_refused
from lookalike_worker.context import Context

_PREFIX: Final = ".state-"  # No artifact can have such a name.
_INFO: Final = "info"

Arrays = dict[str, NDArray[Any]]


class Scratch:
    """The scratch of one job. Raises `InsufficientStorage` where the disk is full."""

    def __init__(self, context: Context, job_id: str) -> None:
        self._folder = context.settings.artifacts_dir / job_id

    def save(self, number: int, info: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Keep a JSON object and arrays, under a step's number; drops what only earlier steps needed."""
        text = np.frombuffer(json.dumps(info).encode(), np.uint8)
        with full_disk_refused():
            self._folder.mkdir(parents=True, exist_ok=True)
            fd, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".unfinished-")
            try:
                with os.fdopen(fd, "wb") as file:
                    np.savez(file, allow_pickle=False, **{_INFO: text, **(arrays or {})})
                Path(unfinished).replace(self._path(number))
            finally:
                Path(unfinished).unlink(missing_ok=True)
        self._path(number - 2).unlink(missing_ok=True)

    def load(self, number: int) -> tuple[dict[str, Any], Arrays]:
        """Return what was kept under a number."""
        with np.load(self._path(number), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(arrays.pop(_INFO).tobytes()), arrays

    def clear(self, number: int) -> None:
        """Drop all but what this step needs, should it be done again."""
        self._path(number - 1).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{_PREFIX}{number:06}"
