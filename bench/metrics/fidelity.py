"""How far the set of painted images is from the set of true ones: FID and KID, or the like on AlexNet under another name.

FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) are distances between features of one Inception network, whose weights
no package carries. The trained AlexNet of ``stlpips-pytorch`` comes in its wheel; distances between its features are FD and KD
(AlexNet), other numbers under other names. Nothing is ever computed with random weights. A sample's record holds the features
of its two images; `bench.aggregates` makes the distances from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.aggregates import encode_features
from bench.contracts import Metric
from bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Fidelity = Literal["none", "inception-64", "inception-192", "inception-768", "inception-2048", "alexnet"]
CHOICES: tuple[str, ...] = get_args(Fidelity)

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the weights as torch-fidelity publishes them."""
RELEASE = "the release v0.2.0 of torch-fidelity (github.com/toshas/torch-fidelity)"

SMALLEST_SIDE = 32
"""Pixels: below this AlexNet's feature maps vanish. Inception enlarges what it is given."""


@dataclass(frozen=True)
class _Extractor:
    package: str
    distribution: str
    title: str
    reading: str
    """How it gets its numbers from an image of 8 bits."""
    sha256: str
    """First digits of the sum of the only file of weights that it takes."""


_INCEPTION = _Extractor(
    "torch_fidelity",
    "torch-fidelity",
    "Inception v3 of 2015",
    "enlarged to 299 x 299 px as TensorFlow 1 does (bilinear)",
    "6726825d",
)
_ALEXNET = _Extractor(
    "stlpips_pytorch",
    "stlpips-pytorch",
    "trunk of shift-tolerant LPIPS (AlexNet, not Inception)",
    "read at their own size, last layer, each position divided by its root mean square, mean over positions",
    "b356b382",
)
ALEXNET_DIMENSIONS = 256


def needs_file(kind: str) -> bool:
    """Whether the weights of this kind come in no package, so that their file must be given."""
    return kind.startswith("inception-")


def dimensions(kind: str) -> int:
    """Number of features of an image."""
    return int(kind.removeprefix("inception-")) if needs_file(kind) else ALEXNET_DIMENSIONS


def record_key(kind: str) -> str:
    """Where a record holds its features: ``inception_2048``, ``alexnet``."""
    return kind.replace("-", "_")


def metrics(kind: str, images: int | None) -> tuple[Metric, ...]:
    """How to read the distances of a kind, both lower is better: of Gaussians, where it has a value, and by a kernel.

    Args:
        kind: any but ``none``.
        images: how many the result is computed from; None where that is not known yet.

    Returns:
        ``fid`` and ``kid`` of Inception's 2048 features, ``fid_64``, ``kid_64`` and so on of an earlier layer, ``fd_alexnet`` and
        ``kd_alexnet``. The first of the two is left out where there are no more images than features: its covariance
        would be singular, and its bias large.
    """
    net, size, key = _extractor(kind), dimensions(kind), record_key(kind)
    about = (
        f"{net.distribution} {version(net.distribution)}, {net.title}, weights {net.sha256}.., {size} features; RGB clamped to "
        f"[0, 1], rounded to 8 bits, {net.reading}; features kept in 16 bits; painted against true"
    )
    count = "" if images is None else f", {images} images each"
    if kind == "alexnet":
        suffix, label = "d_alexnet", "D (AlexNet)"
    elif size == 2048:
        suffix, label = "id", "ID"
    else:
        suffix, label = f"id_{size}", f"ID ({size} features)"
    kernel = "unbiased squared MMD of all images at once (no subsets), kernel (x.y / features + 1)^3"
    frechet = Metric(
        f"f{suffix}", f"F{label}", False, 2, f"Fréchet distance of Gaussians; {about}{count}", "frechet", of=key
    )
    few = images is not None and images <= size
    if few:
        kernel += f"; no F{label}, which needs more than {size} images"
    found = Metric(f"k{suffix}", f"K{label}", False, 4, f"{kernel}; {about}{count}", "kernel", of=key)
    return (found,) if few else (frechet, found)


