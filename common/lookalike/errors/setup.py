"""What keeps the service's processes from starting."""

from lookalike.errors.base import LookalikeError


class SetupError(LookalikeError):
    """The service cannot start as configured."""

    code = "setup_error"


class WeightsNotFound(SetupError):
    """The model's weights are not there. Set LOOKALIKE_WEIGHTS to a .pth or .safetensors file, or to `untrained`."""

    code = "weights_not_found"


class MissingExtra(SetupError):
    """Parts of lookalike that this needs are not installed. Install them with: pip install 'lookalike[local]'."""

    code = "missing_extra"


class PortInUse(SetupError):
    """Another program listens on this port. Stop it, or choose another port with --port."""

    code = "port_in_use"


class DataFolderLocked(SetupError):
    """Another lookalike runs on this data folder. Stop it with `lookalike down`, or choose another with --data-dir."""

    code = "data_folder_locked"


class StartFailed(SetupError):
    """A process of the stack ended while it was starting. Its log, under `logs` in the data folder, says why."""

    code = "start_failed"


class NotRunning(SetupError):
    """No lookalike runs on this data folder. Start one with `lookalike up`."""

    code = "not_running"
