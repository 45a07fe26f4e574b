"""The request class: Flask's, which leaves nothing open when it refuses an upload half-read."""

from typing import IO, Any

from flask import Request


class FrontEndRequest(Request):
    """A request that closes the temporary files of its parts, those of a form it gave up on included."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._part_streams: list[IO[bytes]] = []

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        stream = super()._get_file_stream(*args, **kwargs)
        self._part_streams.append(stream)
        return stream

    def close(self) -> None:
        """Close all files of the request."""
        super().close()
        for stream in self._part_streams:
            stream.close()
