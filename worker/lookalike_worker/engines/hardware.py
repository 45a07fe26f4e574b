"""What this machine computes with. Read from files where possible, so that asking does not import torch."""

import importlib.util
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Device files that a machine with a GPU has: NVIDIA's, the same under WSL, and AMD's, which torch also calls CUDA.
_GPU_FILES: Final = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
#: What /proc/cpuinfo calls arithmetic in bf16: AVX-512's, AMX', and Arm's.
_BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
#: What it calls sums of products of 8 bits. Without them int8 is slower, and may overflow.
_INT8_FLAGS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"})
_CPUINFO: Final = Path("/proc/cpuinfo")
_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What engines can be chosen from."""

    cpu: str  #: The processor's product name.
    cores: int  #: Those this process may use.
    computes_bf16: bool  #: Whether the processor has instructions for it.
    has_openvino: bool  #: Whether it is installed.
    computes_int8: bool = False  #: Whether the processor has instructions for it.
    cuda: tuple[str, ...] = ()  #: Product names of the GPUs that torch can use.
    no_cuda_because: str = "this machine shows no GPU"  #: Where `cuda` is empty.


def look(*, for_gpus: bool = True) -> Hardware:
    """Find out what this machine has. Imports torch only where there is a GPU to ask it about."""
    facts = _cpuinfo()
    gpus: tuple[str, ...] = ()
    because = Hardware.no_cuda_because
    if for_gpus and any(Path(file).exists() for file in _GPU_FILES):
        gpus, because = _cuda_devices()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return Hardware(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        computes_bf16=not _BF16_FLAGS.isdisjoint(flags),
        computes_int8=not _INT8_FLAGS.isdisjoint(flags),
        has_openvino=importlib.util.find_spec("openvino") is not None,
        cuda=gpus,
        no_cuda_because=because,
    )


def usable_cores() -> int:
    """Count the cores this process may keep busy: its affinity, and its container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota_us, period_us = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota_us) / int(period_us))))
    except (OSError, ValueError):  # No such file, or `max`: no quota.
        return cores


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's lines; empty where there is no such file, as on macOS."""
    try:
        first = _CPUINFO.read_text().split("\n\n", maxsplit=1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cuda_devices() -> tuple[tuple[str, ...], str]:
    """Return the GPUs' names, or none and why there are none."""
    if importlib.util.find_spec("torch") is None:
        return (), "there is a GPU, but torch is not installed"
    import torch

    if torch.cuda.is_available():
        return tuple(_product(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())), ""
    if torch.version.cuda is None and torch.version.hip is None:
        return (), "there is a GPU, but this torch is built without CUDA"
    return (), "there is a GPU, but torch cannot use it, which is often an old driver"


def _product(properties: Any) -> str:
    """Name a GPU as `nvidia-smi -L` does: `cuda:0` is another one for each worker that is shown one GPU only."""
    uuid = getattr(properties, "uuid", None)
    return f"{properties.name}, GPU-{str(uuid)[:8]}" if uuid else str(properties.name)
