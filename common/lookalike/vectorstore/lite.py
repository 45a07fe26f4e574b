"""A `milvus-lite server` that opens each collection once, reads in bulk, and ends on SIGTERM and SIGINT.

    python -m lookalike.vectorstore.lite --data-dir DIR [--host 127.0.0.1] --port 19530

Milvus Lite 3.2 opens a collection when it is first asked for. Two requests at that moment, as when everybody returns
after a restart, open it twice: what is written through one is not seen through the other, and loading never ends.
"""

import signal
import sys
import threading
from typing import Any, Final

import click

_SWITCH_S: Final = 0.0005  # Python's own is ten times as long.


def _guarded() -> type:
    from milvus_lite import db
    from milvus_lite.db import MilvusLite

    from lookalike.vectorstore.lite_search import SearchingCollection

    db.Collection = SearchingCollection

    class GuardedMilvusLite(MilvusLite):  # type: ignore[misc]  # milvus_lite publishes no types
        """Milvus Lite whose collections are opened and created by one thread at a time."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._opening = threading.RLock()
            super().__init__(*args, **kwargs)

        def get_collection(self, *args: Any, **kwargs: Any) -> Any:
            with self._opening:
                return super().get_collection(*args, **kwargs)

        def create_collection(self, *args: Any, **kwargs: Any) -> Any:
            with self._opening:
                return super().create_collection(*args, **kwargs)

        def drop_collection(self, *args: Any, **kwargs: Any) -> Any:
            with self._opening:
                return super().drop_collection(*args, **kwargs)

    return GuardedMilvusLite


@click.command()
@click.option("--data-dir", required=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
def main(data_dir: str, host: str, port: int) -> None:
    """Run Milvus Lite until SIGTERM or SIGINT."""
    from milvus_lite.adapter.grpc import server

    # A shell's background job is started with SIGINT ignored, and Milvus Lite knows no other way to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # A search gives the interpreter up for each of its products, and would wait this long to have it back from a write.
    sys.setswitchinterval(_SWITCH_S)
    server.MilvusLite = _guarded()
    server.run_server(data_dir, host=host, port=port)


if __name__ == "__main__":
    main()
