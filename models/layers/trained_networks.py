"""The trained networks behind `models.layers.image_encoder`, one interface over two libraries, and their weights.

timm builds DINOv2, DINOv3 and PE-Core and knows their published files; ``stlpips-pytorch`` carries a trained AlexNet in its
wheel. Both are imported when a network is built, not before.

Axes: N images, H x W pixels, F channels and h x w rows and columns of a feature map.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.reference import load_strictly

HUB_FILE = "model.safetensors"
"""Name of the weights in each of timm's repositories."""


class Network(NamedTuple):
    """What is known of a network before it is built."""

    blocks: int
    patch_size: int
    """Edge of a patch in pixels; 0: it has none."""
    input_size: int
    """Edge of the images with ``resize: features``, where the configuration names none."""
    timm: str = ""
    """timm's name of architecture and weights, and of their repository ``timm/NAME``."""


NETWORKS = {
    "dinov2-b14": Network(12, 14, 448, "vit_base_patch14_dinov2.lvd142m"),
    "dinov2-l14": Network(24, 14, 448, "vit_large_patch14_dinov2.lvd142m"),
    "dinov3-b16": Network(12, 16, 512, "vit_base_patch16_dinov3.lvd1689m"),
    "pe-core-l14": Network(24, 14, 336, "vit_pe_core_large_patch14_336.fb"),
    "alexnet": Network(5, 0, 224),
}


