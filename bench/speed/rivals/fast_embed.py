"""fastembed, which runs networks in ONNX: its own ResNet50 model, with our weights in the place of those it downloads.

It embeds and does not store. A folder with `model.onnx` and `preprocessor_config.json` is all it reads.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from fastembed import ImageEmbedding

from lookalike_worker.network import MEAN, STD, build, fill_untrained

_MODEL: Final = "Qdrant/resnet50-onnx"
_BILINEAR: Final = 2  #: As Pillow and these files number it.
_PREPROCESSOR: Final = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": _BILINEAR,
    "do_center_crop": True,
    "crop_size": 224,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}


class FastEmbed:
    """fastembed with its defaults: batches of 16, and onnxruntime's own number of threads."""

    def __init__(self, models: Path) -> None:
        folder = models / "onnx-resnet50-untrained"
        if not (folder / "preprocessor_config.json").exists():
            _export(folder)
        self._model = ImageEmbedding(_MODEL, cache_dir=str(folder), specific_model_path=str(folder))

    def run(self, paths: Sequence[Path]) -> int:
        """See `Rival`."""
        return sum(1 for _ in self._model.embed(list(paths)))

    def close(self) -> None:
        """See `Rival`."""


def _export(folder: Path) -> None:
    """Write the network as fastembed reads it; the settings of the pictures go last, and stand for all of it."""
    network, _ = build("resnet50")
    fill_untrained(network)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter that needs no other package is called old.
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 224, 224),),
            str(folder / "model.onnx"),
            dynamo=False,
            input_names=["pixels"],
            output_names=["vectors"],
            dynamic_axes={"pixels": {0: "n"}, "vectors": {0: "n"}},
        )
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))
