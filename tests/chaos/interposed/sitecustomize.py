"""Loaded by every Python process of the chaos suite's stack at its start: what cannot be done to it from outside.

A clock that is wrong, by `CHAOS_CLOCK_SHIFT_S`; and a decoder that dies or hangs on pictures that carry a mark, as
Pillow's C code would on a picture that finds a defect in it.
"""

import os
import sys
import time
from typing import Any

ABORT = b"chaos: abort"
HANG = b"chaos: hang"


def shift_clock(seconds: float) -> None:
    """Shift what Python code sees. gRPC hands its time to C code as a deadline, whose clock is right."""
    right, right_ns = time.time, time.time_ns

    def of_caller() -> float:
        return 0.0 if sys._getframe(2).f_globals.get("__name__", "").startswith("grpc") else seconds

    time.time = lambda: right() + of_caller()
    time.time_ns = lambda: right_ns() + int(of_caller() * 1e9)


def break_decoder() -> None:
    from PIL import Image

    sound = Image.open

    def broken(file: Any, *arguments: Any, **options: Any) -> Any:
        content = file.getvalue()
        if ABORT in content:
            os.abort()
        if HANG in content:
            time.sleep(600)
        return sound(file, *arguments, **options)

    Image.open = broken


if "CHAOS_CLOCK_SHIFT_S" in os.environ:
    shift_clock(float(os.environ["CHAOS_CLOCK_SHIFT_S"]))
if "lookalike.decoder_child" in sys.orig_argv:
    break_decoder()
