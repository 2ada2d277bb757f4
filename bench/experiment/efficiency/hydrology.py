"""What is counted and timed for hydrology: the notes' cost claims, at the notes' exact shapes.

One image modality throughout: the others cost the same, and the gauge series next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch
from bench.experiment.efficiency.spec import Counted, Row, Sizes, TimedCall, backward_too, training_call

ARCHITECTURE = "hydrology-mae"
PIXELS, PATCHES, HIDDEN = 100, 94, 70
"""Of a patch; valid patches of a day; those of them that are masked. 90 days make 8,460 tokens, 6,300 queries, 2,160 keys."""
WIDTH, LAYERS, DECODER_LAYERS, HEADS = 128, 6, 4, 8
"""Width of the decoder (the encoder is twice as wide), blocks, heads of both."""
ALL_PATCHES = 522
"""Patches of a day, sea included: what the notes' "standard MAE" attends over."""

DESIGNS: dict[str, dict[str, Any]] = {
    "mae": {"decoder": "self"},
    "cross": {},
    "cross-self": {"decoder_self_attention": True},
    "cross-p25": {"prediction_ratio": 0.25},
}
"""Label -> options. ``p25`` predicts a quarter of all tokens, a third of the masked ones."""
MORE_DESIGNS: dict[str, dict[str, Any]] = {
    f"cross-p{percent}": {"prediction_ratio": percent / 100} for percent in (10, 50)
}
DAYS = (1, 2, 6, 12, 30, 60, 90)
HIDDEN_SWEEP, WIDTH_SWEEP = (37, 56, 84), (64, 256, 512, 768)
"""Masked patches of a day (the notes' counts at mask ratios 0.4, 0.6, 0.9) and widths of the decoder, at 90 days."""
SWEPT = ("mae", "cross", "cross-p25")

BATCH = 8
ON_A_CPU = {"decoder": ((1, 8, 4), (2, 8, 4), (12, 8, 4), (30, 1, 4), (90, 8, 1)),
            "step": ((1, 8, 4), (2, 8, 4), (12, 2, 4), (30, 1, 4), (90, 1, 4))}  # fmt: skip
"""Days, samples and decoder layers that are timed at preset tiny: at 90 days one decoder layer of a whole batch, and a whole
step of one sample, take minutes as it is."""
TOO_LONG = "cross-self"
"""Is left out at 90 days there: by FLOPs it is nearly as slow as MAE."""


def _sizes(days: int, hidden: int = HIDDEN, width: int = WIDTH, patches: int = PATCHES) -> dict[str, int]:
    return {"days": days, "patches": patches, "hidden": hidden, "width": width, "encoder_width": 2 * width}


def _row(label: str, sizes: Sizes) -> Row:
    return Row(label, ARCHITECTURE, sizes, _options({**DESIGNS, **MORE_DESIGNS}[label], sizes))


def _options(design: Mapping[str, Any], sizes: Sizes, decoder_layers: int = DECODER_LAYERS) -> dict[str, Any]:
    return {
        "image_modalities": 1,
        "series_modalities": 0,
        "static_attributes": 0,
        "patch_pixels": PIXELS,
        "width": sizes["encoder_width"],
        "layers": LAYERS,
        "heads": HEADS,
        "decoder_width": sizes["width"],
        "decoder_layers": decoder_layers,
        "decoder_heads": HEADS,
        **design,
    }


def _rows() -> tuple[Row, ...]:
    rows = [_row(label, _sizes(days)) for days in DAYS for label in DESIGNS]
    rows += [_row(label, _sizes(90, hidden=hidden)) for hidden in HIDDEN_SWEEP for label in SWEPT]
    rows += [_row(label, _sizes(90, width=width)) for width in WIDTH_SWEEP for label in SWEPT]
    rows += [_row(label, _sizes(90)) for label in MORE_DESIGNS]
    # The decoder has as many tokens however few of them the encoder sees.
    rows += [_row("mae", _sizes(90, hidden=ALL_PATCHES - 1, patches=ALL_PATCHES))]
    return tuple(rows)


