"""A decoder's child process without a codec: it reads the file, and makes up its content from its address.

So a million links to a few pictures are a million different images, and no time goes to Pillow.
"""

import hashlib
import time
from typing import Any

from lookalike.decoder_child import Decoder, Reply, serve
from stand_in.vector import DIM, STRIDE


class AddressDecoder(Decoder):
    """Answers as if each address held a picture of its own."""

    def answer(self, request: dict[str, Any]) -> Reply:
        began_s = time.monotonic()
        with self._sources.open(request["uri"]) as file:
            data = file.read(max_bytes=self._max_file_bytes)
            digest = hashlib.sha256(data + request["uri"].encode())
            facts = {"sha256": digest.hexdigest(), "size": len(data), "mtime_ns": file.mtime_ns}
        read_s = time.monotonic()
        for number, value in enumerate(digest.digest()[:DIM]):
            self._pixels[number * STRIDE] = value
        facts |= {"read_ms": 1000 * (read_s - began_s), "decode_ms": 1000 * (time.monotonic() - read_s)}
        facts |= {"width": 24, "height": 24}
        return facts | {"format": "BMP"} if request["task"] == "probe" else facts, b""


if __name__ == "__main__":
    serve(AddressDecoder)
