"""The OpenVINO engine: the fastest on CPUs, and it needs no torch once the network is converted.

It keeps up to three compiled forms of one network. A lone image gets all cores. A few are embedded side by side, each
in a stream of a few cores, which loses less to threads waiting for each other. Full rounds go through as many streams
several images at a time, so that the weights are read less often; that form is compiled when the first round comes,
since a search worker seldom needs it. The figures are in docs/decisions/0011-speed-of-engines.md.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov

from lookalike.errors import SetupError
from lookalike.settings import Precision
from lookalike_worker.engines import Pixels, Vectors
from lookalike_worker.engines.choose import Choice
from lookalike_worker.engines.hardware import Hardware

_ROUND_IMAGES: Final = 4  #: Images per stream and request of a full round; more is no faster, and makes it longer.
_MAX_STREAMS: Final = 8  #: A machine with more cores than this gives each stream several.


class OpenVINOEngine:
    """A network run by OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, model_file: Path, choice: Choice, hardware: Hardware, *, batch_images: int = 0) -> None:
        """Compile the network that `convert` saved, and run it. 0 for `batch_images` takes a fitting one."""
        self.device = f"{choice.device} ({hardware.cpu})"
        self.precision = choice.precision.value
        self._model_file = model_file
        self._core = ov.Core()
        self._properties = {
            "INFERENCE_PRECISION_HINT": _hint(choice.precision, hardware),
            "INFERENCE_NUM_THREADS": hardware.cores,
            # A search worker and an ingest worker share the cores; pinned threads would meet on the same ones.
            "ENABLE_CPU_PINNING": False,
        }
        if choice.precision is Precision.BF16 and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise SetupError(f"OpenVINO does not compute in bf16 on {hardware.cpu}. Set LOOKALIKE_PRECISION=fp32.")
        self._lone = self._compile(1, {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}).create_infer_request()
        self._dim = self._one(np.zeros((1, 224, 224, 3), np.uint8)).shape[1]
        self._streams = min(hardware.cores, _MAX_STREAMS)
        self._queues: dict[int, ov.AsyncInferQueue] = {}  # By the images of one request.
        if self._streams > 1:  # Two searches come together at any time, and should not wait for a compiler.
            self._embed_streamed(1, np.zeros((1, 224, 224, 3), np.uint8), np.empty((1, self._dim), np.float32))
        self.batch_images = batch_images or 2 * self._streams * _ROUND_IMAGES

    def embed(self, images: Pixels) -> Vectors:
        """Embed a batch; see `Engine`."""
        images = np.ascontiguousarray(images)
        vectors = np.empty((len(images), self._dim), np.float32)
        rounds, waves = divide(len(images), self._streams)
        if rounds:
            self._embed_streamed(_ROUND_IMAGES, images[:rounds], vectors[:rounds])
        if waves:
            streamed = slice(rounds, rounds + waves)
            self._embed_streamed(1, images[streamed], vectors[streamed])
        for index in range(rounds + waves, len(images)):
            vectors[index : index + 1] = self._one(images[index : index + 1])
        return vectors

    def _compile(self, images: int, properties: dict[str, Any]) -> ov.CompiledModel:
        model = self._core.read_model(self._model_file)
        model.reshape([images, 224, 224, 3])
        return self._core.compile_model(model, "CPU", {**self._properties, **properties})

    def _one(self, image: Pixels) -> Vectors:
        self._lone.infer([image], share_inputs=True)
        result: Vectors = self._lone.get_output_tensor(0).data
        return result

    def _embed_streamed(self, per_request: int, images: Pixels, vectors: Vectors) -> None:
        """Embed images, so many in each request as divide them, in all streams at once."""
        if per_request not in self._queues:
            throughput = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
            self._queues[per_request] = ov.AsyncInferQueue(self._compile(per_request, throughput), self._streams)
        queue = self._queues[per_request]

        def keep(request: ov.InferRequest, begin: int) -> None:
            vectors[begin : begin + per_request] = request.get_output_tensor(0).data

        queue.set_callback(keep)
        for begin in range(0, len(images), per_request):
            queue.start_async([images[begin : begin + per_request]], begin, share_inputs=True)
        queue.wait_all()


def divide(images: int, streams: int) -> tuple[int, int]:
    """Say how many of a batch go in full rounds, and how many of the others side by side; the rest goes one by one."""
    rest = images % (streams * _ROUND_IMAGES)
    if streams == 1:
        return images - rest, 0
    # A wave that leaves half of the streams idle takes as long as its images do one by one on all cores, or longer.
    last = rest % streams
    return images - rest, rest if 2 * last > streams else rest - last


def _hint(precision: Precision, hardware: Hardware) -> str:
    """What the layers compute in that are not in integers."""
    integers = precision is Precision.INT8
    return "bf16" if precision is Precision.BF16 or (integers and hardware.computes_bf16) else "f32"