class Hydrology:
    """The notes' decoders: a forward pass is counted; a decoder alone and a whole training step are timed.

    A group whose ``encoder_layers`` are 0 times decoders alone.
    """

    rows = _rows()
    training = True
    rounds = 6
    limit_seconds: ClassVar = {"cpu": 90.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """At preset tiny what a CPU can do in ten minutes, otherwise the notes' batch and depth throughout."""
        whole = [(days, BATCH, DECODER_LAYERS) for days in (1, 2, 12, 30, 90)]
        timed = ON_A_CPU if preset == "tiny" else {"decoder": whole, "step": whole}
        return tuple(
            {**_sizes(days), "batch": batch, "encoder_layers": LAYERS * (part == "step"), "decoder_layers": layers}
            for part, shapes in timed.items()
            for days, batch, layers in shapes
        )

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        with torch.device("meta"):
            batch = _batch(row.sizes, 1)
        return Counted(lambda: _build(row.options), batch, tuple(batch))

    def setting(self, preset: str) -> dict[str, Any]:
        """Nothing: the sizes of the groups say it all."""
        return {}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """The designs in the notes' size, with the decoder depths that are timed."""
        depths = sorted({group["decoder_layers"] for group in self.groups(preset)}, reverse=True)
        return {
            f"{label}-{layers}": _build(_options(design, _sizes(90), layers))
            for layers in depths
            for label, design in DESIGNS.items()
        }

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """Forward and backward of a group's designs."""
        made = []
        for label in DESIGNS:
            if preset == "tiny" and label == TOO_LONG and sizes["days"] == 90:
                continue
            model = models[f"{label}-{sizes['decoder_layers']}"]
            part = _step if sizes["encoder_layers"] else _decoder
            made.append(part(label, cast(Any, model), sizes, device, seed))
        return made


def _step(label: str, model: Any, sizes: Sizes, device: torch.device, seed: int) -> TimedCall:
    torch.manual_seed(seed)
    batch = {name: value.to(device) for name, value in _batch(sizes, sizes["batch"]).items()}
    flops = backward_too(model.flops(batch))
    start = training_call(model, lambda: model(**batch)["image_prediction"].square().mean())
    return TimedCall(label, "step", flops, 0, _extent(sizes), start)


def _decoder(label: str, model: Any, sizes: Sizes, device: torch.device, seed: int) -> TimedCall:
    """The very decoder of the architecture, on the encoder's output and on positions that are known."""
    decoder, samples = model.decoders[0], sizes["batch"]
    predicted, encoded = _predicted(model.config.prediction_ratio, sizes), 1 + _visible(sizes)
    generator = torch.Generator().manual_seed(seed)

    def noise(tokens: int, width: int) -> Tensor:
        return torch.randn(samples, tokens, width, generator=generator).to(device)

    queries, source, places = (
        noise(predicted, sizes["width"]),
        noise(encoded, sizes["encoder_width"]),
        noise(encoded, sizes["width"]),
    )

    def loss() -> Tensor:
        # The gradient goes on to the encoder and to the positions, as in a step.
        read = source.detach().requires_grad_()
        asked = queries.detach().requires_grad_()
        kind = registry.load_object("models.layers.modality:Encoded", "type")
        prediction: Tensor = decoder(asked, kind([read], None, places))
        return prediction.square().mean()

    flops = backward_too(samples * decoder.flops(predicted, encoded))
    return TimedCall(label, "decoder", flops, 0, _extent(sizes), training_call(decoder, loss))


def _extent(sizes: Sizes) -> int:
    return sizes["batch"] * sizes["days"] * sizes["patches"] * sizes["decoder_layers"]


def _visible(sizes: Sizes) -> int:
    return sizes["days"] * (sizes["patches"] - sizes["hidden"])


def _predicted(ratio: float | None, sizes: Sizes) -> int:
    """Tokens that a decoder predicts; the ratio is of all tokens, rounded up, as the model does."""
    masked, tokens = sizes["days"] * sizes["hidden"], sizes["days"] * sizes["patches"]
    return masked if ratio is None else min(masked, -(-tokens * round(100 * ratio) // 100))


def _build(options: Mapping[str, Any]) -> nn.Module:
    cls = registry.load_object(registry.architecture(ARCHITECTURE).target, "architecture")
    made: nn.Module = cls(registry.make_config(cls, options, ARCHITECTURE))
    return made


def _batch(sizes: Sizes, samples: int) -> Batch:
    """Noise in the shapes of the task's fields; every day hides other patches."""
    days, patches, hidden = sizes["days"], sizes["patches"], sizes["hidden"]
    order = torch.rand(samples, 1, days, patches).argsort(dim=-1) + torch.arange(days)[:, None] * patches
    visible = order[..., hidden:].sort(dim=-1).values.flatten(2)
    masked = order[..., :hidden].flatten(2)
    return {
        "image_values": torch.randn(samples, 1, visible.shape[2], PIXELS),
        "image_visible": visible,
        "image_predicted": masked[..., torch.randperm(masked.shape[2])],
        "patch_positions": torch.randint(30, (samples, patches, 2)).float(),
        "day_of_year": torch.arange(float(days)).expand(samples, -1),
    }
