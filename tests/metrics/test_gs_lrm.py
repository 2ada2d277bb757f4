"""GS-LRM's perceptual loss against an independent computation, from both layouts of MatConvNet's files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.io import savemat
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import UserError
from bench.metrics import gs_lrm

PLAN = "64 64 P 128 128 P 256 256 256 256 P 512 512 512 512 P 512 512"
"""VGG-19's channels up to conv5_2 with its poolings."""


def network() -> list[dict[str, object]]:
    """Layers of MatConvNet's file, fully connected ones apart, with random filters that keep the signal's size."""
    generator = np.random.default_rng(0)
    layers: list[dict[str, object]] = []
    channels, stage, index = 3, 1, 1
    for entry in PLAN.split():
        if entry == "P":
            layers.append({"type": "pool", "name": f"pool{stage}", "method": "max", "stride": 2.0})
            stage, index = stage + 1, 1
            continue
        width = int(entry)
        filters = generator.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, width)).astype(np.float32)
        biases = generator.normal(0, 0.1, (1, width)).astype(np.float32)
        layers.append(
            {"type": "conv", "name": f"conv{stage}_{index}", "filters": filters, "biases": biases, "pad": 1.0}
        )
        layers.append({"type": "relu", "name": f"relu{stage}_{index}"})
        channels, index = width, index + 1
    # behind what is read: must be ignored
    layers.append({"type": "conv", "name": "conv5_3", "filters": np.zeros((1, 1), np.float32), "biases": np.zeros(1)})
    return layers


def cells(values: list[object]) -> np.ndarray:
    """A MATLAB cell array, 1 x N."""
    array = np.empty((1, len(values)), dtype=object)
    array[0] = values
    return array


def save(path: Path, layers: list[dict[str, object]], layout: str) -> Path:
    if layout == "weights":
        layers = [
            {key: value for key, value in layer.items() if key not in ("filters", "biases")}
            | ({"weights": cells([layer["filters"], layer["biases"]])} if "filters" in layer else {})
            for layer in layers
        ]
    array = np.empty((1, len(layers)), dtype=object)
    for index, layer in enumerate(layers):
        array[0, index] = layer
    savemat(path, {"layers": array, "classes": {"name": "cat"}})
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, layers = tmp_path_factory.mktemp("vgg"), network()
    return {layout: save(folder / f"{layout}.mat", layers, layout) for layout in ("weights", "filters")}


def images(count: int = 2, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(count, 3, size, size, generator=generator) for _ in range(2))


def by_hand(layers: list[dict[str, object]], prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """In fp64, in the order of the file."""
    weights = {"conv1_2": 1 / 2.6, "conv2_2": 1 / 4.8, "conv3_2": 1 / 3.7, "conv4_2": 1 / 5.6, "conv5_2": 10 / 1.5}
    both = torch.cat([prediction, target]).double() * 255
    total = (both[: len(prediction)] - both[len(prediction) :]).abs().mean()
    x = both - torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64).view(1, 3, 1, 1)
    for layer in layers:
        if layer["type"] == "pool":
            x = F.avg_pool2d(x, kernel_size=2, stride=2)
        elif layer["type"] == "conv":
            kernel = torch.from_numpy(layer["filters"]).double()
            x = F.conv2d(
                x, torch.einsum("hwio->oihw", kernel), torch.from_numpy(layer["biases"])[0].double(), padding=1
            )
            x = x.clamp(min=0)
            if layer["name"] in weights:
                total = total + weights[layer["name"]] * (x[: len(prediction)] - x[len(prediction) :]).abs().mean()
            if layer["name"] == "conv5_2":
                return total / 255
    raise AssertionError


@pytest.mark.parametrize("layout", ["weights", "filters"])
def test_it_is_the_published_sum(files: dict[str, Path], layout: str) -> None:
    loss = gs_lrm.PerceptualLoss(files[layout])
    loss.prepare()
    prediction, target = images()
    value = loss(prediction, target)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value.item() == pytest.approx(by_hand(network(), prediction, target).item(), rel=1e-5)
    assert loss(target, target).item() == 0


