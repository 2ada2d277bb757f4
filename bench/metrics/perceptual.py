"""Perceptual distance between images: LPIPS where its weights are at hand, else shift-tolerant LPIPS under its own name.

LPIPS (Zhang et al. 2018) needs an ImageNet backbone that torchvision fetches from the network. Shift-tolerant LPIPS
(Ghildyal and Liu 2022, package ``stlpips-pytorch``) brings its trained AlexNet along. The two give different numbers, so
they are two metrics with two names, and nothing is ever computed with random weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.contracts import Metric
from bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Perceptual = Literal["auto", "lpips-vgg", "lpips-alex", "st-lpips", "none"]
CHOICES: tuple[str, ...] = get_args(Perceptual)

SMALLEST_SIDE = 32
"""Pixels: below this the networks' feature maps vanish."""


@dataclass(frozen=True)
class _Net:
    package: str
    distribution: str
    title: str
    backbone: str
    """torchvision's name of the backbone, empty where the package brings it along."""

    @property
    def note(self) -> str:
        return (
            f"{self.distribution} {version(self.distribution)}, {self.title}; RGB in [0, 1] clamped, scaled to [-1, 1] "
            "for the network; mean over images"
        )


_NETS = {
    "lpips-vgg": _Net("lpips", "lpips", "LPIPS 0.1 on torchvision's VGG-16", "vgg16"),
    "lpips-alex": _Net("lpips", "lpips", "LPIPS 0.1 on torchvision's AlexNet", "alexnet"),
    "st-lpips": _Net("stlpips_pytorch", "stlpips-pytorch", "shift-tolerant LPIPS ST0.0 on AlexNet (not LPIPS)", ""),
}
_LABELS = {"lpips-vgg": "LPIPS (VGG)", "lpips-alex": "LPIPS (Alex)", "st-lpips": "ST-LPIPS"}


