"""`lookalike up --detach`: a supervisor in a session of its own, followed until it is ready.

The launching process reads what the supervisor says from a pipe, one JSON object per line; `__main__.py` writes it.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, TextIO

from lookalike.errors import LookalikeError, SetupError, StartFailed, error_classes
from lookalike.supervisor.environment import child_environment
from lookalike.supervisor.logs import LogFile
from lookalike.supervisor.options import Event, EventKind, UpOptions
from lookalike.supervisor.supervisor import INTERRUPTED


def launch(options: UpOptions) -> int:
    """Start a detached supervisor; returns 0 when it is ready. Raises what it raised where it does not get there."""
    settings = options.settings
    log = LogFile(settings.data_dir / "logs" / "supervisor.log")
    try:
        output = log.open()
    except OSError as error:
        raise SetupError(
            f"The data folder {settings.data_dir} cannot be used: {error.strerror}. Choose another with --data-dir."
        ) from error
    reader, writer = os.pipe()
    try:
        # The process started here only forks and ends, so that the supervisor belongs to init and to no terminal.
        subprocess.run(  # noqa: S603 - our own module
            _command(options, writer),
            env=child_environment(settings, without=_not_given(options)),
            cwd=settings.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(output)
        os.close(writer)
    with os.fdopen(reader) as lines:
        return _Launch(options, log).follow(lines)


def _command(options: UpOptions, writer: int) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "lookalike.supervisor", "--events-fd", str(writer)),
        *("--ingest-workers", str(options.ingest_workers), "--search-workers", str(options.search_workers)),
    )


def _not_given(options: UpOptions) -> tuple[str, ...]:
    """Name the servers that are to be started; as a setting, a default would look like a server to use."""
    given = {"redis_url": options.redis_url, "milvus_uri": options.milvus_uri}
    return tuple(name for name, value in given.items() if value is None)


class _Launch:
    """What the launching process knows of the supervisor it started."""

    def __init__(self, options: UpOptions, log: LogFile) -> None:
        self._options = options
        self._log = log
        self._pid = 0
        self._interrupted = False
        self._error: LookalikeError | None = None

    def follow(self, lines: TextIO) -> int:
        while True:
            try:
                for line in lines:
                    if self._take(json.loads(line)):
                        return 0
                break
            except KeyboardInterrupt:
                self._interrupted = True
                if self._pid:
                    with suppress(ProcessLookupError):
                        os.kill(self._pid, signal.SIGTERM)
        if self._interrupted:
            return INTERRUPTED
        if self._error:
            raise self._error
        raise StartFailed(f"The supervisor ended before it was ready. Its log may say why: {self._log.path}")

    def _take(self, said: dict[str, Any]) -> bool:
        """Take in one line; returns whether the stack is ready."""
        match said:
            case {"pid": int(pid)}:
                self._pid = pid
            case {"error": str(code), "message": str(message)}:
                self._error = error_classes().get(code, SetupError)(message)  # Raised once its pipe ends, as it does.
            case {"kind": str(kind), "message": str(message)}:
                self._options.on_event(Event(EventKind(kind), message))
                return kind == EventKind.READY
        return False


class Reporter:
    """The supervisor's end of that pipe: closed once the stack is ready, else with the supervisor's end."""

    def __init__(self, handle: int) -> None:
        self._file: TextIO | None = os.fdopen(handle, "w", buffering=1)
        self._say({"pid": os.getpid()})

    def event(self, event: Event) -> None:
        """Pass an event on."""
        self._say({"kind": event.kind, "message": event.message})
        if event.kind is EventKind.READY:
            self._close()

    def error(self, error: LookalikeError) -> None:
        """Pass on why the start failed."""
        self._say({"error": error.code, "message": error.message})

    def _close(self) -> None:
        if self._file:
            with suppress(BrokenPipeError):
                self._file.close()
            self._file = None

    def _say(self, what: dict[str, Any]) -> None:
        if self._file:
            with suppress(BrokenPipeError):  # It was ended while it waited; the stack starts all the same.
                self._file.write(json.dumps(what) + "\n")
