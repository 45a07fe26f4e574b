"""Convert a torch network for OpenVINO and save it, with the normalisation inside: bytes in, vectors out.

OpenVINO's `convert_model` is not used: it reports each conversion to its makers over the network. The front end below
it is public as well, and does the same work.
"""

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import openvino as ov
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor
from torch import nn

from lookalike.decode import preprocess
from lookalike.gallery import STYLES, draw_picture
from lookalike_worker.engines import Pixels
from lookalike_worker.network import MEAN, STD, noise_pictures
from lookalike_worker.quantize import quantize

_DRAWN_PER_STYLE: Final = 3
_NOISE_PICTURES: Final = 12


def convert(network: nn.Module, file: Path, *, quantized: bool = False) -> None:
    """Save a network as OpenVINO's .xml and .bin: (n, 224, 224, 3) bytes in, (n, dim) float32 out, n of any size.

    A quantized one computes most of its layers in int8. Raises `SetupError` where the network has no such layers.
    """
    model = _converted(network)
    if quantized:
        quantize(model, _calibration_pictures())
    ov.save_model(model, file, compress_to_fp16=False)  # Half floats would cost the parity in fp32.


def _converted(network: nn.Module) -> ov.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The front end traces, which torch calls deprecated, and warns of branches.
        decoder = TorchScriptPythonDecoder(network, example_input=torch.zeros(1, 3, 224, 224))
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    model.reshape([-1, 3, 224, 224])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    pixel = (
        255.0  # The reference divides by it; here the bytes stay as they are, and what they are compared with grows.
    )
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean([m * pixel for m in MEAN]).scale(
        [s * pixel for s in STD]
    )
    return steps.build()


def _calibration_pictures() -> Pixels:
    """Draw pictures to choose the ranges of int8 by: a part of the gallery, and noise, which reaches further."""
    drawn = [preprocess(draw_picture(style, number)) for style in STYLES for number in range(_DRAWN_PER_STYLE)]
    planes = noise_pictures(_NOISE_PICTURES).permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)
    noise = (planes.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.concatenate([np.stack(drawn), noise])
