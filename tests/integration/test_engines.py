"""Loading a network and running it: any batch, any architecture, weights from anywhere, cold, warm and two at once."""

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from lookalike.decode import preprocess
from lookalike.errors import GPUOutOfMemory, SetupError, WeightsNotFound
from lookalike.gallery import STYLES, draw_picture
from lookalike.settings import EngineKind, Precision, Settings
from lookalike_worker.engines import invalid_rows
from lookalike_worker.engines.choose import Choice
from lookalike_worker.engines.halving import Halving
from lookalike_worker.engines.hardware import look
from lookalike_worker.engines.openvino_engine import divide
from lookalike_worker.engines.torch_engine import TorchEngine
from lookalike_worker.model import find_weights, load_embedder
from lookalike_worker.network import build, fill_untrained, hash_weights
from lookalike_worker.weights import download

Load = Callable[..., Any]


def some_pixels(count: int) -> NDArray[np.uint8]:
    """Pictures as smooth as photographs, each another."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture(scope="module")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def load(models_home: Path) -> Load:
    """Load a small network, from one models folder for all tests here, so that each is converted once."""

    def load(**changes: Any) -> Any:
        return load_embedder(
            Settings(**{"data_dir": models_home, "model": "resnet18", "weights": "untrained", **changes})
        )

    return load


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet18 state dict as torch saves it."""
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("seeded") / "seeded18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


# --- Batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_vector_does_not_depend_on_its_batch(engine: str, load: Load) -> None:
    embedder = load(engine=engine, device="cpu", precision="fp32")
    images = some_pixels(embedder.engine.batch_images + 5)  # Full rounds, a few side by side, one alone.

    together = embedder.engine.embed(images)
    alone = np.concatenate([embedder.engine.embed(images[row : row + 1]) for row in range(len(images))])

    assert together.dtype == np.float32
    assert together.shape == (len(images), embedder.model.dim) == (len(images), 512)
    assert not invalid_rows(together).any()
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    assert embedder.engine.embed(images[:0]).shape == (0, 512)


@pytest.mark.parametrize(
    ("images", "streams", "parts"),
    [
        (16, 2, (16, 0, 0)),
        (15, 2, (8, 6, 1)),
        (1, 2, (0, 0, 1)),
        (2, 2, (0, 2, 0)),
        (32 + 8 + 5, 8, (32, 13, 0)),
        (32 + 8 + 4, 8, (32, 8, 4)),
        (7, 1, (4, 0, 3)),
    ],
)
def test_a_batch_keeps_all_cores_busy_whatever_its_size(images: int, streams: int, parts: tuple[int, int, int]) -> None:
    rounds, waves = divide(images, streams)

    assert (rounds, waves, images - rounds - waves) == parts


