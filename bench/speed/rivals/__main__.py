"""A rival's process: says `ready`, then answers each line, a list of paths, with its seconds and vectors."""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from speed.rivals import RIVALS, Rival


def main() -> None:
    """Serve the rival named on the command line."""
    name, models = sys.argv[1:]
    # Libraries print what they like; what is said to the bench goes where they do not.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, kind = RIVALS[name].partition(":")
    rival: Rival = getattr(import_module(module), kind)(Path(models))
    try:
        print("ready", file=answers)
        for line in sys.stdin:
            paths = [Path(path) for path in json.loads(line)]
            began_s = time.perf_counter()
            vectors = rival.run(paths)
            print(json.dumps({"seconds": time.perf_counter() - began_s, "vectors": vectors}), file=answers)
    finally:
        rival.close()


if __name__ == "__main__":
    main()