def resolve(choice: str, image_size: int = SMALLEST_SIDE) -> tuple[str, str]:
    """Which perceptual metric `choice` means on this machine for square images of `image_size` pixels.

    Returns:
        The choice with ``auto`` resolved (``lpips-vgg`` where the backbone is already on disk, else ``st-lpips``, else
        ``none``), and one line for the reader where it is not LPIPS as published (empty otherwise).

    Raises:
        UserError: an unknown choice, one whose package is missing, or one that cannot read images so small.
    """
    if choice not in CHOICES:
        raise UserError(f"task.perceptual must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "none":
        return choice, ""
    small = f"needs images of {SMALLEST_SIDE} px or more, got {image_size}"
    if choice != "auto":
        if image_size < SMALLEST_SIDE:
            raise UserError(f"task.perceptual: {choice} {small}; set task.perceptual: none")
        _require_package(choice)
        return choice, ""
    if image_size < SMALLEST_SIDE:
        return "none", f"task.perceptual: no perceptual metric is scored, it {small}"
    if _installed("lpips-vgg") and _backbone_file("vgg16").exists():
        return "lpips-vgg", ""
    mend = (
        f"for LPIPS put {_backbone_file('vgg16').name} into torch's hub checkpoints or set task.perceptual: lpips-vgg"
    )
    if _installed("st-lpips"):
        return "st-lpips", f"task.perceptual: LPIPS's VGG-16 is not on this machine, ST-LPIPS is scored instead; {mend}"
    return "none", f"task.perceptual: neither LPIPS's VGG-16 nor stlpips-pytorch is here, none is scored; {mend}"


def metric(kind: str) -> Metric:
    """How to read the values of a resolved kind: key ``lpips_vgg``, ``lpips_alex`` or ``st_lpips``; lower is better."""
    name = kind.replace("-", "_")
    return Metric(name, _LABELS[kind], higher_is_better=False, digits=3, note=_NETS[kind].note)


class PerceptualDistance:
    """Distance of image pairs under one pinned network; the network is built at the first use of a device."""

    def __init__(self, kind: str) -> None:
        """`kind`: ``lpips-vgg``, ``lpips-alex`` or ``st-lpips``."""
        if kind not in _NETS:
            raise UserError(f"task.perceptual must be one of {', '.join(_NETS)}, got {kind!r}")
        self.kind = kind

    def prepare(self) -> None:
        """Fetch and check the weights now, so that an error comes before any budget is spent."""
        import torch

        _network(self.kind, torch.device("cpu"))

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair; differentiable in `prediction`.

        Args:
            prediction: RGB [N, 3, H, W], clamped to 0..1; H and W at least `SMALLEST_SIDE`.
            target: the same shape, in 0..1.

        Returns:
            [N] fp32, 0 for equal images.

        Raises:
            UserError: the weights cannot be had.
        """
        import torch

        network = _network(self.kind, prediction.device)
        with torch.autocast(prediction.device.type, enabled=False):
            distance: Tensor = network(prediction.float().clamp(0, 1), target.float(), normalize=True)
        return distance.flatten()


@lru_cache(maxsize=4)
def _network(kind: str, device: torch.device) -> nn.Module:
    """The frozen network on `device`, its weights checked; leaves the global random state as it found it."""
    import torch

    _require_package(kind)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), _quiet():
        if kind == "st-lpips":
            from stlpips_pytorch import stlpips

            network: Any = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
            folder = Path(stlpips.__file__).parent / "weights" / "vST0.0"
            _load(network, torch.load(folder / "alex_shift_tolerant.pth", map_location="cpu", weights_only=True), kind)
        else:
            import lpips

            name = kind.removeprefix("lpips-")
            network = lpips.LPIPS(net=name, version="0.1", pnet_rand=True, verbose=False)
            calibration = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{name}.pth"
            state = dict(torch.load(calibration, map_location="cpu", weights_only=True))
            _load(network, {**state, **_backbone_state(network, _NETS[kind].backbone)}, kind)
    network.eval().requires_grad_(False)
    return network.to(device)


def _load(network: nn.Module, state: dict[str, Tensor], kind: str) -> None:
    """Load strictly: every weight must come from the file (the packages themselves load with ``strict=False``)."""
    missing, unexpected = network.load_state_dict(state, strict=False)
    # `lins.N` is a second name of `linN`; the scaling buffers are constants of the code.
    missing = [key for key in missing if not key.startswith(("lins.", "scaling_layer."))]
    if missing or unexpected:
        raise UserError(
            f"task.perceptual: the weights of {kind} do not fit its network (first: {[*missing, *unexpected][0]}); "
            f"reinstall {_NETS[kind].distribution}"
        )


def _backbone_state(network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Weights of a torchvision backbone under the names that the LPIPS network gives its slices.

    The slices keep torchvision's layer numbers: ``features.10.weight`` becomes ``net.slice3.10.weight``.
    """
    import torch

    path = _backbone_file(backbone)
    if not path.exists():
        _fetch(backbone, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise UserError(f"task.perceptual: {path} is damaged (SHA-256 {digest[:8]}); delete it and run again")
    features = torch.load(path, map_location="cpu", weights_only=True)
    return {
        key: features["features." + key.split(".", 2)[2]] for key in network.state_dict() if key.startswith("net.slice")
    }


def _fetch(backbone: str, path: Path) -> None:
    """Let torch.hub fetch a backbone, whole or not at all."""
    import torch

    url = _backbone_url(backbone)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1], progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"task.perceptual: {path.name} could not be fetched ({type(error).__name__}); download {url} to {path}, "
            "or set task.perceptual: st-lpips"
        ) from error


def _backbone_url(backbone: str) -> str:
    import torchvision

    return str(torchvision.models.get_model_weights(backbone).IMAGENET1K_V1.url)


def _backbone_file(backbone: str) -> Path:
    """Where torch.hub keeps the backbone; the name ends in the first digits of its SHA-256."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / _backbone_url(backbone).rsplit("/", 1)[1]


def _installed(kind: str) -> bool:
    return importlib.util.find_spec(_NETS[kind].package) is not None


def _require_package(kind: str) -> None:
    if not _installed(kind):
        package = _NETS[kind].distribution
        raise UserError(f"task.perceptual: {kind} needs the package {package}: pip install {package}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what these packages print and warn about while they are set up."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
