"""Convert a torch network for OpenVINO and save it, with the normalisation inside: bytes in, vectors out.

OpenVINO's `convert_model` is not used: it reports each conversion to its makers over the network. The front end below
it is public as well, and does the same work.
"""

import warnings
from pathlib import Path

import openvino as ov
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor
from torch import nn

from lookalike_worker.network import MEAN, STD


def convert(network: nn.Module, file: Path) -> None:
    """Save a network as OpenVINO's .xml and .bin: (n, 224, 224, 3) bytes in, (n, dim) float32 out, n of any size."""
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
    ov.save_model(steps.build(), file, compress_to_fp16=False)  # Half floats would cost the parity in fp32.
