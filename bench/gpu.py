"""What a GPU makes of the network: likeness to fp32, and images per second by batch, mode and stage.

One file that needs torch and torchvision (with the Pillow and numpy they bring) and nothing of this project, so that it
runs wherever a GPU is lent for ten minutes:

    python gpu.py --json gpu.json          # all figures, within 8 minutes
    python gpu.py --quick                  # in about one
    python gpu.py --device cpu             # likeness on a processor, and small figures: shows that the file works

Exits with 1 where a mode's vectors are less like the reference's than a cosine of 0.999. The weights are random, with
batch norms set by drawn pictures: they decide no speed, and spread the vectors enough for a cosine to mean something.
"""

import argparse
import io
import json
import os
import platform
import queue
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck, ResNet

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIDE = 224
JPEG_SIZE = (592, 432)  # 0.256 megapixels.
LEAST_COSINE = 0.999

Run = Callable[[Tensor], Tensor]  # (n, 224, 224, 3) bytes on the device to (n, 2048) float32 there.


# --- The network ----------------------------------------------------------------------------------------------------


class Embedder(nn.Module):
    """Bytes in, vectors out: the normalisation and a network in one format."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype, *, channels_last: bool) -> None:
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device, dtype).to(memory_format=layout)
        self.dtype, self.layout = dtype, layout
        self.register_buffer("mean", torch.tensor(MEAN, device=device).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(STD, device=device).view(1, 3, 1, 1) * 255))

    def forward(self, pixels: Tensor) -> Tensor:
        planes = (pixels.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        return self.network(planes.to(self.dtype, memory_format=self.layout)).float()


def make_network() -> ResNet:
    torch.manual_seed(0)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)
    pictures = torch.from_numpy(draw(8, 1)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        network.train()((pictures - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))
    return network.eval().requires_grad_(False)


class Folded(nn.Module):
    """ResNet50 with its batch norms inside the convolutions, and rectifiers and sums in the convolutions' kernels."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        fuse = torch.nn.utils.fusion.fuse_conv_bn_eval
        self.stem = fuse(network.conv1, network.bn1)
        self.blocks = nn.ModuleList()
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in layer:
                convolutions = [fuse(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in (1, 2, 3)]
                if block.downsample is not None:
                    convolutions.append(fuse(block.downsample[0], block.downsample[1]))
                self.blocks.append(nn.ModuleList(convolutions))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(_conv_relu(self.stem, x), 3, 2, 1)
        for block in self.blocks:
            shortcut = block[3](x) if len(block) == 4 else x
            x = _conv_add_relu(block[2], _conv_relu(block[1], _conv_relu(block[0], x)), shortcut)
        return x.mean(dim=(2, 3))


def _conv_relu(c: nn.Conv2d, x: Tensor) -> Tensor:
    if x.is_cuda:
        return torch.cudnn_convolution_relu(x, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups)
    return functional.relu(c(x))


def _conv_add_relu(c: nn.Conv2d, x: Tensor, add: Tensor) -> Tensor:
    if x.is_cuda:
        return torch.cudnn_convolution_add_relu(
            x, c.weight, add, 1.0, c.bias, c.stride, c.padding, c.dilation, c.groups
        )
    return functional.relu(c(x) + add)


class Graph:
    """A captured CUDA graph of one batch size. What it returns is overwritten by the next call."""

    def __init__(self, run: Run, images: int, device: torch.device) -> None:
        self.pixels = torch.zeros((images, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                run(self.pixels)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.vectors = run(self.pixels)

    def __call__(self, pixels: Tensor) -> Tensor:
        self.pixels.copy_(pixels)
        self.graph.replay()
        return self.vectors


def modes(device: torch.device) -> dict[str, Callable[[int], Run]]:
    """Each way to run the network: from the images of a batch to what runs it."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    short = "fp16" if device.type == "cuda" else "bf16"

    def eager(dtype: torch.dtype, *, channels_last: bool, folded: bool = False) -> Run:
        network = make_network()
        return Embedder(Folded(network) if folded else network, device, dtype, channels_last=channels_last)

    found: dict[str, Callable[[int], Run]] = {
        "fp32": lambda _: eager(torch.float32, channels_last=False),
        short: lambda _: eager(half, channels_last=False),
        f"{short} channels_last": lambda _: eager(half, channels_last=True),
        f"{short} channels_last folded": lambda _: eager(half, channels_last=True, folded=True),
    }
    if device.type == "cuda":
        found["fp16 channels_last graph"] = lambda n: Graph(eager(half, channels_last=True), n, device)
        found[BEST] = lambda n: Graph(eager(half, channels_last=True, folded=True), n, device)
        found["fp16 channels_last compiled"] = lambda _: torch.compile(
            eager(half, channels_last=True), mode="reduce-overhead", dynamic=False
        )
    return found


BEST = "fp16 channels_last folded graph"


# --- Measuring ------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was found, printed as it comes."""

    device: torch.device
    ends_at_s: float
    facts: dict[str, Any]
    likeness: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    def has_time(self, what: str, seconds: float = 10) -> bool:
        if time.monotonic() + seconds < self.ends_at_s:
            return True
        self.skip(what, "no time left")
        return False

    def skip(self, what: str, why: str) -> None:
        print(f"  left out: {what}: {why}", flush=True)
        self.left_out.append(f"{what}: {why}")

    def like(self, what: str, vectors: Tensor, reference: Tensor) -> None:
        """Compare vectors with the reference's: as they are, and without what all pictures share."""
        cosine = functional.cosine_similarity(vectors.cpu(), reference, dim=1)
        middle = reference.mean(dim=0)
        centred = functional.cosine_similarity(vectors.cpu() - middle, reference - middle, dim=1)
        row = {"what": what, "min": cosine.min().item(), "mean": cosine.mean().item(), "centred": centred.min().item()}
        self.likeness.append(row)
        if not row["min"] >= LEAST_COSINE:
            self.defects.append(f"{what} is less like the reference than {LEAST_COSINE}")
        print(f"  {what:44} {row['min']:.6f} {row['mean']:.6f} {row['centred']:.6f}", flush=True)

    def figure(self, stage: str, what: str, batch: int, images_per_s: list[float]) -> None:
        row = {"stage": stage, "what": what, "batch": batch, "images_per_s": round(statistics.median(images_per_s), 1)}
        row["runs"] = [round(value, 1) for value in images_per_s]
        self.figures.append(row)
        spread = f"{min(images_per_s):,.0f} to {max(images_per_s):,.0f}"
        print(f"  {what:44} {batch:5} {row['images_per_s']:>10,.0f} images/s  ({spread})", flush=True)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rates(device: torch.device, work: Callable[[], int], *, rounds: int, least_s: float) -> list[float]:
    """Images per second of each round; `work` says how many it did. The first is not counted."""
    work()
    wait_for(device)
    found = []
    for _ in range(rounds):
        images, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < least_s:
            for _ in range(4):
                images += work()
            wait_for(device)
        found.append(images / (time.perf_counter() - began_s))
    return found


def draw(count: int, seed: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """Pictures as smooth as photographs, with some grain: (n, height, width, 3) bytes."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        picture = np.full((height, width, 3), 128.0, np.float32)
        for cells, strength in ((2, 60), (6, 40), (20, 20), (80, 8)):
            grid = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += (np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) / 128.0 * strength
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(pictures)


# --- Decoding -------------------------------------------------------------------------------------------------------


def exact(jpeg: bytes) -> np.ndarray:
    """The tutorial's pixels: decoded in full, resized to 256 with antialiasing, the middle 224."""
    return _middle(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def fast(jpeg: bytes) -> np.ndarray:
    """The same, decoded no larger than needed."""
    picture = Image.open(io.BytesIO(jpeg))
    picture.draft("RGB", (256, 256))
    return _middle(picture.convert("RGB"))


def _middle(picture: Image.Image) -> np.ndarray:
    scale = 256 / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    x, y = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(picture.crop((x, y, x + SIDE, y + SIDE)))


def middles(pictures: list[Tensor]) -> Tensor:
    """(3, h, w) bytes of any sizes to (n, 224, 224, 3) bytes, on their device, those of one size together."""
    out = torch.empty((len(pictures), SIDE, SIDE, 3), dtype=torch.uint8, device=pictures[0].device)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(tuple(picture.shape), []).append(index)
    for (_, height, width), indexes in by_size.items():
        scale = 256 / min(height, width)
        size = (round(height * scale), round(width * scale))
        planes = torch.stack([pictures[index] for index in indexes]).float()
        planes = functional.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
        y, x = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        cut = planes[:, :, y : y + SIDE, x : x + SIDE].round_().clamp_(0, 255).to(torch.uint8)
        out[torch.tensor(indexes, device=out.device)] = cut.permute(0, 2, 3, 1)
    return out


class BatchDecoder:
    """JPEGs decoded on a device, a list at a time. A file that fails costs itself: it comes back as None.

    Raises ImportError where nothing here can. On a GPU only bytes belong here whose header was read and whose size was
    checked by a process that may die of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        try:
            from torchcodec.decoders import decode_jpeg

            self.name = "torchcodec"
            self._decode = lambda batch: decode_jpeg(batch, mode="RGB", device=device)
            self([encode(draw(1, 0, 64, 64)[0])], strict=True)
        except (ImportError, OSError, RuntimeError):
            from torchvision.io import ImageReadMode
            from torchvision.io import decode_jpeg as old

            self.name = "torchvision"
            self._decode = lambda batch: old(batch, mode=ImageReadMode.RGB, device=device)
            try:
                self([encode(draw(1, 0, 64, 64)[0])], strict=True)
            except RuntimeError as error:
                raise ImportError(f"neither torchcodec nor torchvision decodes on {device}: {error}") from error

    def __call__(self, jpegs: list[bytes], *, strict: bool = False) -> list[Tensor | None]:
        batch = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's decoders are deprecated in favour of torchcodec's.
            try:
                return list(self._decode(batch))
            except RuntimeError:
                if strict:
                    raise
                return [self._alone(one) for one in batch]

    def _alone(self, jpeg: Tensor) -> Tensor | None:
        try:
            return self._decode([jpeg])[0]
        except RuntimeError:
            return None


def encode(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90)
    return stream.getvalue()


_shared: tuple[SharedMemory, np.ndarray] | None = None


def _attach(name: str, slots: int) -> None:
    global _shared  # noqa: PLW0603 - a process of the pool has one piece of memory, for its life
    memory = SharedMemory(name, track=False) if sys.version_info >= (3, 13) else SharedMemory(name)
    _shared = (memory, np.ndarray((slots, SIDE, SIDE, 3), np.uint8, memory.buf))


def _decode_files(first_slot: int, files: list[str]) -> int:
    assert _shared is not None
    for slot, file in enumerate(files, first_slot):
        _shared[1][slot] = fast(Path(file).read_bytes())
    return len(files)


class Pool:
    """Processes that decode files into shared memory, batch after batch, some ahead of who takes them."""

    def __init__(self, processes: int, batch: int, ahead: int = 3) -> None:
        self.processes, self.batch, self.ahead = processes, batch, ahead
        self.memory = SharedMemory(create=True, size=ahead * batch * SIDE * SIDE * 3)
        self.pixels = np.ndarray((ahead, batch, SIDE, SIDE, 3), np.uint8, self.memory.buf)
        self.pool = ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=_attach, initargs=(self.memory.name, ahead * batch)
        )

    def batches(self, files: list[str], count: int) -> Iterator[np.ndarray]:
        """Decode so many batches of files taken in turn; what comes is overwritten after the next one was taken."""
        waiting: list[list[Future[int]]] = []
        for number in range(count + self.ahead - 1):
            if number < count:
                waiting.append(self._begin(files, number))
            if number >= self.ahead - 1:
                ready = number - self.ahead + 1
                for future in waiting[ready]:
                    future.result()
                yield self.pixels[ready % self.ahead]

    def _begin(self, files: list[str], number: int) -> list[Future[int]]:
        names = [files[(number * self.batch + index) % len(files)] for index in range(self.batch)]
        slot = number % self.ahead * self.batch
        share = max(1, self.batch // (2 * self.processes))
        return [
            self.pool.submit(_decode_files, slot + begin, names[begin : begin + share])
            for begin in range(0, self.batch, share)
        ]

    def close(self) -> None:
        self.pool.shutdown()
        del self.pixels
        self.memory.close()
        self.memory.unlink()


# --- The parts of the report ----------------------------------------------------------------------------------------


def check_likeness(report: Report, jpegs: list[bytes]) -> None:
    print("Likeness to fp32 of an exact decode: least and mean cosine, and the least without the pictures' mean")
    device = report.device
    pictures = np.stack([exact(jpeg) for jpeg in jpegs])
    pixels = torch.from_numpy(pictures).to(device)
    reference: Tensor | None = None
    with torch.inference_mode():
        for name, build in modes(device).items():
            if not report.has_time(f"likeness of {name}", 60 if "compiled" in name else 10):
                continue
            try:
                vectors = build(len(jpegs))(pixels)
            except Exception as error:  # noqa: BLE001 - a mode that this installation lacks is left out, with its reason
                report.skip(name, f"{type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            reference = vectors.cpu().clone() if reference is None else reference
            report.like(name, vectors, reference)
        assert reference is not None
        run = modes(device)["fp32"](len(jpegs))
        draft = torch.from_numpy(np.stack([fast(jpeg) for jpeg in jpegs])).to(device)
        report.like("fp32, decoded no larger than needed", run(draft), reference)
        try:
            decoder = BatchDecoder(device)
        except ImportError as error:
            report.skip("decoding on the device", str(error))
            return
        decoded = decoder([*jpegs[:-1], jpegs[-1][:200], jpegs[-1]])
        if [one is None for one in decoded] != [False] * (len(jpegs) - 1) + [True, False]:
            report.defects.append("a broken file in a batch has to cost itself, and nothing else")
            return
        whole = middles([one for one in decoded if one is not None])
        report.like(f"fp32, decoded by {decoder.name} and resized here", run(whole), reference)


def measure_network(report: Report, *, batches: list[int], rounds: int, least_s: float) -> None:
    print("Network, from bytes on the device")
    device = report.device
    with torch.inference_mode():
        for name, build in modes(device).items():
            for batch in batches if name != "fp32" else batches[-1:]:
                what = f"network, {name}, {batch}"
                if not report.has_time(what, 60 if "compiled" in name else 5):
                    continue
                try:
                    found = _network_rates(build, batch, device, rounds=rounds, least_s=least_s)
                except Exception as error:  # noqa: BLE001 - as above; a batch may be larger than the memory
                    report.skip(what, f"{type(error).__name__}: {str(error).splitlines()[0]}")
                    continue
                report.figure("network", name, batch, found)
                if device.type == "cuda":
                    torch.cuda.empty_cache()


def _network_rates(
    build: Callable[[int], Run], batch: int, device: torch.device, *, rounds: int, least_s: float
) -> list[float]:
    run = build(batch)
    pixels = torch.from_numpy(draw(1, 2)).to(device).expand(batch, -1, -1, -1).contiguous()
    return rates(device, lambda: len(run(pixels)), rounds=rounds, least_s=least_s)


def copied(run: Run, source: Iterator[np.ndarray], batch: int, device: torch.device, *, overlap: bool) -> int:
    """Embed batches from the host's memory; overlapping, one is copied while the one before is embedded."""
    pinned = [torch.empty((batch, SIDE, SIDE, 3), dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    there = [torch.empty_like(one, device=device) for one in pinned]
    results = [torch.empty((batch, 2048), pin_memory=True) for _ in range(2)]
    copies = torch.cuda.Stream() if overlap else torch.cuda.current_stream()
    filled = [torch.cuda.Event() for _ in range(2)]
    used = [torch.cuda.Event() for _ in range(2)]
    images = 0
    for number, pixels in enumerate(source):
        side = number % 2
        used[side].synchronize()  # Of two batches before; the one before may still run.
        pinned[side].numpy()[:] = pixels
        with torch.cuda.stream(copies):
            there[side].copy_(pinned[side], non_blocking=True)
            filled[side].record()
        filled[side].wait()
        results[side].copy_(run(there[side]), non_blocking=True)
        used[side].record()
        if not overlap:
            torch.cuda.synchronize()
        images += batch
    torch.cuda.synchronize()
    return images


def measure_copies(report: Report, *, batch: int, rounds: int) -> None:
    print("From the host's memory and back")
    device = report.device
    if device.type != "cuda" or not report.has_time("copies"):
        return
    pixels = draw(1, 2).repeat(batch, axis=0)
    with torch.inference_mode():
        run = modes(device)[BEST](batch)
        for overlap in (False, True):
            found = []
            for _ in range(rounds + 1):
                began_s = time.perf_counter()
                images = copied(run, (pixels for _ in range(64)), batch, device, overlap=overlap)
                found.append(images / (time.perf_counter() - began_s))
            report.figure("copy", "copies beside the network" if overlap else "one after the other", batch, found[1:])


def measure_pool(report: Report, files: list[str], *, batch: int, count: int, rounds: int) -> None:
    """Decode in processes; alone, and with the network behind it."""
    print("From JPEG files of 0.25 megapixels, decoded by processes")
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not report.has_time("the pool of processes", 20):
        return
    pool = Pool(processes, batch)
    device = report.device
    try:
        alone, whole = [], []
        with torch.inference_mode():
            run = modes(device)[BEST if device.type == "cuda" else "bf16 channels_last"](batch)
            for _ in range(rounds + 1):
                began_s = time.perf_counter()
                images = sum(len(pixels) for pixels in pool.batches(files, count))
                alone.append(images / (time.perf_counter() - began_s))
                began_s = time.perf_counter()
                if device.type == "cuda":
                    images = copied(run, pool.batches(files, count), batch, device, overlap=True)
                else:
                    images = sum(len(run(torch.from_numpy(pixels))) for pixels in pool.batches(files, count))
                whole.append(images / (time.perf_counter() - began_s))
        report.figure("decode", f"{processes} processes", batch, alone[1:])
        report.figure("end to end", f"{processes} processes, network", batch, whole[1:])
    finally:
        pool.close()


def measure_device_decoding(report: Report, jpegs: list[bytes], *, batch: int, count: int, rounds: int) -> None:
    """Decode on the device, resize there, and with the network behind it; threads that decode run ahead of it."""
    print("From JPEG bytes of 0.25 megapixels, decoded on the device")
    device = report.device
    try:
        decoder = BatchDecoder(device)
    except ImportError as error:
        report.skip("decoding on the device", str(error))
        return
    batches = [[jpegs[(n * batch + i) % len(jpegs)] for i in range(batch)] for n in range(count)]
    with torch.inference_mode():
        run = modes(device)[BEST if device.type == "cuda" else "bf16 channels_last"](batch)
        for threads in (1, 2, 4) if device.type == "cuda" else (1,):
            for stage, network in (("decode", None), ("end to end", run)):
                what = f"{decoder.name}, {threads} threads" + (", network" if network else ", resized")
                if not report.has_time(what):
                    continue
                found = []
                for _ in range(rounds + 1):
                    began_s = time.perf_counter()
                    images = _decode_and_embed(decoder, batches, network, threads)
                    found.append(images / (time.perf_counter() - began_s))
                report.figure(stage, what, batch, found[1:])


def _decode_and_embed(decoder: BatchDecoder, batches: list[list[bytes]], network: Run | None, threads: int) -> int:
    on_gpu = decoder.device.type == "cuda"
    todo: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
    for batch in batches:
        todo.put(batch)
    done: queue.Queue[tuple[Tensor, Any] | BaseException] = queue.Queue(maxsize=threads + 1)

    def work() -> None:
        stream = torch.cuda.Stream() if on_gpu else None
        try:
            with torch.inference_mode(), torch.cuda.stream(stream) if stream else nullcontext():
                while True:
                    pixels = middles([one for one in decoder(todo.get_nowait()) if one is not None])
                    done.put((pixels, stream.record_event() if stream else None))
        except queue.Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for this thread's batches
            done.put(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    images = 0
    for _ in batches:
        one = done.get()
        if isinstance(one, BaseException):
            raise one
        pixels, event = one
        if event is not None:
            event.wait()
            pixels.record_stream(torch.cuda.current_stream())
        if network is not None:
            network(pixels).cpu()
        images += len(pixels)
    for worker in workers:
        worker.join()
    wait_for(decoder.device)
    return images


def facts_of(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device": properties.name,
            "memory_GiB": round(properties.total_memory / 2**30, 1),
            "free_GiB": round(torch.cuda.mem_get_info(device)[0] / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="fewer batch sizes and rounds")
    parser.add_argument("--json", type=Path, help="keep all figures here as well")
    parser.add_argument("--limit-s", type=float, default=480, help="leave out what would take longer than this")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("error: torch sees no GPU here; --device cpu runs what a processor can", file=sys.stderr)
        return 2
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # The reference is in fp32.
    report = Report(device, time.monotonic() + options.limit_s, facts_of(device))
    print(", ".join(f"{key} {value}" for key, value in report.facts.items()))
    jpegs = [encode(picture) for picture in draw(128 if on_gpu else 8, 3, *JPEG_SIZE)]
    few = on_gpu and options.quick
    rounds = 1 if not on_gpu else 2 if few else 3
    check_likeness(report, jpegs[:32])
    # What the targets are about comes first, since the time is bounded.
    batch, count = (128, 16 if few else 40) if on_gpu else (4, 2)
    measure_device_decoding(report, jpegs, batch=batch, count=count, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, jpeg in enumerate(jpegs):
            files.append(f"{folder}/{number}.jpg")
            Path(files[-1]).write_bytes(jpeg)
        measure_pool(report, files, batch=batch, count=count, rounds=rounds)
    measure_copies(report, batch=batch, rounds=rounds)
    sizes = ([128] if few else [1, 8, 32, 64, 128, 256]) if on_gpu else [1, 4]
    measure_network(report, batches=sizes, rounds=rounds, least_s=(0.5 if few else 1.0) if on_gpu else 0.05)
    if options.json:
        kept = {"facts": report.facts, "likeness": report.likeness, "figures": report.figures}
        kept |= {"left_out": report.left_out, "defects": report.defects}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    for defect in report.defects:
        print(f"error: {defect}", file=sys.stderr)
    return 1 if report.defects else 0


if __name__ == "__main__":
    sys.exit(main())
