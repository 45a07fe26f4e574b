"""The tutorial's embedding, done again in the plainest way: what every engine is measured against.

"Image search with PyTorch and Milvus" embeds with a ResNet50 in fp32 whose last layer is removed, after Resize(256),
CenterCrop(224), ToTensor and ImageNet's Normalize. Nothing of ours is used here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.models import resnet50
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

PREPROCESS = Compose(
    [Resize(256), CenterCrop(224), ToTensor(), Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])]
)


def reference_network(weights_file: Path) -> nn.Module:
    """A ResNet50 with the weights of a .pth file and without its last layer."""
    network = resnet50(weights=None)
    network.load_state_dict(torch.load(weights_file, weights_only=True))
    return nn.Sequential(*list(network.children())[:-1], nn.Flatten()).eval()


def reference_embed(network: nn.Module, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Embed pictures, as (n, 2048) values that are not normalised."""
    inputs = [PREPROCESS(picture.convert("RGB")) for picture in pictures]
    with torch.inference_mode():
        rows = [network(torch.stack(inputs[begin : begin + 16])) for begin in range(0, len(inputs), 16)]
    result: NDArray[np.float32] = torch.cat(rows).numpy()
    return result
