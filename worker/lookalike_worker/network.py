"""The network: a torchvision classification network without its classification layer, and the untrained one's values.

What an engine is given: a module from normalised floats (n, 3, 224, 224) to vectors (n, dim). Everything here needs
torch, so it is imported only where a network is built, not where a converted one is loaded.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torchvision import models

from lookalike.errors import SetupError

MEAN: Final = (0.485, 0.456, 0.406)  #: ImageNet's, of RGB in 0..1, as in torchvision's documentation of its weights.
STD: Final = (0.229, 0.224, 0.225)

_CALIBRATION_IMAGES: Final = 8
_RESIDUAL_GAIN: Final = 0.2  #: See `fill_untrained`.


def build(name: str, *, weights: str | None = None, hub_dir: Path | None = None) -> tuple[nn.Module, str]:
    """Build a network by torchvision's name and cut off its last layer; returns it and that layer's name.

    `weights` is torchvision's name for weights that lie in `hub_dir` already, as `weights.fetch` puts them there.
    Raises `SetupError`.
    """
    if name not in models.list_models(module=models):
        raise SetupError(
            f"torchvision has no classification network `{name}`. Set LOOKALIKE_MODEL to one of "
            "torchvision.models.list_models(module=torchvision.models), as in: resnet50."
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _hub_dir(hub_dir):
        warnings.simplefilter("ignore", FutureWarning)  # Two old networks announce a slow initialisation.
        torch.manual_seed(0)  # For what torchvision draws itself, so that a network is the same every time.
        network: nn.Module = models.get_model(name, weights=weights)
    head = _classification_layer(network)
    network.set_submodule(head, nn.Identity())
    return network.eval().requires_grad_(requires_grad=False), head


@contextmanager
def _hub_dir(folder: Path | None) -> Iterator[None]:
    """Have torch.hub use a folder for a while: networks read their weights through it, some in ways of their own."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(folder or before)
    try:
        yield
    finally:
        torch.hub.set_dir(before)


def _classification_layer(network: nn.Module) -> str:
    """Return the name of the last linear layer; SqueezeNet, which has none, classifies with its last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise SetupError("This network has no classification layer that could be removed. Set LOOKALIKE_MODEL=resnet50.")


def measure_dim(network: nn.Module) -> int:
    """Run one black image and return the length of its vector. Raises `SetupError` where the input does not fit."""
    try:
        with torch.inference_mode():
            return int(network(torch.zeros(1, 3, 224, 224)).shape[1])
    except (AssertionError, RuntimeError, IndexError) as error:
        raise SetupError(
            "This network with these weights does not take images of 224 x 224 pixels. Choose other weights."
        ) from error


def hash_weights(network: nn.Module) -> str:
    """Digest a network's tensors by name, shape and value, so that the file format they came in does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue  # A counter of training steps; old files lack it.
        values = tensor.detach().cpu().to(torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"{name}:{tuple(values.shape)};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def fill_untrained(network: nn.Module) -> None:
    """Give a network seeded values under which near-duplicates lie close together and other pictures do not.

    Torchvision's own initialisation puts all photographs within a cosine of 0.99 of each other. What helps, measured in
    docs/decisions/0001-engines.md: filters with a mean of zero, so that brightness alone changes little; smooth ones,
    so that shapes count more than grain; residual branches scaled down, so that a deep random network does not mix
    everything; batch norms calibrated on drawn pictures, so that each layer's values spread.
    """
    for name, parameter in network.named_parameters():
        values = parameter.data
        if name.endswith("bias"):
            values.zero_()
        elif values.ndim > 1 and bool(values.min() != values.max()):  # A constant is meant to be one.
            values.copy_(_draw_filters(name, values.shape))
    for module in network.modules():
        if isinstance(module, models.resnet.Bottleneck):
            nn.init.constant_(module.bn3.weight, _RESIDUAL_GAIN)
        elif isinstance(module, models.resnet.BasicBlock):
            nn.init.constant_(module.bn2.weight, _RESIDUAL_GAIN)
    _calibrate(network)


def _draw_filters(name: str, shape: torch.Size) -> torch.Tensor:
    """Draw filters with He's variance for rectifiers, 2 / fan-in (arXiv:1502.01852), smooth, and each of mean 0."""
    uniform = _generator(name).random_sample(shape.numel()).astype(np.float32)
    filters = torch.from_numpy(uniform).view(shape) * 2.0 - 1.0
    if len(shape) == 4:
        filters = _smooth(filters, times=shape[-1] // 2)
    fan_in = shape[1:].numel()
    if fan_in > 1:
        filters -= filters.mean(dim=tuple(range(1, len(shape))), keepdim=True)
    scaled: torch.Tensor = filters * ((2.0 / fan_in) ** 0.5 / filters.std())
    return scaled


def _smooth(filters: torch.Tensor, *, times: int) -> torch.Tensor:
    """Blur filters with a binomial kernel; those of one pixel stay as they are."""
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])).view(1, 1, 3, 3) / 16.0
    planes = filters.reshape(-1, 1, *filters.shape[2:])
    for _ in range(times):
        planes = nn.functional.conv2d(planes, kernel, padding=1)
    return planes.view(filters.shape)


def _calibrate(network: nn.Module) -> None:
    """Set the batch norms' running statistics by one pass over drawn pictures."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # Which means: the plain average of what is seen.
        norm.train()
    with torch.inference_mode():
        network(noise_pictures(_CALIBRATION_IMAGES))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def noise_pictures(count: int) -> torch.Tensor:
    """Draw coloured noise that is stronger the coarser it is, as photographs are: (n, 3, 224, 224), normalised."""
    generator = _generator("calibration")
    pictures = torch.zeros(count, 3, 224, 224)
    for cells, strength in ((2, 1.0), (7, 0.7), (28, 0.5), (112, 0.3)):
        grid = torch.from_numpy(generator.standard_normal((count, 3, cells, cells)).astype(np.float32))
        pictures += strength * nn.functional.interpolate(grid, size=224, mode="bilinear")
    return pictures


def _generator(name: str) -> np.random.RandomState:
    """Return a generator seeded by a name alone. `RandomState` is frozen: its stream stays the same (NEP 19)."""
    return np.random.RandomState(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
