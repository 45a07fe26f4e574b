"""A stack of tiny real processes, for testing supervision itself without waiting for torch.

`python supervisor_stand_in.py DATA_DIR [NAME=BEHAVIOUR ...]` supervises four of them as `lookalike up` would;
`python supervisor_stand_in.py --child DATA_DIR NAME BEHAVIOUR` is one. A child starts a child of its own, as gunicorn
does, and touches its heartbeat file, which the probe looks at. With `--servers DATA_DIR` the real Redis and Milvus of
the real plan are supervised instead, without web and workers, and with `--up` the whole of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.settings import Settings
from lookalike.supervisor import UpOptions, up
from lookalike.supervisor.leftovers import end_leftovers
from lookalike.supervisor.plan import Plan
from lookalike.supervisor.process import Health, ProcessSpec
from lookalike.supervisor.stack import RUN_ID, StackPlanner
from lookalike.supervisor.state import RunFolder
from lookalike.supervisor.supervisor import Supervisor

NAMES = ("server", "worker-1", "worker-2", "web")
BEAT_S = 0.05
SILENT_S = 4.0  # Without a beat for this long, the probe finds it silent; a busy machine must not.
STUBBORN_S = 60.0  # What a stop gives the stubborn, who need it all.


def heartbeat(data_dir: Path, name: str, pid: int) -> Path:
    return data_dir / f"{name}.{pid}.beat"


def probe(data_dir: Path, name: str, pid: int) -> Health:
    try:
        age_s = time.time() - heartbeat(data_dir, name, pid).stat().st_mtime
    except FileNotFoundError:
        return Health.SILENT
    return Health.READY if age_s < SILENT_S else Health.SILENT


def spec(data_dir: Path, name: str, behaviour: str, environment: dict[str, str]) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, __file__, "--child", str(data_dir), name, behaviour),
        probe=partial(probe, data_dir, name),
        environment=environment,
        folder=data_dir,
        tier=0 if name == "server" else 2 if name == "web" else 1,
        needs=() if name == "server" else ("server",),
        stop_signal=signal.SIGINT if name == "server" else signal.SIGTERM,
        stop_grace_s=STUBBORN_S if behaviour == "stubborn" else 10.0,
        silence_s=3.0,
    )


def say(kind: str, what: object) -> None:
    sys.stdout.write(f"{kind} {what}\n")
    sys.stdout.flush()


def stand_ins(data_dir: Path, behaviours: dict[str, str]) -> Plan:
    run_id = f"run-{os.getpid()}"
    environment = {**os.environ, RUN_ID: run_id}
    specs = tuple(spec(data_dir, name, behaviours.get(name, "good"), environment) for name in NAMES)
    return Plan(specs=specs, lacking=lambda: None, url="http://127.0.0.1:1", run_id=run_id)


def servers(data_dir: Path) -> Plan:
    plan = StackPlanner(UpOptions(settings=Settings(data_dir=data_dir))).plan()
    specs = tuple(spec for spec in plan.specs if spec.name in {"redis", "milvus"})
    return replace(plan, specs=specs, lacking=lambda: None)


def supervise(data_dir: Path, make_plan: Callable[[], Plan]) -> int:
    folder = RunFolder(data_dir)
    with folder.locked():
        end_leftovers(folder)
        return Supervisor(make_plan(), folder, on_event=lambda event: say(event.kind, event)).run()


def up_for_real() -> int:
    return up(UpOptions.from_settings(Settings(), on_event=lambda event: say(event.kind, event)))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--up"]:
            return up_for_real()
        case ["--servers", folder]:
            return supervise(Path(folder), partial(servers, Path(folder)))
        case [folder, *behaviours]:
            return supervise(
                Path(folder), partial(stand_ins, Path(folder), dict(pair.split("=") for pair in behaviours))
            )
    return 2


def child(data_dir: Path, name: str, behaviour: str) -> None:
    if behaviour == "unconfigured":
        sys.stderr.write("A line of noise.\nThe weights are not there. Set LOOKALIKE_WEIGHTS.\n")
        sys.exit(78)
    if behaviour == "broken":
        sys.exit("it broke")
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    subprocess.Popen(["sleep", "1000"])
    beat = heartbeat(data_dir, name, os.getpid())
    while True:
        beat.touch()
        time.sleep(BEAT_S)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    try:
        sys.exit(main(sys.argv[1:]))
    except LookalikeError as error:
        say(error.code, error)
        sys.exit(1)
