"""What is counted and timed for novel view synthesis: the tables of LVSM and Efficient-LVSM that need no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch
from bench.data.cameras import SceneFrame
from bench.experiment.efficiency.spec import Counted, Row, Sizes, Started, TimedCall
from bench.tasks.nvs_config import PRESETS

FAMILIES = ("lvsm-decoder-only", "lvsm-encoder-decoder", "efficient-lvsm")
FIELDS = ("input_images", "input_c2w", "input_intrinsics", "target_c2w", "target_intrinsics")
PUBLISHED_PX = 256

VIEWS = ((2, 1), (2, 6), (4, 8), (8, 8), (16, 8), (32, 8))
"""Input and target views of the FLOPs table."""
EFFICIENCY_TABLE = (6, 7)
"""The one setting in which the published "GFLOPS" come out."""
INCREMENTAL = (4, 8, 16, 32, 48, 64)
"""Input views, the added one included; 8 targets are rendered."""
TARGETS, INPUTS = 8, 4
"""Target views while input views vary, and the other way round."""
INPUT_SWEEP = (2, 4, 8, 16, 32, 48, 64)
TARGET_SWEEP = (1, 2, 4, 8, 16, 32)

VARIANTS: dict[str, dict[str, Any]] = {
    "per-layer": {},
    "encode-first": {"input_update": "encode-first"},
    "ffn": {"input_update": "ffn"},
    "none": {"input_update": "none"},
    "cross": {"target_block": "cross"},
    "extra-encoder-2": {"extra_encoder_layers": 2},
    "registers-4": {"registers": 4},
    "pose-only": {"input_rgb": False},
}
"""Options of Efficient-LVSM whose counts are known from the published code, at width 128, 4 layers, 64 px, 2 to 2 views."""

FRAME_VIEWS = 2
"""Views that fix the frame of all poses: a view that is added later, or a target, does not move it."""


def _sizes(input_views: int, target_views: int, image_size: int = PUBLISHED_PX) -> dict[str, int]:
    return {"input_views": input_views, "target_views": target_views, "image_size": image_size}


def _rows() -> tuple[Row, ...]:
    rows = [Row(name, name, _sizes(*views)) for views in (*VIEWS, EFFICIENCY_TABLE) for name in FAMILIES]
    lvsm, _, ours = FAMILIES
    rows += [Row(f"{lvsm}-{layers}", lvsm, _sizes(2, 6), {"layers": layers}) for layers in (18, 12, 6)]
    rows += [Row(f"{ours}-6", ours, _sizes(2, 6), {"layers": 6})]
    rows += [Row(f"{name}-checkpointed", name, _sizes(2, 6), {"gradient_checkpointing": True}) for name in (lvsm, ours)]
    rows += [Row(name, name, _sizes(views, TARGETS)) for views in INCREMENTAL[4:] for name in FAMILIES]
    rows += [Row(ours, ours, _sizes(views, TARGETS), mode="add") for views in INCREMENTAL]
    rows += [
        Row(f"{ours}:{variant}", ours, _sizes(2, 2, 64), {"width": 128, "layers": 4, **options})
        for variant, options in VARIANTS.items()
    ]
    return tuple(rows)


class ViewSynthesis:
    """The three families: all at once (``full``), from an encoded scene (``render``), with one more view (``add``).

    ``add`` encodes one view, appends it to the cache of the earlier ones and renders the targets; only Efficient-LVSM can.
    ``render`` reads a scene that was encoded before: latents (encoder-decoder) or the cache; decoder-only LVSM keeps nothing
    worth keeping.
    """

    rows = _rows()
    training = False
    rounds = 7
    limit_seconds: ClassVar = {"cpu": 5.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """The views of the tables and of both sweeps, whatever the preset."""
        views = [*VIEWS, EFFICIENCY_TABLE]
        views += [(inputs, TARGETS) for inputs in INPUT_SWEEP] + [(INPUTS, targets) for targets in TARGET_SWEEP]
        return tuple({"input_views": inputs, "target_views": targets} for inputs, targets in dict.fromkeys(views))

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        size, inputs = row.sizes["image_size"], row.sizes["input_views"]
        batch = _meta_batch(inputs, row.sizes["target_views"], size)
        if row.mode == "add":
            added = {**batch, **{name: batch[name][:, :1] for name in FIELDS[:3]}}
            return Counted(lambda: AddView(_build(row.architecture, row.options), batch), added, FIELDS)
        return Counted(lambda: _build(row.architecture, row.options), batch, FIELDS)

    def setting(self, preset: str) -> dict[str, Any]:
        """The edge in pixels at which a preset of the task works."""
        return {"image_size": PRESETS[preset].image_size}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """The three families at the preset's size."""
        made = {}
        for name in FAMILIES:
            cls = registry.load_object(registry.architecture(name).target, "architecture")
            made[name] = _build(name, registry.preset_options(cls, preset))
        return made

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """Full passes of all families, renderings of encoded scenes, and, from two earlier views on, one added view."""
        inputs, targets = sizes["input_views"], sizes["target_views"]
        batch = synthetic_batch(inputs, targets, PRESETS[preset].image_size, device, seed)
        extent = (inputs + 1) * targets
        made = []
        for label, module in models.items():
            model = cast(Any, module)
            made.append(TimedCall(label, "full", model.flops(batch), 0, extent, _full(model, batch)))
            if label == FAMILIES[0]:
                continue
            encode, render = model.encode_flops(batch), model.render_flops(batch)
            made.append(TimedCall(label, "render", render, encode, extent, _render(model, batch)))
            if getattr(model, "incremental", False) and inputs > FRAME_VIEWS:
                added = model.encode_flops(_views(batch, slice(-1, None))) + render
                made.append(TimedCall(label, "add", added, encode, extent, _add(model, batch)))
        return made


