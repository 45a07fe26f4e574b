"""Weights: where they come from, finding or fetching them, and reading them into a network.

Torchvision's weights are downloaded within a deadline and checked against the hash in their name; a file of the user's
is read without ever running code that is in it.
"""

import hashlib
import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from lookalike.errors import SetupError, WeightsNotFound
from lookalike.settings import UNTRAINED, Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

_SUFFIXES: Final = (".pth", ".pt", ".safetensors")
_NEXT_STEP: Final = "Set LOOKALIKE_WEIGHTS to a .pth or .safetensors file, or to `untrained`."


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the setting `weights` means."""

    label: str  #: As the model's record shows it.
    file: Path | None = None  #: A file of the user's.

    @property
    def untrained(self) -> bool:
        """Whether the seeded network was asked for."""
        return self.label == UNTRAINED

    def identity(self) -> str:
        """Return text that is another as soon as the weights may be others. Raises `WeightsNotFound`."""
        if self.file is None:
            return self.label
        try:
            facts = self.file.stat()
        except OSError as error:
            raise WeightsNotFound(
                f"The weights file {self.file} cannot be read: {error.strerror}. {_NEXT_STEP}"
            ) from error
        return f"{self.file.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}"


def source_of(settings: Settings) -> Source:
    """Tell a file from a name: a file has a known ending, or a slash."""
    value = settings.weights
    if value.endswith(_SUFFIXES) or "/" in value:
        file = Path(value).expanduser()
        return Source(label=file.name, file=file)
    return Source(label=value)


def fetch(settings: Settings, label: str) -> str:
    """Have torchvision's weights lie where `network.build` finds them, if need be by a download within
    `weights_timeout_s`; returns their full name, which `label` may be an alias of.

    Raises `WeightsNotFound` where that fails, and `SetupError` where torchvision knows no such weights.
    """
    from torchvision import models

    try:
        known = models.get_model_weights(settings.model).verify(label)
    except (KeyError, ValueError) as error:
        raise SetupError(
            f"torchvision has no weights `{label}` for a network `{settings.model}`, and there is no such file: "
            f"a file's name ends in {', '.join(_SUFFIXES)}. {_NEXT_STEP}"
        ) from error
    url = str(known.url)
    # torch.hub, with our folder as its own, looks here; so a file put here by hand is found.
    target = settings.models_dir / "checkpoints" / Path(urlsplit(url).path).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        download(url, target, timeout_s=settings.weights_timeout_s)
    verify(target)
    return str(known.name)


def download(url: str, target: Path, *, timeout_s: float) -> None:
    """Download a file and check its hash, all of it within the time given. Raises `WeightsNotFound`.

    The work is a thread's, since neither name resolution nor a slow server can be bounded otherwise. One that is late
    is left behind: it ends with the process, which has nothing to do without weights.
    """
    outcome: SimpleQueue[Exception | None] = SimpleQueue()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        part = Path(folder) / target.name
        threading.Thread(target=_download, args=(url, part, outcome), name="weights", daemon=True).start()
        try:
            error = outcome.get(timeout=timeout_s)
        except Empty:
            error = TimeoutError(f"not done after {timeout_s:g} seconds")
        if error is not None:
            raise WeightsNotFound(f"The weights could not be downloaded from {url}: {error}. {_NEXT_STEP}") from error
        part.replace(target)


def _download(url: str, part: Path, outcome: "SimpleQueue[Exception | None]") -> None:
    from torch import hub

    try:
        # The name ends in the first digits of the file's sha256, as in resnet50-0676ba61.pth.
        match = hub.HASH_REGEX.search(part.name)
        hub.download_url_to_file(url, str(part), hash_prefix=match.group(1) if match else None, progress=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, the thread that waits reports it
        outcome.put(error)
    else:
        outcome.put(None)


def load_file(network: "nn.Module", head: str, file: Path) -> None:
    """Read a state dict into a network whose layer `head` was cut off; the file may have that layer or not.

    Raises `WeightsNotFound` where there is no such file, `SetupError` where it does not fit the network.
    """
    given = {name: tensor for name, tensor in _read(file).items() if not name.startswith(f"{head}.")}
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # Old files lack these.
    missing = sorted(wanted.keys() - counters - given.keys())
    unknown = sorted(given.keys() - wanted.keys())
    wrong = sorted(name for name in given.keys() & wanted.keys() if given[name].shape != wanted[name].shape)
    if missing or unknown or wrong:
        found = "; ".join(
            f"{len(names)} {what}, as `{names[0]}`"
            for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
            if names
        )
        raise SetupError(
            f"The weights file {file} does not fit this network. Of its tensors: {found}. "
            "Set LOOKALIKE_MODEL to the network it is for, or LOOKALIKE_WEIGHTS to a state dict of this one."
        )
    network.load_state_dict(given, strict=False)


def _read(file: Path) -> "Mapping[str, Tensor]":
    import torch
    from safetensors.torch import load_file as load_safetensors

    try:
        if file.suffix == ".safetensors":
            return load_safetensors(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsNotFound(f"There is no weights file {file}. {_NEXT_STEP}") from error
    except OSError as error:
        raise SetupError(f"The weights file {file} cannot be read: {error.strerror or error}. {_NEXT_STEP}") from error
    except Exception as error:  # noqa: BLE001 - bytes of any kind make the readers raise errors of any kind
        # What torch says advises to load the file unsafely, so it stays out of the answer, its chain and ordinary logs.
        log.debug("The weights file %s was refused: %s", file, error)
        raise SetupError(
            f"{file} is not a weights file that can be read safely. "
            "Give a state dict saved by torch (.pth) or safetensors."
        ) from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise SetupError(
            f"The weights file {file} holds something else than a state dict. Save one with: "
            "torch.save(network.state_dict(), PATH)."
        )
    return content


def verify(file: Path) -> None:
    """Check a file of torchvision's against the hash in its name. Raises `SetupError`."""
    from torch import hub

    match = hub.HASH_REGEX.search(file.name)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if match and not digest.startswith(match.group(1)):
        raise SetupError(f"The weights file {file} is damaged: its hash is not the one in its name. Delete it.")
