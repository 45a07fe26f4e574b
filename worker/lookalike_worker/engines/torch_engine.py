"""The torch engine: on CUDA in half precision, on a CPU wherever torch runs.

Batches have fixed shapes, so that cuDNN picks its kernels once: a batch is filled up to the next shape, and what the
padding gives is cut off. Pixels go to the device as bytes, a quarter of what floats take, and are normalised there.
"""

from typing import Final

import numpy as np
import torch
from torch import nn

from lookalike.settings import Precision
from lookalike_worker.engines import Pixels, Vectors
from lookalike_worker.engines.choose import Choice
from lookalike_worker.engines.halving import fitting_batch
from lookalike_worker.engines.hardware import Hardware
from lookalike_worker.network import MEAN, STD

_CUDA_BATCH: Final = 128  #: Keeps a GPU busy, and is short enough that a search beside an ingest does not wait long.
_CUDA_LEAST: Final = 8
_CPU_BATCH: Final = 8  #: Larger ones are no faster on a CPU, and only take memory.
_DTYPES: Final = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}


class TorchEngine:
    """A network run by torch."""

    name = "torch"

    def __init__(self, network: nn.Module, choice: Choice, hardware: Hardware, *, batch_images: int = 0) -> None:
        """Move a network, which is then this engine's own, to its device. 0 for `batch_images` takes a fitting one."""
        self._device = torch.device(choice.device)
        self._on_gpu = self._device.type == "cuda"
        product = hardware.cuda[self._device.index or 0] if self._on_gpu else hardware.cpu
        self.device = f"{choice.device} ({product})"
        self.precision = choice.precision.value
        self._dtype = _DTYPES[choice.precision]
        if self._on_gpu:
            torch.backends.cudnn.benchmark = True
        else:
            torch.set_num_threads(hardware.cores)
        self._network = network.eval().to(self._device, self._dtype).to(memory_format=torch.channels_last)
        # A pixel's value is 0..255 here, so the 255 that the reference divides by is part of these.
        self._mean = torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1) * 255.0
        self._std = torch.tensor(STD, device=self._device).view(1, 3, 1, 1) * 255.0
        self.batch_images = batch_images or (_CUDA_LEAST if self._on_gpu else _CPU_BATCH)
        self._dim = self.embed(np.zeros((1, 224, 224, 3), np.uint8)).shape[1]
        if self._on_gpu and not batch_images:
            free_bytes, _ = torch.cuda.mem_get_info(self._device)
            self.batch_images = fitting_batch(free_bytes, self._bytes_per_image(), least=_CUDA_LEAST, most=_CUDA_BATCH)

    def embed(self, images: Pixels) -> Vectors:
        """Embed a batch; see `Engine`. Raises `torch.OutOfMemoryError`, which `Halving` answers."""
        if not len(images):
            return np.zeros((0, self._dim), np.float32)
        most = self.batch_images
        try:
            return np.concatenate(
                [self._forward(images[begin : begin + most]) for begin in range(0, len(images), most)]
            )
        except torch.OutOfMemoryError:
            if self._on_gpu:
                torch.cuda.empty_cache()
            raise

    @torch.inference_mode()
    def _forward(self, batch: Pixels) -> Vectors:
        size = self._shape(len(batch)) if self._on_gpu else len(batch)
        pixels = torch.zeros((size, *batch.shape[1:]), dtype=torch.uint8, pin_memory=self._on_gpu)
        pixels.numpy()[: len(batch)] = batch  # Copied, since torch takes no arrays that cannot be written to.
        pixels = pixels.to(self._device, non_blocking=True)
        # As (n, 3, 224, 224), rows of NHWC bytes are in the channels_last layout already.
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
        vectors: torch.Tensor = self._network(((planes - self._mean) / self._std).to(self._dtype))
        result: Vectors = vectors[: len(batch)].float().cpu().numpy()
        return result

    def _bytes_per_image(self) -> float:
        """Measure the GPU memory that an image of a batch takes on its way."""
        pixels = np.zeros((_CUDA_LEAST, 224, 224, 3), np.uint8)
        self._forward(pixels)  # The first one of a shape also takes what the search for kernels needs.
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._forward(pixels)
        return (torch.cuda.max_memory_allocated(self._device) - before) / _CUDA_LEAST

    def _shape(self, images: int) -> int:
        """Return the smallest shape that holds this many: 1, or the full batch halved until it is 8."""
        if images == 1:
            return 1
        shape = self.batch_images
        while shape > 8 and shape // 2 >= images:
            shape //= 2
        return shape