class FeatureExtractor:
    """Features of images under one pinned network; the network is built at the first use of a device."""

    def __init__(self, kind: str, weights: str | None = None) -> None:
        """`kind`: any of `CHOICES` but ``none``; `weights`: the file `INCEPTION_FILE`, of the kinds that need it.

        Raises:
            UserError: the package is missing.
        """
        net = _extractor(kind)
        if importlib.util.find_spec(net.package) is None:
            raise UserError(
                f"task.fidelity: {kind} needs the package {net.distribution}: pip install {net.distribution}"
            )
        self.kind = kind
        self.weights = Path(weights).expanduser() if weights else None

    def prepare(self) -> None:
        """Read and check the weights now, so that an error comes before any budget is spent.

        Raises:
            UserError: the file is missing or another one.
        """
        import torch

        _network(self.kind, self.weights, torch.device("cpu"))

    def __call__(self, images: Tensor) -> Tensor:
        """Features of each image.

        Args:
            images: RGB [N, 3, H, W], clamped to 0..1 and rounded to 8 bits, as they would stand in a file.

        Returns:
            [N, `dimensions`] fp32, on the device of `images`.

        Raises:
            UserError: as in `prepare`.
        """
        import torch

        network: Any = _network(self.kind, self.weights, images.device)
        pixels = images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
        with torch.autocast(images.device.type, enabled=False):
            if needs_file(self.kind):
                features: Tensor = network(pixels)[0]
                return features
            last = network.net(network.scaling_layer(pixels.float() / 127.5 - 1))[-1]
            return (last / (last.square().mean(dim=1, keepdim=True).sqrt() + 1e-10)).mean(dim=(2, 3))

    def records(self, prediction: Tensor, truth: Tensor) -> list[dict[str, str]]:
        """What the records of N samples hold under `record_key`, from their images, both [N, 3, H, W]."""
        painted, true = (map(encode_features, self(images).cpu().numpy()) for images in (prediction, truth))
        return [{"prediction": one, "truth": other} for one, other in zip(painted, true, strict=True)]


def _extractor(kind: str) -> _Extractor:
    return _INCEPTION if needs_file(kind) else _ALEXNET


@lru_cache(maxsize=4)
def _network(kind: str, weights: Path | None, device: torch.device) -> nn.Module:
    """The frozen network on `device`, its weights checked; leaves the global random state as it found it."""
    import torch

    # The packages print and warn while they are set up.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            network: Any = _inception(kind, weights) if needs_file(kind) else _alexnet()
    network.eval().requires_grad_(False)
    return network.to(device)


def _inception(kind: str, weights: Path | None) -> nn.Module:
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if weights is None or not weights.is_file():
        raise UserError(
            f"task.fidelity_weights: {weights or 'null'} is no file: download {INCEPTION_FILE} from {RELEASE} and give its "
            "path, or set task.fidelity: alexnet, whose weights are installed"
        )
    found = _digest(weights)
    if not found.startswith(_INCEPTION.sha256):
        raise UserError(
            f"task.fidelity_weights: {weights} is not {INCEPTION_FILE} (its SHA-256 begins with {found[:8]}): with other "
            f"weights the numbers would not be FID; download it from {RELEASE}"
        )
    # torch-fidelity unpickles what it is given, whatever that would run: it gets a copy of what was read safely.
    copy = io.BytesIO()
    torch.save(torch.load(weights, map_location="cpu", weights_only=True), copy)
    copy.seek(0)
    network: nn.Module = FeatureExtractorInceptionV3(kind, [str(dimensions(kind))], feature_extractor_weights_path=copy)
    return network


def _alexnet() -> nn.Module:
    import torch
    from stlpips_pytorch import stlpips

    path = Path(stlpips.__file__).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    if not path.is_file() or not _digest(path).startswith(_ALEXNET.sha256):
        raise UserError(
            f"task.fidelity: the weights of {_ALEXNET.distribution} are missing or other ones (their SHA-256 begins with "
            f"{_ALEXNET.sha256}); reinstall {_ALEXNET.distribution}"
        )
    network: Any = stlpips.LPIPS(pretrained=False, lpips=False, net="alex", variant="shift_tolerant", verbose=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.net.load_state_dict(
        {name.removeprefix("net."): value for name, value in state.items() if name[:4] == "net."}
    )
    return network


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
