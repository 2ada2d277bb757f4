"""Architectures with a known fault each, for the novel-view-synthesis fields: what the engine and `check` must notice.

All of them are `TinyNVS` with one thing wrong; `Twin` is `TinyNVS` under another name. Each is a factory that takes its
options by keyword, e.g. ``factory: tests.planted:Sleeper``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class TinyNVS(nn.Module):
    """A healthy model of three linear maps: the mean of the input patches tells every target ray what to paint.

    Args of the constructor: width of the hidden layer, patch_size in pixels.
    """

    def __init__(self, width: int = 32, patch_size: int = 8) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.read = nn.Linear(3 * patch_size**2 + 16, width)
        self.ask = nn.Linear(2 + 16, width)
        self.paint = nn.Linear(width, 3 * patch_size**2)

    def forward(
        self,
        input_images: Tensor,
        input_c2w: Tensor,
        input_intrinsics: Tensor,
        target_c2w: Tensor,
        target_intrinsics: Tensor,
    ) -> dict[str, Tensor]:
        """Images [B, Vt, 3, H, W] in 0..1."""
        size, patch = input_images.shape[-1], self.patch_size
        grid = size // patch
        patches = input_images.unflatten(-1, (grid, patch)).unflatten(-3, (grid, patch))  # [B, Vi, 3, g, p, g, p]
        patches = patches.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(2, 3)
        pose = self.pose(input_c2w, input_intrinsics, size)[:, :, None].expand(-1, -1, grid * grid, -1)
        scene = torch.nn.functional.gelu(self.read(torch.cat([patches, pose], dim=-1))).mean(dim=(1, 2))
        line = torch.linspace(-1, 1, grid, device=input_images.device)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).flatten(0, 1)
        pose = self.pose(target_c2w, target_intrinsics, size)[:, :, None].expand(-1, -1, grid * grid, -1)
        question = self.ask(torch.cat([places.expand(*pose.shape[:2], -1, -1), pose], dim=-1))
        hidden = torch.nn.functional.gelu(question + scene[:, None, None])  # [B, Vt, g*g, width]
        colours = self.paint(hidden).sigmoid().unflatten(-1, (patch, patch, 3)).unflatten(2, (grid, grid))
        return {"images": colours.permute(0, 1, 6, 2, 4, 3, 5).flatten(-2).flatten(-3, -2)}

    @staticmethod
    def pose(c2w: Tensor, intrinsics: Tensor, size: int) -> Tensor:
        """[B, V, 16] numbers of a camera."""
        return torch.cat([c2w[..., :3, :].flatten(-2), intrinsics / size], dim=-1)

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Forward FLOPs, 2 per multiply-add."""
        (samples, inputs, _, height, width), targets = batch["input_images"].shape, batch["target_c2w"].shape[1]
        patches = samples * (height // self.patch_size) * (width // self.patch_size)
        read = self.read.weight.numel() * inputs
        return 2 * patches * (read + (self.ask.weight.numel() + self.paint.weight.numel()) * targets)


class Twin(TinyNVS):
    """The healthy model under another name: must tie with it."""


class Sleeper(TinyNVS):
    """Sleeps in every forward for `slowdown` times as long as the forward took, or for `seconds` where given."""

    def __init__(self, slowdown: float = 1.0, seconds: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.slowdown, self.seconds = slowdown, seconds

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        start = time.perf_counter()
        outputs = super().forward(**inputs)
        time.sleep((time.perf_counter() - start) * self.slowdown if self.seconds is None else self.seconds)
        return outputs


class Leaker(TinyNVS):
    """Keeps the target pixels that its auxiliary loss sees and paints with them in later forwards."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: Tensor | None = None

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        return {"images": images if self._seen is None else 0.9 * images + 0.1 * self._seen}

    def auxiliary_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        self._seen = batch["target_images"].mean()
        return outputs["images"].sum() * 0


class OpenLeaker(TinyNVS):
    """Asks for the target pixels outright."""

    def forward(self, *, target_images: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"images": 0.5 * super().forward(**inputs)["images"] + 0.5 * target_images}


class HiddenLeaker(TinyNVS):
    """Asks for the target pixels behind a ``**inputs`` that hides it."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        target_images = inputs.pop("target_images")
        return {"images": 0.5 * super().forward(**inputs)["images"] + 0.5 * target_images}


class SometimesNaN(TinyNVS):
    """Paints NaN for about one batch in `period`, as its pixels decide."""

    def __init__(self, period: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.period = period

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        unlucky = (inputs["input_images"].sum() * 10).long() % self.period == 0
        return {"images": torch.where(unlucky, torch.nan, images)}


class NoEpsilon(TinyNVS):
    """Divides by the contrast of each input image, which is 0 for a plain one."""

    def forward(self, input_images: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        contrast = input_images.std(dim=(-3, -2, -1), keepdim=True)
        return super().forward(input_images=input_images / contrast, **inputs)


class NanAfter(TinyNVS):
    """Paints NaN from training forward number `steps` on (counted in a buffer, so that restoring a state counts back)."""

    count: Tensor

    def __init__(self, steps: int = 5, **options: Any) -> None:
        super().__init__(**options)
        self.steps = steps
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        if self.training:
            self.count += 1
        return {"images": torch.where(self.count > self.steps, torch.nan, images)}


class Hoarder(TinyNVS):
    """Keeps a number for every pair of target images and pixels for its backward: memory grows with the batch squared."""

    def __init__(self, rows: int = 256, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows
        """Rows of the square per sample: it takes 4 * (rows * B)**2 bytes."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        line = images.flatten(1)[:, : self.rows].flatten()
        pairs = torch.tanh(line[:, None] - line[None])
        return {"images": images + 0 * pairs.mean()}


class Liar(TinyNVS):
    """Claims a tenth less work than it does."""

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        return super().flops(batch) * 9 // 10


class Raiser(TinyNVS):
    """Fails with an ordinary exception in training forward number `after` + 1, whatever the batch size."""

    def __init__(self, after: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.after, self.forwards = after, 0

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        self.forwards += 1
        if self.forwards > self.after:
            raise RuntimeError("planted: this architecture always fails")
        return super().forward(**inputs)


class Silent(TinyNVS):
    """Offers no FLOPs."""

    flops = None  # type: ignore[assignment]


class Idler(TinyNVS):
    """Owns a weight that no output depends on; `declared` names it as unused."""

    def __init__(self, declared: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.idle, self.declared = nn.Linear(3, 3), declared

    def unused_parameters(self) -> Collection[str]:
        return ("idle.weight", "idle.bias") if self.declared else ()


class Boaster(TinyNVS):
    """Declares a weight as unused that is used."""

    def unused_parameters(self) -> Collection[str]:
        return ("paint.bias",)


class Mixer(TinyNVS):
    """Lets the samples of a batch see one another."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        return {"images": images * 0.9 + images.mean(dim=0, keepdim=True) * 0.1}


class OrderSeer(TinyNVS):
    """Weighs its first input view more than the others."""

    def forward(self, input_images: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        weights = torch.linspace(1, 0.5, input_images.shape[1], device=input_images.device)
        return super().forward(input_images=input_images * weights[:, None, None, None], **inputs)


class Gambler(TinyNVS):
    """Keeps its dropout on in evaluation."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        return {"images": torch.nn.functional.dropout(images, 0.1, training=True)}


class Scribbler(TinyNVS):
    """Changes its input in place."""

    def forward(self, input_images: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_images=input_images.mul_(2).sub_(1), **inputs)


class WrongShape(TinyNVS):
    """Paints one target only, which a mean squared error would broadcast."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {"images": super().forward(**inputs)["images"][:, :1]}


class Narrow(TinyNVS):
    """Overflows in half the precision: exact in fp32, infinite below it."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        images = super().forward(**inputs)["images"]
        if torch.is_autocast_enabled(images.device.type):
            images = images / torch.zeros_like(images)
        return {"images": images}


class Forgetful(TinyNVS):
    """Keeps a weight that matters outside its state dict."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("offset", torch.randn(()), persistent=False)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {"images": super().forward(**inputs)["images"] + self.offset}


class Stubborn(TinyNVS):
    """Seeds its own initialisation, so that every seed of a comparison starts alike."""

    def __init__(self, **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(**options)


class Peeker(TinyNVS):
    """Lets the third target into the second."""

    def forward(self, target_c2w: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        images = super().forward(target_c2w=target_c2w, **inputs)["images"].clone()
        images[:, 1] += target_c2w[:, 2].mean(dim=(1, 2))[:, None, None, None]
        return {"images": images}


class Foreseer(TinyNVS):
    """Lets all targets, later ones too, into every one."""

    def forward(self, target_c2w: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        images = super().forward(target_c2w=target_c2w, **inputs)["images"]
        return {"images": images + target_c2w.mean(dim=(1, 2, 3))[:, None, None, None, None]}