class Memory(nn.Module):
    """A network whose memory holds so many images; it keeps the sizes of the batches that fitted."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.fitted: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.images:
            raise torch.OutOfMemoryError("out of memory")
        self.fitted.append(len(batch))
        return batch.mean(dim=(2, 3))


ON_CPU = Choice(engine=EngineKind.TORCH, device="cpu", precision=Precision.FP32, reason="a test.")


def test_a_batch_beyond_the_memory_is_halved_until_it_fits() -> None:
    network, roomy = Memory(images=3), Memory(images=100)
    images = some_pixels(21)

    halving = Halving(TorchEngine(network, ON_CPU, look(), batch_images=16))
    vectors = halving.embed(images)

    np.testing.assert_allclose(vectors, TorchEngine(roomy, ON_CPU, look(), batch_images=16).embed(images))
    assert network.fitted[1:] == [2] * 10 + [1], "after the one that measures the vector's length"
    assert halving.batch_images == 2, "it is kept: the next batch does not run into the same wall"


def test_a_batch_that_was_halved_grows_back_once_there_is_memory_again() -> None:
    network = Memory(images=3)
    halving = Halving(TorchEngine(network, ON_CPU, look(), batch_images=16), grow_after=2)
    halving.embed(some_pixels(16))
    network.images = 100

    halving.embed(some_pixels(200))

    assert halving.batch_images == 16
    assert max(network.fitted) == 16


def test_one_image_beyond_the_memory_is_its_own_error() -> None:
    network = Memory(images=1)
    halving = Halving(TorchEngine(network, ON_CPU, look(), batch_images=4))
    network.images = 0

    with pytest.raises(GPUOutOfMemory):
        halving.embed(some_pixels(4))


class Broken:
    """An engine that fails with an error that it is given."""

    name, device, precision, batch_images = "broken", "cpu", "fp32", 4

    def __init__(self, error: Exception) -> None:
        self.error = error

    def embed(self, _: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223:\nstd::bad_alloc"),
    ],
    ids=["python", "cuda", "torch-cpu", "openvino"],
)
def test_every_framework_says_in_its_own_way_that_memory_is_out(error: Exception) -> None:
    with pytest.raises(GPUOutOfMemory):
        Halving(Broken(error)).embed(some_pixels(2))


def test_a_defect_is_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        Halving(Broken(RuntimeError("size mismatch"))).embed(some_pixels(2))


# --- How vectors are made ---------------------------------------------------------------------------------------------


def test_a_record_says_how_vectors_are_made_and_ways_that_may_be_mixed_share_a_fingerprint(load: Load) -> None:
    exact = load(engine="openvino", precision="fp32", decode="exact").model
    fast = load(engine="openvino", precision="fp32").model

    assert (exact.engine, exact.precision, exact.decode) == ("openvino", "fp32", "exact")
    assert fast == exact.model_copy(update={"decode": "fast"})


def test_a_network_in_int8_is_near_the_reference_and_another_model(load: Load) -> None:
    if not look().computes_int8:
        with pytest.raises(SetupError, match="no instructions"):
            load(engine="openvino", precision="int8")
        return
    images = np.stack([preprocess(draw_picture(style, 100)) for style in STYLES])
    plain = load(engine="openvino", precision="fp32")
    rounded = load(engine="openvino", precision="int8")

    left, right = plain.engine.embed(images), rounded.engine.embed(images)
    cosines = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    assert 0.99 < cosines.min() < 0.999999, "near, but not what fp32 gives"
    assert rounded.model.precision == "int8"
    assert rounded.model.fingerprint != plain.model.fingerprint, "a collection holds the vectors of one of them"
    assert load(engine="openvino", precision="int8").model == rounded.model


# --- Architectures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim"),
    [("mobilenet_v3_small", 1024), ("efficientnet_b0", 1280), ("regnet_y_400mf", 440)],
)
def test_any_classification_network_gives_vectors_that_differ(name: str, dim: int, load: Load) -> None:
    embedder = load(model=name, engine="torch", device="cpu")
    vectors = embedder.engine.embed(some_pixels(2))

    assert vectors.shape == (2, dim) == (2, embedder.model.dim)
    assert not invalid_rows(vectors).any()
    assert not np.allclose(vectors[0], vectors[1], rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "dim"), [("vit_b_32", 768), ("convnext_tiny", 768), ("densenet121", 1024), ("squeezenet1_1", 512)]
)
def test_the_classification_layer_is_found_in_other_families(name: str, dim: int) -> None:
    network, head = build(name)

    assert isinstance(network.get_submodule(head), nn.Identity)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, dim)


def test_an_unknown_network_is_an_error(load: Load) -> None:
    with pytest.raises(SetupError, match="resnet50"):
        load(model="resnet51", engine="torch", device="cpu")


# --- The untrained network ------------------------------------------------------------------------------------------


def test_the_untrained_network_is_the_same_whatever_was_drawn_before(load: Load) -> None:
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        network, _ = build("resnet18")
        fill_untrained(network)
        digests.add(hash_weights(network))

    assert len(digests) == 1
    assert load(engine="torch", device="cpu").model.trained is False


# --- Weights --------------------------------------------------------------------------------------------------------


def test_the_same_tensors_have_one_fingerprint_in_every_format_and_engine(
    seeded: Path, tmp_path: Path, load: Load
) -> None:
    state = torch.load(seeded, weights_only=True)
    save_file(state, tmp_path / "whole.safetensors")
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "headless.pth")
    files = (seeded, tmp_path / "whole.safetensors", tmp_path / "headless.pth")

    embedders = [load(weights=str(file), engine="torch", device="cpu") for file in files]
    embedders.append(load(weights=str(seeded), engine="openvino"))
    torch.save({**state, "conv1.weight": state["conv1.weight"] * 1.001}, tmp_path / "other.pth")
    other = load(weights=str(tmp_path / "other.pth"), engine="torch", device="cpu")

    assert {embedder.model.fingerprint for embedder in embedders} == {embedders[0].model.fingerprint}
    assert {other.model.fingerprint, load(engine="torch", device="cpu").model.fingerprint}.isdisjoint(
        {embedders[0].model.fingerprint}
    )
    assert [embedder.model.weights for embedder in embedders] == [*(file.name for file in files), seeded.name]
    assert all(embedder.model.trained for embedder in embedders)


def test_a_changed_weights_file_is_noticed_by_a_warm_start(seeded: Path, tmp_path: Path, load: Load) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(seeded.read_bytes())
    before = load(weights=str(path), engine="openvino").model.fingerprint
    state = torch.load(path, weights_only=True)
    torch.save({**state, "conv1.weight": -state["conv1.weight"]}, path)

    assert load(weights=str(path), engine="openvino").model.fingerprint != before


def test_weights_that_do_not_fit_say_what_does_not(seeded: Path, tmp_path: Path, load: Load) -> None:
    with pytest.raises(SetupError, match=r"missing.*layer1\.0\.bn3"):
        load(weights=str(seeded), model="resnet50", engine="torch", device="cpu")
    state = torch.load(seeded, weights_only=True)
    torch.save({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(SetupError, match=r"1 of another shape, as `conv1\.weight`"):
        load(weights=str(tmp_path / "grey.pth"), engine="openvino")  # And out of the process that converts.
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(SetupError, match="something else than a state dict"):
        load(weights=str(tmp_path / "list.pth"), engine="torch", device="cpu")


@pytest.mark.parametrize("content", [b"no weights at all" * 100, b"", b".", b"R", b"hx", b"PK\x03\x04" + bytes(40)])
@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_file_that_holds_no_weights_is_refused_without_torchs_advice_to_load_it_unsafely(
    name: str, content: bytes, tmp_path: Path, load: Load
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError) as refused:
        load(weights=str(tmp_path / name), engine="torch", device="cpu")
    assert refused.value.message == (
        f"{tmp_path / name} is not a weights file that can be read safely. "
        "Give a state dict saved by torch (.pth) or safetensors."
    )
    assert refused.value.__suppress_context__, "a traceback does not show torch's text either"


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path, load: Load) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(SetupError, match="can be read safely"):
        load(weights=str(tmp_path / "hostile.pth"), engine="torch", device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_missing_weights_file_says_what_to_do(engine: str, load: Load) -> None:
    with pytest.raises(WeightsNotFound, match=r"LOOKALIKE_WEIGHTS to a \.pth or \.safetensors file, or to `untrained`"):
        load(weights="/nowhere/weights.pth", engine=engine, device="cpu")


def test_weights_that_torchvision_does_not_have_are_an_error(load: Load) -> None:
    with pytest.raises(SetupError, match="IMAGENET1K_V9"):
        load(weights="IMAGENET1K_V9", engine="torch", device="cpu")


# --- Downloads ------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word, like a network that swallows packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_download_that_hangs_ends_within_its_deadline(
    silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent_port}")
    begun_s = time.monotonic()

    with pytest.raises(WeightsNotFound, match=r"not done after 1 seconds.*LOOKALIKE_WEIGHTS"):
        find_weights(Settings(data_dir=tmp_path, weights_timeout_s=1.0))

    assert time.monotonic() - begun_s < 5
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_that_is_refused_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")

    with pytest.raises(WeightsNotFound, match=r"resnet18.*refused.*LOOKALIKE_WEIGHTS"):
        load_embedder(Settings(data_dir=tmp_path, model="resnet18", engine=EngineKind.TORCH, device="cpu"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL a server shows it under."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_counts_only_with_the_hash_in_its_name(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    good = f"net-{sha256(b'weights').hexdigest()[:8]}.pth"
    (folder / good).write_bytes(b"weights")
    (folder / "net-0123abcd.pth").write_bytes(b"weights")

    download(f"{url}/{good}", tmp_path / good, timeout_s=10)
    with pytest.raises(WeightsNotFound, match="hash"):
        download(f"{url}/net-0123abcd.pth", tmp_path / "net-0123abcd.pth", timeout_s=10)

    assert (tmp_path / good).read_bytes() == b"weights"
    assert {path.name for path in tmp_path.iterdir()} == {"served", good}


def test_torchvisions_weights_are_found_where_its_download_puts_them(tmp_path: Path) -> None:
    damaged = tmp_path / "models" / "checkpoints" / "resnet18-f37072fd.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no weights")

    with pytest.raises(SetupError, match=r"resnet18-f37072fd\.pth is damaged"):
        find_weights(Settings(data_dir=tmp_path, model="resnet18"))


def test_torchvisions_weights_are_read_from_our_folder(seeded: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(seeded.read_bytes())
    hub_before = torch.hub.get_dir()

    network, _ = build("resnet18", weights="IMAGENET1K_V1", hub_dir=tmp_path)

    wanted = torch.load(seeded, weights_only=True)["layer4.1.conv2.weight"]
    assert torch.equal(network.state_dict()["layer4.1.conv2.weight"], wanted)
    assert torch.hub.get_dir() == hub_before


# --- Starts ---------------------------------------------------------------------------------------------------------

START = """
import json, sys
from lookalike.settings import Settings
from lookalike_worker.model import load_embedder
import numpy as np

