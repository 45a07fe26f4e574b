"""Ray Data's batch inference: files through `map_batches` with a torch network in each of Ray's processes.

It embeds and does not store. Ray is started on loopback, tells nobody of its use, and keeps its processes from run to
run, so the time to load the network is paid by the first, which is not measured.
"""

import io
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

from lookalike_worker.network import MEAN, STD
from shared.machine import cores

_BATCH: Final = 32
_OFFLINE: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class RayData:
    """Reads, transforms and embeds in as many processes as there are cores, each with one thread."""

    def __init__(self, models: Path) -> None:
        os.environ.update(_OFFLINE)
        self._folder = tempfile.TemporaryDirectory(prefix="ray-")  # Sockets lie in it, whose names have to be short.
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=self._folder.name,
        )

    def run(self, paths: Sequence[Path]) -> int:
        """See `Rival`."""
        rows = ray.data.from_items([{"path": str(path)} for path in paths])
        blocks = max(2 * cores(), len(paths) // _BATCH)  # Few pictures, too, are to wake all processes.
        embedded = rows.repartition(blocks).map_batches(_embed, batch_size=_BATCH)
        return sum(len(batch["vector"]) for batch in embedded.iter_batches(batch_size=None))

    def close(self) -> None:
        """See `Rival`."""
        ray.shutdown()
        self._folder.cleanup()


@cache
def _network() -> Any:
    """Of the process; Ray's processes are used again."""
    from lookalike_worker.network import build, fill_untrained

    network, _ = build("resnet50")
    fill_untrained(network)
    return network


def _embed(batch: dict[str, Any]) -> dict[str, Any]:
    """Embed a batch of paths."""
    import torch
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=MEAN, std=STD),
        ]
    )
    pictures = [Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB") for path in batch["path"]]
    with torch.inference_mode():
        vectors = _network()(torch.stack([transform(picture) for picture in pictures]))
    return {"vector": np.asarray(vectors)}
