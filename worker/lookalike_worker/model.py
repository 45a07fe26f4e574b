"""The model: settings in, a network ready to embed out, together with its record and why it runs where it runs.

The composition of everything around the network: `engines.choose` decides, `weights` finds and reads, `network` builds,
`convert` and `model_cache` spare a warm start the work and the memory that torch takes.
"""

import hashlib
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lookalike.decode import PREPROCESSING_VERSION
from lookalike.errors import SetupError
from lookalike.gallery import VERSION as GALLERY_VERSION
from lookalike.records import ModelInfo
from lookalike.settings import EngineKind, Precision, Settings
from lookalike_worker.engines import Engine
from lookalike_worker.engines.choose import Choice, choose
from lookalike_worker.engines.halving import Halving
from lookalike_worker.engines.hardware import Hardware, look
from lookalike_worker.model_cache import ModelCache
from lookalike_worker.weights import Source, fetch, load_file, source_of

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

#: The recipe of `network.fill_untrained`. It stands in for a hash of the weights, because the calibrated ones differ in
#: their last bits from one processor to the next; whatever changes a vector by more than that has to change it.
UNTRAINED_VERSION: Final = "1"
#: The recipe of `quantize` and of the pictures it calibrates on, the gallery's own version beside it.
QUANTIZATION_VERSION: Final = "1"


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A network that is loaded, its record, and one sentence on why it runs as it does."""

    engine: Engine
    model: ModelInfo
    reason: str


def load_embedder(settings: Settings) -> Embedder:
    """Load the network that the settings name, on what the machine has.

    Raises `WeightsNotFound` where its weights are not there and cannot be fetched within `weights_timeout_s`, and
    `SetupError` where the settings ask for what does not exist or does not fit.
    """
    hardware = look(for_gpus=settings.device != "cpu" and settings.engine is not EngineKind.OPENVINO)
    choice = choose(settings, hardware)
    log.info("%s", choice.reason)
    if choice.engine is EngineKind.OPENVINO:
        engine, info = _load_openvino(settings, choice, hardware)
    else:
        engine, info = _load_torch(settings, choice, hardware)
    # How a vector is made is no part of what is kept of a network: the same files serve every way.
    made = {"decode": settings.decode.value, "precision": engine.precision, "engine": engine.name}
    return Embedder(engine=Halving(engine), model=info.model_copy(update=made), reason=choice.reason)


def find_weights(settings: Settings) -> None:
    """Have the weights at hand, without loading them; downloads torchvision's. Raises as `load_embedder` does."""
    source = source_of(settings)
    if source.file is not None:
        source.identity()
    elif not source.untrained:
        fetch(settings, source.label)


def _load_torch(settings: Settings, choice: Choice, hardware: Hardware) -> tuple[Engine, ModelInfo]:
    from lookalike_worker.engines.torch_engine import TorchEngine

    network, info = _build(settings)
    return TorchEngine(network, choice, hardware, batch_images=settings.batch_images), info


def _load_openvino(settings: Settings, choice: Choice, hardware: Hardware) -> tuple[Engine, ModelInfo]:
    from lookalike_worker.engines.openvino_engine import OpenVINOEngine

    cache = ModelCache(settings.models_dir)
    info, file = _converted(settings, cache)
    try:
        return OpenVINOEngine(file, choice, hardware, batch_images=settings.batch_images), info
    except RuntimeError:
        log.warning("the converted network in %s cannot be used: converting it again", file.parent, exc_info=True)
        cache.forget_converted(info.fingerprint)
        info, file = _converted(settings, cache)
        return OpenVINOEngine(file, choice, hardware, batch_images=settings.batch_images), info


def _converted(settings: Settings, cache: ModelCache) -> tuple[ModelInfo, Path]:
    """Return the converted network of an earlier start, or convert it now, one worker at a time."""
    identity = _identity(settings, source_of(settings))
    kept = _kept(cache, identity)
    if kept is not None:
        return kept
    try:
        with cache.making():
            return _kept(cache, identity) or _convert_aside(settings, identity)  # A worker may have been faster.
    except OSError as error:
        raise SetupError(
            f"The converted network cannot be kept in {settings.models_dir}: {error.strerror}. "
            "Make LOOKALIKE_DATA_DIR a folder that can be written, with 1 GiB of free space."
        ) from error


def _kept(cache: ModelCache, identity: str) -> tuple[ModelInfo, Path] | None:
    info = cache.info(identity)
    file = cache.converted(info.fingerprint) if info else None
    return (info, file) if info and file else None


def _convert_aside(settings: Settings, identity: str) -> tuple[ModelInfo, Path]:
    """Convert in a process of its own, so that this one never holds torch, which takes more memory than the network."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(convert_and_keep, settings, identity).result()
        except BrokenProcessPool as error:
            raise SetupError(
                "The process that converts the network for OpenVINO died, most often for want of memory. "
                "Give this machine about 2 GiB for it, once, or set LOOKALIKE_ENGINE=torch."
            ) from error


def convert_and_keep(settings: Settings, identity: str) -> tuple[ModelInfo, Path]:
    """Build a network, convert it for OpenVINO and keep the outcome for later starts."""
    from lookalike_worker.convert import convert

    cache = ModelCache(settings.models_dir)
    network, info = _build(settings)
    file = cache.converted(info.fingerprint)  # The same tensors may have come in another file before.
    if file is None:
        quantized = settings.precision is Precision.INT8
        file = cache.keep_converted(info.fingerprint, lambda target: convert(network, target, quantized=quantized))
    cache.keep_info(identity, info)
    return info, file


def _build(settings: Settings) -> "tuple[nn.Module, ModelInfo]":
    """Build the network with its weights, and its record."""
    from lookalike_worker.network import build, fill_untrained, hash_weights, measure_dim

    source = source_of(settings)
    label = source.label
    if source.untrained:
        network, _ = build(settings.model)
        fill_untrained(network)
        weights_hash = f"untrained {UNTRAINED_VERSION}"
    else:
        if source.file is not None:
            source.identity()  # Says that there is no such file, before torchvision is asked for anything.
            network, head = build(settings.model)
            load_file(network, head, source.file)
        else:
            label = fetch(settings, source.label)
            network, _ = build(settings.model, weights=label, hub_dir=settings.models_dir)
        weights_hash = hash_weights(network)
    info = ModelInfo(
        name=settings.model,
        weights=label,
        trained=not source.untrained,
        fingerprint=_fingerprint(settings, weights_hash),
        dim=measure_dim(network),
    )
    return network, info


def _fingerprint(settings: Settings, weights_hash: str) -> str:
    """Digest what decides a vector, save for rounding: the same on every engine, in every precision but int8.

    What int8 rounds is more than what a collection may mix, so a network in int8 is another.
    """
    text = "\n".join((settings.model, weights_hash, PREPROCESSING_VERSION, *_quantization(settings)))
    return hashlib.sha256(text.encode()).hexdigest()


def _quantization(settings: Settings) -> tuple[str, ...]:
    return (f"int8 {QUANTIZATION_VERSION} {GALLERY_VERSION}",) if settings.precision is Precision.INT8 else ()


def _identity(settings: Settings, source: Source) -> str:
    """Return text that changes whenever the network might: what is kept under another is not used."""
    versions = (PREPROCESSING_VERSION, UNTRAINED_VERSION, metadata.version("torchvision"), *_quantization(settings))
    return "\n".join((settings.model, source.identity(), *versions))