def test_gradients_reach_the_prediction_alone(files: dict[str, Path]) -> None:
    loss = gs_lrm.PerceptualLoss(files["weights"])
    prediction, target = (image.requires_grad_() for image in images(1))
    with torch.inference_mode():  # asked for in an evaluation first
        loss(prediction, target)
    loss(prediction, target).backward()
    assert (prediction.grad.abs().amax(dim=1) > 0).all()
    before = loss(prediction, target).item()
    assert loss(prediction.detach() - 1e-2 * prediction.grad / prediction.grad.abs().max(), target).item() < before
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(prediction.bfloat16().float(), target).item() == loss(prediction.bfloat16(), target).item()


def test_the_target_has_no_gradient_through_the_network(files: dict[str, Path]) -> None:
    loss = gs_lrm.PerceptualLoss(files["weights"])
    prediction, target = images(1)
    target.requires_grad_()
    loss(prediction, target).backward()
    assert target.grad.abs().max() <= 1 / target.numel() * 1.001, (
        "only the plain L1 term reads the target with gradient"
    )


def test_it_costs_what_was_measured_on_the_published_code() -> None:
    filters = {
        name: (torch.empty(outputs, inputs, 3, 3, device="meta"), torch.empty(outputs, device="meta"))
        for name, inputs, outputs in gs_lrm.LAYERS
    }
    with FlopCounterMode(display=False) as counter:
        maps = gs_lrm.features(filters, torch.empty(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() == pytest.approx(48.5e9, rel=2e-3)
    assert [tuple(tensor.shape[1:]) for tensor in maps.values()] == [
        (64, 256, 256),
        (128, 128, 128),
        (256, 64, 64),
        (512, 32, 32),
        (512, 16, 16),
    ]


def test_a_missing_file_says_where_it_is_published(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"imagenet-vgg-verydeep-19.mat from the MatConvNet model zoo") as error:
        gs_lrm.PerceptualLoss(tmp_path / "nowhere.mat").prepare()
    assert str(error.value).startswith("task.perceptual_loss_weights: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.mat"
    path.write_bytes(b"half a download")
    with pytest.raises(UserError, match="holds no MatConvNet network"):
        gs_lrm.PerceptualLoss(path).prepare()
    savemat(path, {"something": np.zeros(3)})
    with pytest.raises(UserError, match="holds no MatConvNet network"):
        gs_lrm.PerceptualLoss(path).prepare()


@pytest.mark.parametrize("layout", ["weights", "filters"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: layer.update(name="conv9_9"), "layer conv3_2 must hold .* they are missing"),
        (lambda layer: layer.update(filters=layer["filters"][:, :, :200]), r"layer conv3_2 .* \(3, 3, 200, 256\)"),
        (lambda layer: layer.update(biases=layer["biases"][:, :9]), r"layer conv3_2 .* and \(9,\)"),
    ],
)
def test_a_wrong_layer_is_named(tmp_path: Path, layout: str, change: object, message: str) -> None:
    layers = network()
    change(next(layer for layer in layers if layer["name"] == "conv3_2"))
    with pytest.raises(UserError, match=message):
        gs_lrm.PerceptualLoss(save(tmp_path / "vgg.mat", layers, layout)).prepare()


def test_another_file_under_the_same_name_is_read_anew(tmp_path: Path, files: dict[str, Path]) -> None:
    import os

    path = tmp_path / "vgg.mat"
    path.write_bytes(files["weights"].read_bytes())
    loss, (prediction, target) = gs_lrm.PerceptualLoss(path), images(1)
    first, identity = loss(prediction, target), loss.identity()
    layers = network()
    layers[0]["filters"] = 2 * layers[0]["filters"]
    save(path, layers, "weights")
    os.utime(path, ns=(1, 1))
    assert loss(prediction, target) > first
    assert identity["sha256"] != loss.identity()["sha256"]
    assert re.fullmatch("[0-9a-f]{64}", identity["sha256"])
