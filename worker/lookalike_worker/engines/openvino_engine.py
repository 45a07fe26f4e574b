"""The OpenVINO engine: the fastest on CPUs, and it needs no torch once the network is converted.

It keeps two compiled forms of one network. A lone search gets all cores for its one image. An ingest's batches go
several at a time through streams of a few cores each, which loses less to threads waiting for each other; that form
is compiled when the first full round comes, so that a search worker seldom pays for it. The figures are in
docs/decisions/0001-engines.md.
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

_STREAM_IMAGES: Final = 4  #: Images per stream and request; more is no faster, and makes a round longer.
_MAX_STREAMS: Final = 8  #: A machine with more cores than this gives each stream several.
_HINTS: Final = {Precision.FP32: "f32", Precision.BF16: "bf16"}


class OpenVINOEngine:
    """A network run by OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, model_file: Path, choice: Choice, hardware: Hardware, *, batch_images: int = 0) -> None:
        """Compile the network that `convert` saved. 0 for `batch_images` takes a fitting one."""
        self.device = f"{choice.device} ({hardware.cpu})"
        self.precision = choice.precision.value
        self._model_file = model_file
        self._core = ov.Core()
        self._properties = {
            "INFERENCE_PRECISION_HINT": _HINTS[choice.precision],
            "INFERENCE_NUM_THREADS": hardware.cores,
            # A search worker and an ingest worker share the cores; pinned threads would meet on the same ones.
            "ENABLE_CPU_PINNING": False,
        }
        if choice.precision is Precision.BF16 and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise SetupError(f"OpenVINO does not compute in bf16 on {hardware.cpu}. Set LOOKALIKE_PRECISION=fp32.")
        self._single = self._compile(1, {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}).create_infer_request()
        self._dim = self._one(np.zeros((1, 224, 224, 3), np.uint8)).shape[1]
        self._queue: ov.AsyncInferQueue | None = None
        self._streams = min(hardware.cores, _MAX_STREAMS)
        self._round = self._streams * _STREAM_IMAGES
        self.batch_images = batch_images or 2 * self._round

    def embed(self, images: Pixels) -> Vectors:
        """Embed a batch; see `Engine`."""
        vectors = np.empty((len(images), self._dim), np.float32)
        begin = len(images) // self._round * self._round
        if begin:
            self._embed_rounds(np.ascontiguousarray(images[:begin]), vectors)
        # What does not fill a round is soonest done one by one, each on all cores.
        for index in range(begin, len(images)):
            vectors[index : index + 1] = self._one(images[index : index + 1])
        return vectors

    def _compile(self, images: int, properties: dict[str, Any]) -> ov.CompiledModel:
        model = self._core.read_model(self._model_file)
        model.reshape([images, 224, 224, 3])
        return self._core.compile_model(model, "CPU", {**self._properties, **properties})

    def _one(self, image: Pixels) -> Vectors:
        self._single.infer([np.ascontiguousarray(image)], share_inputs=True)
        result: Vectors = self._single.get_output_tensor(0).data
        return result

    def _embed_rounds(self, images: Pixels, vectors: Vectors) -> None:
        """Embed whole rounds of all streams into the first of `vectors`."""
        if self._queue is None:
            compiled = self._compile(_STREAM_IMAGES, {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams})
            self._queue = ov.AsyncInferQueue(compiled, self._streams)

        def keep(request: ov.InferRequest, begin: int) -> None:
            vectors[begin : begin + _STREAM_IMAGES] = request.get_output_tensor(0).data

        self._queue.set_callback(keep)
        for begin in range(0, len(images), _STREAM_IMAGES):
            self._queue.start_async([images[begin : begin + _STREAM_IMAGES]], begin, share_inputs=True)
        self._queue.wait_all()