if __name__ == "__main__":
    embedder = load_embedder(Settings())
    vector = embedder.engine.embed(np.full((1, 224, 224, 3), 77, np.uint8))[0]
    print(json.dumps([embedder.model.fingerprint, float(np.linalg.norm(vector)), "torch" in sys.modules]))
"""


def start(data_dir: Path, script: Path) -> str:
    """Load a network in a process of its own, as a worker does; returns what it prints."""
    environment = {
        "LOOKALIKE_DATA_DIR": str(data_dir),
        "LOOKALIKE_MODEL": "resnet18",
        "LOOKALIKE_WEIGHTS": "untrained",
        "LOOKALIKE_ENGINE": "openvino",
    }
    return subprocess.run([sys.executable, script], env=environment, check=True, capture_output=True, text=True).stdout


def test_two_cold_starts_at_once_agree_and_a_warm_one_needs_no_torch(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(START)

    with ThreadPoolExecutor() as pool:
        cold = set(pool.map(start, [tmp_path] * 2, [script] * 2))
    warm = start(tmp_path, script)

    assert cold == {warm}
    assert "false" in warm, "torch was imported"
    assert len(list((tmp_path / "models" / "openvino").iterdir())) == 1


def test_a_damaged_converted_network_is_made_again(load: Load, models_home: Path) -> None:
    embedder = load(engine="openvino", precision="fp32")
    before = embedder.engine.embed(some_pixels(1))
    values = models_home / "models" / "openvino" / embedder.model.fingerprint / "network.bin"
    damaged = values.with_name("damaged")
    damaged.write_bytes(values.read_bytes()[:1000])
    damaged.replace(values)  # As a new file: the old one is in use.

    again = load(engine="openvino", precision="fp32").engine.embed(some_pixels(1))

    assert np.array_equal(before, again)
