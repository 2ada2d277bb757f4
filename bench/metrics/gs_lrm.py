"""The perceptual training loss of GS-LRM (Zhang et al. 2024), which LVSM and Efficient-LVSM train with. It is not LPIPS.

VGG-19 with MatConvNet's weights up to conv5_2, each max-pooling replaced by an average: mean absolute differences of five
layers, each divided by its usual size, and of the pixels themselves, all on the scale 0..255, the sum divided by 255. So
half of LVSM's objective, at its weight of 0.5, is a plain L1 loss among others.

Axes: N images, H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "imagenet-vgg-verydeep-19.mat"
"""Name of the weights as the MatConvNet model zoo (VLFeat) publishes them."""
STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (2, 512))
"""Convolutions and channels of each stage; an average pooling stands between stages, and after conv5_2 nothing is read."""
LAYERS = tuple(
    (f"conv{stage}_{index}", channels if index > 1 else previous, channels)
    for stage, ((count, channels), (_, previous)) in enumerate(zip(STAGES, ((0, 3), *STAGES), strict=False), start=1)
    for index in range(1, count + 1)
)
"""Name, input and output channels of each convolution, 3 x 3 all."""
WEIGHTS = {"conv1_2": 1 / 2.6, "conv2_2": 1 / 4.8, "conv3_2": 1 / 3.7, "conv4_2": 1 / 5.6, "conv5_2": 10 / 1.5}
"""Layer, read behind its ReLU, and its weight."""
MEAN = (123.68, 116.779, 103.939)
"""Of ImageNet in RGB on the scale 0..255, subtracted from the input."""

Filters = dict[str, tuple["Tensor", "Tensor"]]
"""Layer -> filters [out, in, 3, 3] and biases [out]."""


class PerceptualLoss:
    """The loss under one file of weights; the network is no module, so that no state dict ever holds it."""

    def __init__(self, weights: str | Path) -> None:
        """`weights`: the file `FILE`."""
        self.weights = Path(weights).expanduser()

    def prepare(self) -> None:
        """Read and check the weights now, so that an error comes before any budget is spent.

        Raises:
            UserError: the file is missing, cannot be read, or a layer is missing or of another shape.
        """
        import torch

        _filters(self.weights, torch.device("cpu"))

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss averaged over all images; differentiable in `prediction`, in fp32 also under autocast.

        Args:
            prediction: RGB in 0..1 (not clamped), [N, 3, H, W]; H and W at least 16.
            target: the same shape.

        Returns:
            Scalar, fp32, 0 for equal images.

        Raises:
            UserError: as in `prepare`.
        """
        import torch

        filters = _filters(self.weights, prediction.device)
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = prediction.float() * 255, target.float() * 255
            with torch.no_grad():
                wanted = features(filters, target)
            found = features(filters, prediction)
            loss = (prediction - target).abs().mean()
            for layer, weight in WEIGHTS.items():
                loss = loss + weight * (found[layer] - wanted[layer]).abs().mean()
        return loss / 255

    def identity(self) -> dict[str, Any]:
        """What was loaded: ``name``, ``source`` (the file's name) and ``sha256`` of the file."""
        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": "GS-LRM perceptual loss (VGG-19)", "source": self.weights.name, "sha256": digest}


def features(filters: Filters, images: Tensor) -> dict[str, Tensor]:
    """The maps that the loss compares, behind their ReLUs.

    Args:
        filters: weights of `LAYERS`.
        images: RGB on the scale 0..255, [N, 3, H, W].

    Returns:
        Layer -> [N, C, h, w] for the layers of `WEIGHTS`.
    """
    import torch
    import torch.nn.functional as F

    # as numbers, since a tensor of them would be copied to the device in every step
    x = torch.stack([images[:, channel] - mean for channel, mean in enumerate(MEAN)], dim=1)
    maps = {}
    for layer, *_ in LAYERS:
        if layer.endswith("_1") and layer != LAYERS[0][0]:
            x = F.avg_pool2d(x, 2)
        x = F.relu(F.conv2d(x, *filters[layer], padding=1))
        if layer in WEIGHTS:
            maps[layer] = x
    return maps


def _filters(path: Path, device: torch.device) -> Filters:
    if not path.is_file():
        raise UserError(
            f"task.perceptual_loss_weights: {path} is no file: download {FILE} from the MatConvNet model zoo "
            "(vlfeat.org/matconvnet/pretrained) and give its path, or set task.perceptual_loss to another loss"
        )
    return _on_device(path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=4)
def _on_device(path: Path, modified: int, device: torch.device) -> Filters:
    """The frozen filters on `device`; `modified` is the file's time, so that another file under its name is read anew."""
    import torch

    with torch.inference_mode(False):  # first asked for in an evaluation, they must serve in training all the same
        return {
            layer: (torch.from_numpy(filters).to(device), torch.from_numpy(biases).to(device))
            for layer, (filters, biases) in _read(path).items()
        }


def _read(path: Path) -> dict[str, tuple[Any, Any]]:
    """Filters and biases in PyTorch's order of axes, from either of MatConvNet's layouts."""
    import numpy as np
    from scipy.io import loadmat

    mend = f"give {FILE} of the MatConvNet model zoo"
    try:
        content = loadmat(path, variable_names=["layers"], simplify_cells=True)["layers"]
        stored = {layer["name"]: layer for layer in content if layer["type"] == "conv"}
    except Exception as error:  # a file that is no .mat, or another one, fails in many ways
        raise UserError(
            f"task.perceptual_loss_weights: {path} holds no MatConvNet network ({type(error).__name__}): {mend}"
        ) from error
    arrays = {}
    for name, inputs, outputs in LAYERS:
        # until 2015 the two were fields of their own
        pair: Sequence[Any] = [stored.get(name, {}).get(key) for key in ("filters", "biases")]
        if name in stored and "weights" in stored[name]:
            pair = _pair(stored[name]["weights"])
        shapes = [None if value is None else np.shape(value) for value in pair]
        if shapes != [(3, 3, inputs, outputs), (outputs,)]:
            found = "missing" if None in shapes else f"of shapes {shapes[0]} and {shapes[1]}"
            raise UserError(
                f"task.perceptual_loss_weights: {path}: layer {name} must hold filters (3, 3, {inputs}, {outputs}) and "
                f"{outputs} biases, they are {found}: {mend}"
            )
        filters, biases = (np.asarray(value, dtype=np.float32) for value in pair)
        # stored as row, column, input, output
        arrays[name] = (np.ascontiguousarray(filters.transpose(3, 2, 0, 1)), biases.copy())
    return arrays


def _pair(value: Any) -> Sequence[Any]:
    """Filters and biases of one cell array; Nones where it holds another number of things."""
    return value if len(value) == 2 else (None, None)
