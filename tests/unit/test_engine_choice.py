"""Which engine a machine gets, and what it says to a wish it cannot grant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.errors import SetupError
from lookalike.settings import Settings
from lookalike_worker.engines import hardware, invalid_rows
from lookalike_worker.engines.choose import choose
from lookalike_worker.engines.halving import fitting_batch
from lookalike_worker.engines.hardware import Hardware

LAPTOP = Hardware(cpu="Old Laptop", cores=2, computes_bf16=False, has_openvino=True)
SERVER = Hardware(cpu="New Server", cores=16, computes_bf16=True, has_openvino=True)
VNNI = Hardware(cpu="New Server", cores=16, computes_bf16=True, computes_int8=True, has_openvino=True)
BARE = Hardware(cpu="New Server", cores=16, computes_bf16=True, has_openvino=False)
GPUS = Hardware(cpu="New Server", cores=16, computes_bf16=True, has_openvino=True, cuda=("H100", "L4"))
OLD_DRIVER = Hardware(
    cpu="New Server",
    cores=16,
    computes_bf16=True,
    has_openvino=True,
    no_cuda_because="there is a GPU with an old driver",
)


@pytest.mark.parametrize(
    ("machine", "settings", "expected", "reason"),
    [
        (LAPTOP, {}, ("openvino", "cpu", "fp32"), "does not compute in bf16"),
        (SERVER, {}, ("openvino", "cpu", "bf16"), "no GPU; OpenVINO is installed; the processor computes in bf16"),
        (VNNI, {}, ("openvino", "cpu", "bf16"), "the processor computes in bf16"),
        (VNNI, {"precision": "int8"}, ("openvino", "cpu", "int8"), "int8 was asked for"),
        (BARE, {}, ("torch", "cpu", "fp32"), "OpenVINO is not installed"),
        (BARE, {"precision": "bf16"}, ("torch", "cpu", "bf16"), "bf16 was asked for"),
        (GPUS, {}, ("torch", "cuda:0", "fp16"), "torch sees H100"),
        (GPUS, {"device": "cuda"}, ("torch", "cuda:0", "fp16"), "cuda was asked for"),
        (GPUS, {"device": "cuda:1", "precision": "bf16"}, ("torch", "cuda:1", "bf16"), "cuda:1 was asked for"),
        (GPUS, {"device": "cpu"}, ("openvino", "cpu", "bf16"), "the CPU was asked for"),
        (GPUS, {"engine": "openvino"}, ("openvino", "cpu", "bf16"), "OpenVINO was asked for"),
        (GPUS, {"engine": "torch", "precision": "fp32"}, ("torch", "cuda:0", "fp32"), "fp32 was asked for"),
        (OLD_DRIVER, {}, ("openvino", "cpu", "bf16"), "there is a GPU with an old driver"),
    ],
)
def test_auto_takes_the_fastest_there_is_and_says_why(
    machine: Hardware, settings: dict[str, Any], expected: tuple[str, str, str], reason: str
) -> None:
    choice = choose(Settings(**settings), machine)

    assert (choice.engine, choice.device, choice.precision) == expected
    assert reason in choice.reason
    assert choice.reason.count(".") == 1, "one sentence"


@pytest.mark.parametrize(
    ("machine", "settings", "next_step"),
    [
        (SERVER, {"device": "cuda"}, "set LOOKALIKE_DEVICE=cpu"),
        (OLD_DRIVER, {"device": "cuda"}, "there is a GPU with an old driver"),
        (GPUS, {"device": "cuda:2"}, "counted from 0"),
        (SERVER, {"device": "gpu"}, "`auto`, `cpu`, `cuda`"),
        (BARE, {"engine": "openvino"}, "pip install"),
        (GPUS, {"engine": "openvino", "device": "cuda"}, "LOOKALIKE_ENGINE=torch"),
        (LAPTOP, {"precision": "bf16"}, "`auto` or `fp32`"),
        (SERVER, {"precision": "fp16"}, "for GPUs"),
        (SERVER, {"precision": "int8"}, "`auto` or `fp32`"),
        (BARE, {"precision": "int8"}, "pip install"),
        (GPUS, {"precision": "int8"}, "LOOKALIKE_DEVICE=cpu"),
    ],
)
def test_what_was_asked_for_and_is_not_there_is_an_error_with_a_next_step(
    machine: Hardware, settings: dict[str, Any], next_step: str
) -> None:
    with pytest.raises(SetupError, match=next_step):
        choose(Settings(**settings), machine)


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)])
def test_a_containers_quota_bounds_the_cores(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(hardware, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(hardware.sys, "platform", "linux")

    assert hardware.usable_cores() == cores


def test_vectors_that_cannot_be_compared_are_marked() -> None:
    vectors = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [-1, 2]], np.float32)

    assert invalid_rows(vectors).tolist() == [False, True, True, True, False]
    assert invalid_rows(vectors[:0]).tolist() == []


@pytest.mark.parametrize(
    ("free_gib", "mib_per_image", "batch"), [(78, 30, 128), (4, 30, 64), (1.9, 30, 32), (0.1, 30, 8), (78, 0, 128)]
)
def test_a_gpus_batch_fits_into_half_of_what_is_free(free_gib: float, mib_per_image: float, batch: int) -> None:
    assert fitting_batch(int(free_gib * 2**30), mib_per_image * 2**20, least=8, most=128) == batch