class VisionTransformer(nn.Module):
    """One of timm's vision transformers."""

    timm: Any
    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        network: Any = timm.create_model(NETWORKS[name].timm, pretrained=False, dynamic_img_size=True)
        self.timm = network
        self.patch_size = self.smallest = NETWORKS[name].patch_size
        self.channels: list[int] = [network.embed_dim] * len(network.blocks)
        for constant in ("mean", "std"):
            values = torch.tensor(network.pretrained_cfg[constant])[:, None, None]
            self.register_buffer(constant, values, persistent=False)

    def load(self, path: Path) -> None:
        """Fill the network from a file in timm's or the original layout, strictly."""
        from timm.models import load_state_dict

        # timm keeps a converter of original layouts beside each architecture.
        convert = importlib.import_module(type(self.timm).__module__).checkpoint_filter_fn
        _load(self.timm, path, lambda: convert(load_state_dict(str(path), weights_only=True), self.timm))

    def cut(self, layer: int) -> None:
        """Drop what lies behind block ``layer``; all is kept for 0 but the classification head."""
        self.timm.prune_intermediate_layers([(layer or len(self.timm.blocks)) - 1], prune_norm=layer > 0)
        self.channels = self.channels[: layer or None]

    def make_traceable(self) -> None:
        """Cut patches without a convolution, which torch cannot trace on meta tensors (fvcore does, to count FLOPs)."""
        self.timm.patch_embed.proj = _PatchLinear(self.timm.patch_embed.proj)

    def scaled(self, images: Tensor) -> Tensor:
        """RGB in 0..1 as the network was trained on it: by ImageNet's mean and deviation, or to -1..1 (PE-Core)."""
        return (images - self.mean) / self.std

    def forward(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[N, 3, H, W] -> patch tokens [N, F, h, w] of the layers, ascending; [0] is the last one with the final norm."""
        last = list(layers) == [0]
        indices = [len(self.timm.blocks) - 1] if last else [layer - 1 for layer in layers]
        return list(self.timm.forward_intermediates(pixels, indices=indices, norm=last, intermediates_only=True))

    def flops(self, height: int, width: int) -> int:
        """Of one image: patches, then in each block projections, MLP and attention over patches and prefix tokens."""
        d, patches = self.timm.embed_dim, (height // self.patch_size) * (width // self.patch_size)
        tokens = patches + self.timm.num_prefix_tokens
        blocks = sum(
            2 * tokens * d * (4 * d + 2 * block.mlp.fc1.out_features) + 4 * tokens**2 * d for block in self.timm.blocks
        )
        return int(2 * patches * d * 3 * self.patch_size**2 + blocks)


class _PatchLinear(nn.Module):
    """A convolution whose stride is its kernel, as the matrix product that it is."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.patch_size = convolution.weight, convolution.bias, convolution.stride[0]

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, D, h, w]."""
        patches = F.pixel_unshuffle(pixels, self.patch_size).movedim(1, -1)
        return F.linear(patches, self.weight.flatten(1), self.bias).movedim(-1, 1)


class AlexNet(nn.Module):
    """Trunk of ST-LPIPS (Ghildyal and Liu 2022); its five layers are the outputs of the five ReLUs."""

    patch_size = 0
    smallest = 32
    scaling_layer: Any
    net: Any

    def __init__(self, name: str) -> None:
        super().__init__()
        # The package prints and warns while it is imported, and fills its filters from arrays, which meta refuses.
        with torch.device("cpu"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from stlpips_pytorch import invariant_networks, stlpips

            self.scaling_layer = stlpips.ScalingLayer()
            self.net = invariant_networks.alexnet(variant="shift_tolerant", filter_size=3)

    def load(self, path: Path) -> None:
        """Fill the trunk from the package's file, strictly; its calibration ``lin*`` belongs to the metric alone."""
        _load(self, path, lambda: torch.load(path, map_location="cpu", weights_only=True), dropped=("lin",))

    def cut(self, layer: int) -> None:
        """Drop what lies behind ``layer``; AlexNet has no final norm."""
        self.net = nn.ModuleList(list(self.net.children())[: layer or None])

    def make_traceable(self) -> None:
        """Nothing to do: it is counted on the CPU, its weights being always at hand."""

    @property
    def channels(self) -> list[int]:
        """Channels of each layer that is kept."""
        return [module.out_channels for module in self.net.modules() if isinstance(module, nn.Conv2d)]

    def scaled(self, images: Tensor) -> Tensor:
        """RGB in 0..1 as the package scales it: to -1..1, then by its own mean and deviation."""
        return self.scaling_layer(images * 2 - 1)

    def forward(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[N, 3, H, W] -> [N, F, h, w] of the layers, ascending; [0] is the last one."""
        outputs = []
        for stage in self.net:
            pixels = stage(pixels)
            outputs.append(pixels)
        return [outputs[layer - 1] for layer in layers]

    def flops(self, height: int, width: int) -> int:
        """Of one image: convolutions and the depthwise blurs between them."""
        total = 0
        for layer in self.net.modules():
            blurs = hasattr(layer, "filt")
            if blurs:
                kernel, stride, padding = layer.filt_size, layer.stride, layer.pad_sizes[0] + layer.pad_sizes[1]
            elif isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                kernel, stride, padding = (_edge(value) for value in (layer.kernel_size, layer.stride, layer.padding))
                padding *= 2
            else:
                continue
            height, width = ((edge + padding - kernel) // stride + 1 for edge in (height, width))
            if blurs or isinstance(layer, nn.Conv2d):
                total += 2 * height * width * (layer.filt if blurs else layer.weight).numel()
        return total


def _edge(value: Any) -> int:
    return value if isinstance(value, int) else int(value[0])


def _load(network: nn.Module, path: Path, read: Callable[[], Any], dropped: Iterable[str] = ()) -> None:
    try:
        state = read()
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ValueError(
            f"image encoder: weights {path} cannot be read ({type(error).__name__}): give a .safetensors, .pt or .pth file"
        ) from error
    try:
        load_strictly(network, state, dropped=tuple(dropped))
    except ValueError as error:
        raise ValueError(f"image encoder: weights {path}: {error}") from error


def find_weights(name: str, weights: str) -> tuple[Path, str]:
    """The file and how a record names it."""
    if weights:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ValueError(f"image encoder: weights must be a file, got {weights!r}: mend the path")
        return path, path.name
    if name == "alexnet":
        found = importlib.util.find_spec("stlpips_pytorch")
        if found is None or found.origin is None:
            raise ValueError(f"image encoder {name} needs the package stlpips-pytorch: pip install stlpips-pytorch")
        file = Path("weights", "vST0.0", "alex_shift_tolerant.pth")
        path = Path(found.origin).parent / file
        if not path.is_file():
            raise ValueError(f"image encoder {name}: {path} is missing: reinstall stlpips-pytorch")
        return path, f"stlpips-pytorch: {file.as_posix()}"
    repository = f"timm/{NETWORKS[name].timm}"
    try:
        return Path(_fetch(repository)), f"{repository}: {HUB_FILE}"
    except Exception as error:  # no connection, no access, no room: whatever it is, the mend is the same
        raise ValueError(
            f"image encoder {name}: its weights could not be fetched ({type(error).__name__}): download {HUB_FILE} "
            f"from https://huggingface.co/{repository} and set weights to its path"
        ) from error


def _fetch(repository: str) -> str:
    """Path of the file in the hub's cache, fetched if need be."""
    from timm.models._hub import download_from_hf

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it reports each of its attempts; what comes of them is said in one line
    try:
        return str(download_from_hf(repository, HUB_FILE))
    finally:
        logger.setLevel(level)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
