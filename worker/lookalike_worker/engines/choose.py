"""Choose the engine, device and precision for a machine, and say why. Pure: what the machine has is passed in.

What is asked for by name and not there is an error, never replaced by something else in silence.
"""

import re
from dataclasses import dataclass
from typing import Final

from lookalike.errors import SetupError
from lookalike.settings import EngineKind, Precision, Settings
from lookalike_worker.engines.hardware import Hardware

_DEVICE: Final = re.compile(r"auto|cpu|cuda(?::(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine, where it runs and in what, none of them `auto`."""

    engine: EngineKind
    device: str  #: `cpu`, or `cuda:N`.
    precision: Precision
    reason: str  #: One sentence.


def choose(settings: Settings, hardware: Hardware) -> Choice:
    """Choose what runs the network. Raises `SetupError` where what was asked for is not there."""
    device, why_device = _device(settings, hardware)
    engine, why_engine = _engine(settings, hardware, device)
    precision, why_precision = _precision(settings, hardware, engine, device)
    # One reason can settle the next question as well; it is said once.
    whys = list(dict.fromkeys(why for why in (why_device, why_engine, why_precision) if why))
    return Choice(
        engine=engine,
        device=device,
        precision=precision,
        reason=f"{engine} on {device} in {precision}: {'; '.join(whys)}.",
    )


def _device(settings: Settings, hardware: Hardware) -> tuple[str, str]:
    match = _DEVICE.fullmatch(settings.device)
    if match is None:
        raise SetupError(f"LOOKALIKE_DEVICE is `{settings.device}`. Set it to `auto`, `cpu`, `cuda` or `cuda:N`.")
    if settings.device == "cpu":
        return "cpu", "the CPU was asked for"
    if settings.device == "auto":
        if settings.engine is EngineKind.OPENVINO:
            return "cpu", "OpenVINO was asked for, which is used on CPUs only"
        return ("cuda:0", f"torch sees {hardware.cuda[0]}") if hardware.cuda else ("cpu", hardware.no_cuda_because)
    number = int(match[1] or 0)
    if not hardware.cuda:
        raise SetupError(
            f"LOOKALIKE_DEVICE is `{settings.device}`, but {hardware.no_cuda_because}. "
            "Check that nvidia-smi and torch.cuda.is_available() see it, or set LOOKALIKE_DEVICE=cpu."
        )
    if number >= len(hardware.cuda):
        raise SetupError(
            f"LOOKALIKE_DEVICE is `{settings.device}`, but torch sees {len(hardware.cuda)} GPU(s), counted from 0. "
            "Set it to one of them."
        )
    return f"cuda:{number}", f"{settings.device} was asked for"


def _engine(settings: Settings, hardware: Hardware, device: str) -> tuple[EngineKind, str]:
    on_gpu = device != "cpu"
    if settings.engine is EngineKind.OPENVINO:
        if on_gpu:
            raise SetupError(
                f"LOOKALIKE_ENGINE is `openvino`, which is used on CPUs only, but LOOKALIKE_DEVICE is "
                f"`{settings.device}`. Set LOOKALIKE_ENGINE=torch, or LOOKALIKE_DEVICE=cpu."
            )
        if not hardware.has_openvino:
            raise SetupError(
                "LOOKALIKE_ENGINE is `openvino`, which is not installed. "
                "Install it with: pip install 'lookalike[openvino]', or set LOOKALIKE_ENGINE=torch."
            )
        return EngineKind.OPENVINO, "OpenVINO was asked for"
    if settings.engine is EngineKind.TORCH:
        return EngineKind.TORCH, "torch was asked for"
    if on_gpu:
        return EngineKind.TORCH, ""
    if hardware.has_openvino:
        return EngineKind.OPENVINO, "OpenVINO is installed"
    return EngineKind.TORCH, "OpenVINO is not installed"


def _precision(settings: Settings, hardware: Hardware, engine: EngineKind, device: str) -> tuple[Precision, str]:
    wanted = settings.precision
    if wanted is Precision.INT8:
        return _int8(hardware, engine)
    if device != "cpu":
        return (Precision.FP16, "") if wanted is Precision.AUTO else (wanted, f"{wanted} was asked for")
    if wanted is Precision.FP16:
        raise SetupError("LOOKALIKE_PRECISION is `fp16`, which is for GPUs. Set it to `auto`, `bf16` or `fp32`.")
    if wanted is Precision.BF16 and not hardware.computes_bf16:
        raise SetupError(
            f"LOOKALIKE_PRECISION is `bf16`, but {hardware.cpu} has no instructions for it. Set it to `auto` or `fp32`."
        )
    if wanted is not Precision.AUTO:
        return wanted, f"{wanted} was asked for"
    if engine is EngineKind.TORCH:
        return Precision.FP32, "torch on a CPU is kept in fp32 unless asked otherwise"
    if hardware.computes_bf16:
        return Precision.BF16, "the processor computes in bf16"
    return Precision.FP32, "the processor does not compute in bf16"


def _int8(hardware: Hardware, engine: EngineKind) -> tuple[Precision, str]:
    """Grant int8, which is never chosen here: its vectors are no longer the reference's to a cosine of 0.999."""
    if engine is not EngineKind.OPENVINO:
        raise SetupError(
            "LOOKALIKE_PRECISION is `int8`, which is for OpenVINO on a CPU. "
            "Set LOOKALIKE_DEVICE=cpu and install it with: pip install 'lookalike[openvino]', or set it to `auto`."
        )
    if not hardware.computes_int8:
        raise SetupError(
            f"LOOKALIKE_PRECISION is `int8`, but {hardware.cpu} has no instructions for it. Set it to `auto` or `fp32`."
        )
    return Precision.INT8, "int8 was asked for"