class AddView(nn.Module):
    """Encodes one more view, appends it to the cache of the earlier ones, and renders: what an incremental step costs."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        """Take all views but the last of `batch` into a cache, which is no part of what is counted."""
        super().__init__()
        self.model, self._batch = model, batch
        with torch.no_grad():
            self._cache = _encode(model, _views(batch, slice(None, -1)))

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Render the targets from the cached views and the one in `inputs`."""
        scene = self._cache.append(_encode(self.model, inputs))
        return dict(cast(Any, self.model).render(scene, inputs["target_c2w"], inputs["target_intrinsics"]))

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Closed form: one view encoded, the targets rendered from all."""
        model = cast(Any, self.model)
        return int(model.encode_flops(batch) + model.render_flops(self._batch))


def _full(model: Any, batch: Batch) -> Any:
    return lambda: Started(lambda: model(**batch)["images"], 0)


def _render(model: Any, batch: Batch) -> Any:
    def start() -> Started:
        scene = _encode(model, batch)
        cameras = batch["target_c2w"], batch["target_intrinsics"]
        return Started(lambda: model.render(scene, *cameras)["images"], held_bytes(scene))

    return start


def _add(model: Any, batch: Batch) -> Any:
    def start() -> Started:
        before, last = _encode(model, _views(batch, slice(None, -1))), _views(batch, slice(-1, None))
        cameras = batch["target_c2w"], batch["target_intrinsics"]
        return Started(
            lambda: model.render(before.append(_encode(model, last)), *cameras)["images"],
            held_bytes(before),
        )

    return start


def _encode(model: Any, batch: Mapping[str, Tensor]) -> Any:
    return model.encode(*(batch[name] for name in FIELDS[:3]))


def _views(batch: Batch, chosen: slice) -> Batch:
    """The batch with these input views alone."""
    return {**batch, **{name: batch[name][:, chosen] for name in FIELDS[:3]}}


def held_bytes(scene: Any) -> int:
    """Bytes of the tensors of an encoded scene (a dataclass of tensors and tuples of them)."""
    held = 0
    for field in fields(scene):
        value = getattr(scene, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            held += part.numel() * part.element_size() if isinstance(part, Tensor) else 0
    return held


def _build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    cls = registry.load_object(registry.architecture(architecture).target, "architecture")
    made: nn.Module = cls(registry.make_config(cls, options, architecture))
    return made


def _meta_batch(input_views: int, target_views: int, size: int) -> Batch:
    with torch.device("meta"):
        return {
            "input_images": torch.empty(1, input_views, 3, size, size),
            "input_c2w": torch.empty(1, input_views, 4, 4),
            "input_intrinsics": torch.empty(1, input_views, 4),
            "target_c2w": torch.empty(1, target_views, 4, 4),
            "target_intrinsics": torch.empty(1, target_views, 4),
        }


def synthetic_batch(input_views: int, target_views: int, size: int, device: torch.device, seed: int) -> Batch:
    """One scene of noise seen along an arc, with poses in the frame of its first views (`FRAME_VIEWS`).

    The input views come first on the arc, so that the first ones and with them the frame are the same however many follow.
    """
    generator = torch.Generator().manual_seed(seed)
    c2w = _arc(input_views + target_views)
    frame = SceneFrame.of(c2w[:FRAME_VIEWS])
    poses = torch.from_numpy(frame.apply(c2w))[None].to(device)
    intrinsics = torch.tensor([1.2 * size, 1.2 * size, size / 2, size / 2], device=device)
    images = torch.rand(1, input_views, 3, size, size, generator=generator).to(device)
    return {
        "input_images": images,
        "input_c2w": poses[:, :input_views],
        "input_intrinsics": intrinsics.repeat(1, input_views, 1),
        "target_c2w": poses[:, input_views:],
        "target_intrinsics": intrinsics.repeat(1, target_views, 1),
    }


def _arc(views: int) -> np.ndarray:
    """Cameras [views, 4, 4] two degrees apart on a circle of radius 2, looking at its centre."""
    angles = np.deg2rad(2.0) * np.arange(views)
    c2w = np.zeros((views, 4, 4))
    c2w[:, 0, 0] = c2w[:, 2, 2] = np.cos(angles)
    c2w[:, 0, 2], c2w[:, 2, 0] = np.sin(angles), -np.sin(angles)
    c2w[:, 1, 1] = c2w[:, 3, 3] = 1.0
    c2w[:, :3, 3] = -2.0 * c2w[:, :3, 2]
    return c2w
