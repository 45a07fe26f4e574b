"""Put integers of 8 bits into a converted network's convolutions: post-training quantization, calibrated on pictures.

A `FakeQuantize` before a convolution and one on its weights says to OpenVINO that it may be computed in integers;
everything else keeps its format. Weights have a scale per output channel, activations one per tensor, chosen so that
the squared error over the calibration's pictures is the smallest. The first fifth of the convolutions, whose errors
every other layer inherits, stays as it is. What that brings, and what is left of the likeness to the reference, is in
docs/decisions/0011-speed-of-engines.md.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from lookalike.errors import SetupError
from lookalike_worker.engines import Pixels

_KEPT_SHARE: Final = 0.2  #: Of the convolutions, the first ones, not quantized.
_SAMPLES: Final = 2048  #: Values kept of each tensor and picture, to choose its range by.
_CLIPS: Final = np.linspace(0.3, 1.0, 36)  #: The parts of the largest value that are tried as a tensor's range.


def quantize(model: ov.Model, pictures: Pixels) -> None:
    """Quantize a network, as `convert` made it, in place. Raises `SetupError` where it has nothing to quantize."""
    convolutions = [node for node in model.get_ordered_ops() if _has_fixed_weights(node)]
    convolutions = convolutions[max(1, round(len(convolutions) * _KEPT_SHARE)) :]
    if not convolutions:
        raise SetupError("This network has no convolutions to compute in int8. Set LOOKALIKE_PRECISION=auto.")
    sources = {_key(node.input_value(0)): node.input_value(0) for node in convolutions}
    ranges = _measure(model, list(sources.values()), pictures)
    quantized = {key: _quantized_activation(source, ranges[key]) for key, source in sources.items()}
    for node in convolutions:
        node.input(0).replace_source_output(quantized[_key(node.input_value(0))])
        node.input(1).replace_source_output(_quantized_weights(node.input_value(1)))
    model.validate_nodes_and_infer_types()


def _has_fixed_weights(node: ov.Node) -> bool:
    return bool(node.get_type_name() == "Convolution" and node.input_value(1).get_node().get_type_name() == "Constant")


def _key(output: ov.Output) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


@dataclass
class _Seen:
    """What one tensor held over all pictures."""

    samples: list[NDArray[np.float32]] = field(default_factory=list)
    signed: bool = False
    most: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take one picture's."""
        flat = values.reshape(-1)
        self.signed = self.signed or bool(flat.min() < 0)
        self.most = max(self.most, float(np.abs(flat).max()))
        self.samples.append(flat[:: max(1, flat.size // _SAMPLES)].copy())

    def best_range(self) -> tuple[float, float]:
        """Return the range whose 256 steps have the smallest squared error."""
        values = np.concatenate(self.samples)
        highs = self.most * _CLIPS
        errors = [self._error(values, high) for high in highs]
        high = float(highs[int(np.argmin(errors))]) or 1.0
        return self._low(high), high

    def _low(self, high: float) -> float:
        return -high * 128 / 127 if self.signed else 0.0

    def _error(self, values: NDArray[np.float32], high: float) -> float:
        low = self._low(high)
        step = (high - low) / 255 or 1.0
        rounded = np.round(np.clip(values, low, high) / step) * step
        return float(np.square(rounded - values).sum())


def _measure(model: ov.Model, outputs: list[ov.Output], pictures: Pixels) -> dict[tuple[str, int], tuple[float, float]]:
    """Run the pictures through the network as it is, and return the range of each output."""
    probe = ov.Model(outputs, model.get_parameters(), "probe")
    compiled = ov.Core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = {_key(output): _Seen() for output in outputs}
    for picture in pictures:
        results = compiled([picture[None]])
        for index, one in enumerate(seen.values()):
            one.add(results[index])
    return {key: one.best_range() for key, one in seen.items()}


def _quantized_activation(source: ov.Output, bounds: tuple[float, float]) -> Any:
    low, high = (np.float32(bound) for bound in bounds)
    return ops.fake_quantize(source, low, high, low, high, 256).output(0)


def _quantized_weights(weights: ov.Output) -> Any:
    """Round weights to -127..127 steps, of a size of its own for each output channel."""
    values = weights.get_node().get_data()
    high = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    high = np.where(high > 0, high, 1.0).astype(np.float32)
    return ops.fake_quantize(weights, -high, high, -high, high, 255).output(0)
