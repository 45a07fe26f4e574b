"""The loop of the public tutorial "Image search with PyTorch and Milvus", written anew from its description.

One thread reads and transforms with Pillow and torchvision, a fp32 network takes 128 at a time, and each batch goes
into Milvus: a collection with an automatic id, the path and the vector, indexed by IVF_FLAT with L2.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from pymilvus import DataType, MilvusClient
from torchvision import transforms

from lookalike_worker.network import MEAN, STD, build, fill_untrained
from servers import start_milvus_lite

_BATCH: Final = 128
_COLLECTION: Final = "image_search"
_DIM: Final = 2048
_INDEX: Final = {"index_type": "IVF_FLAT", "metric_type": "L2", "params": {"nlist": 16384}}


class Tutorial:
    """Reads, embeds and inserts in turn, as the tutorial's script does."""

    def __init__(self, models: Path) -> None:
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-tutorial-")))
            uri, _ = opened.enter_context(start_milvus_lite(folder / "milvus"))
            self._client = MilvusClient(uri=uri)
            self._opened = opened.pop_all()
        self._network, _ = build("resnet50")
        fill_untrained(self._network)
        self._transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(mean=MEAN, std=STD),
            ]
        )

    def run(self, paths: Sequence[Path]) -> int:
        """See `Rival`."""
        self._create_collection()
        for first in range(0, len(paths), _BATCH):
            batch = paths[first : first + _BATCH]
            pixels = torch.stack([self._transform(Image.open(path).convert("RGB")) for path in batch])
            with torch.no_grad():
                vectors = self._network(pixels)
            rows = [{"path": str(path), "vector": vector.tolist()} for path, vector in zip(batch, vectors, strict=True)]
            self._client.insert(_COLLECTION, rows)
        self._client.flush(_COLLECTION)
        return int(self._client.get_collection_stats(_COLLECTION)["row_count"])

    def close(self) -> None:
        """See `Rival`."""
        self._client.close()
        self._opened.close()

    def _create_collection(self) -> None:
        if self._client.has_collection(_COLLECTION):
            self._client.drop_collection(_COLLECTION)
        schema = self._client.create_schema(auto_id=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("path", DataType.VARCHAR, max_length=500)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=_DIM)
        index = self._client.prepare_index_params()
        index.add_index("vector", **_INDEX)
        self._client.create_collection(_COLLECTION, schema=schema, index_params=index)
