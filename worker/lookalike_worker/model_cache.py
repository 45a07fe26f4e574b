"""What is kept of a network between starts: its record, and its converted form, so that a warm start needs no torch.

Everything is written aside and renamed into place, so that a reader sees the whole or nothing, whoever else writes.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from lookalike.records import ModelInfo


class ModelCache:
    """The part of the models folder that can be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def info(self, identity: str) -> ModelInfo | None:
        """Return the record kept for weights of this identity, if there is one."""
        try:
            return ModelInfo.model_validate_json(self._info_file(identity).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_info(self, identity: str, info: ModelInfo) -> None:
        """Keep a record."""
        file = self._info_file(identity)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as aside:
            aside.write(info.model_dump_json().encode())
            aside.flush()
            os.fsync(aside.fileno())
        Path(aside.name).replace(file)

    def converted(self, fingerprint: str) -> Path | None:
        """Return the converted network's file, if there is one."""
        file = self._converted_file(fingerprint)
        return file if file.exists() else None

    def keep_converted(self, fingerprint: str, save: Callable[[Path], None]) -> Path:
        """Have `save` write the converted network and the files beside it; returns its file."""
        file = self._converted_file(fingerprint)
        file.parent.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=file.parent.parent, prefix=".aside-"))
        try:
            save(aside / file.name)
            for written in aside.iterdir():
                with written.open("rb") as stream:
                    os.fsync(stream.fileno())
            aside.rename(file.parent)
        except OSError:
            if not file.exists():  # Else another was faster, and a folder that holds files is not replaced.
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # Gone already where it was renamed.
        return file

    def forget_converted(self, fingerprint: str) -> None:
        """Remove a converted network. A process that runs it keeps its hold on the files."""
        shutil.rmtree(self._converted_file(fingerprint).parent, ignore_errors=True)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Hold back others who would make the same things at the same time, until the block is done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _info_file(self, identity: str) -> Path:
        return self._folder / "records" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"

    def _converted_file(self, fingerprint: str) -> Path:
        return self._folder / "openvino" / fingerprint / "network.xml"
