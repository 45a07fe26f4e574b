"""`up`, `down` and `status`, as functions."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lookalike.errors import NotRunning, SetupError, WeightsNotFound
from lookalike.supervisor.detaching import launch
from lookalike.supervisor.leftovers import end_leftovers
from lookalike.supervisor.options import UpOptions
from lookalike.supervisor.servers import require_port
from lookalike.supervisor.stack import StackPlanner, require_extras
from lookalike.supervisor.state import RunFolder, Status
from lookalike.supervisor.supervisor import Supervisor

_STOP_TIMEOUT_S = 60.0  # All stop graces together.
_KILL_TIMEOUT_S = 20.0
_EXIT_TIMEOUT_S = 5.0
_EXIT_POLL_S = 0.02
_WEIGHTS_SUFFIXES = {".pth", ".pt", ".safetensors"}


def up(options: UpOptions) -> int:
    """Run the stack until it is told to stop; detached, return 0 once it is ready.

    Returns the exit status: 0, or 130 where it was stopped before it was ready. Raises `SetupError` or a subclass
    where it cannot start; nothing is left running then. To be called from the main thread.
    """
    options = _absolute(options)
    _require_weights_file(options.settings.weights)
    return launch(options) if options.detach else run(options, ignore_hangup=False)


def run(options: UpOptions, *, ignore_hangup: bool) -> int:
    """Supervise in this process."""
    settings = options.settings
    require_extras(options)
    folder = RunFolder(settings.data_dir)
    with folder.locked():
        end_leftovers(folder)
        require_port(settings.host, settings.port)
        plan = StackPlanner(options).plan()
        return Supervisor(plan, folder, on_event=options.on_event, ignore_hangup=ignore_hangup).run()


def _require_weights_file(weights: str) -> None:
    """Say at once what every worker would say after seconds. A name is theirs to look up."""
    file = Path(weights).expanduser()
    if (os.sep in weights or file.suffix in _WEIGHTS_SUFFIXES) and not file.is_file():
        raise WeightsNotFound(
            f"There is no weights file {weights}. Set LOOKALIKE_WEIGHTS to a .pth or .safetensors file, "
            "to a name of torchvision's, or to `untrained`."
        )


def _absolute(options: UpOptions) -> UpOptions:
    """Children run in the data folder, so that relative paths would mean something else to them."""
    settings = options.settings
    changes: dict[str, object] = {"roots": tuple(root.absolute() for root in settings.roots)}
    if Path(settings.weights).is_file():
        changes["weights"] = str(Path(settings.weights).absolute())
    return replace(options, settings=settings.model_copy(update=changes))


def down(data_dir: Path) -> int:
    """Stop the stack of a data folder and wait until it is gone; returns 0. Raises `NotRunning`.

    A supervisor that does not stop in time is killed, and its watchman ends the rest.
    """
    folder = RunFolder(data_dir)
    pid = folder.lock.holder()
    if pid is None:
        if end_leftovers(folder):
            return 0
        raise NotRunning(f"No lookalike runs on the data folder {data_dir}. Start one with `lookalike up`.")
    for signum, timeout_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, _KILL_TIMEOUT_S)):
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        if folder.lock.wait_free(timeout_s) and folder.watch_lock.wait_free(_KILL_TIMEOUT_S):
            if pid:
                _wait_until_gone(pid)
            return 0
        pid = folder.lock.holder()
    raise SetupError(f"The lookalike on {data_dir} (pid {pid}) could not be stopped. End that process by hand.")


def _wait_until_gone(pid: int) -> None:
    """Wait for the last moments of a process that has let its lock go: who calls `down` expects to find nothing."""
    import psutil  # An extra, and there wherever something was started.

    deadline = time.monotonic() + _EXIT_TIMEOUT_S
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(_EXIT_POLL_S)


def status(data_dir: Path) -> Status:
    """Tell what runs on a data folder. Raises `NotRunning`."""
    folder = RunFolder(data_dir)
    current = folder.current()
    if current is None:
        raise NotRunning(f"No lookalike runs on the data folder {data_dir}. Start one with `lookalike up`.")
    return current
