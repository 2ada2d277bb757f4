"""Random batches for the hydrology model, with and without padding, its variants, and what is compared of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.hydrology_mae import HydrologyMAE, HydrologyMAEConfig

SMALL = {
    "image_modalities": 2, "patch_pixels": 6, "series_modalities": 2, "static_attributes": 3, "width": 16, "layers": 3,
    "series_layers": 2, "heads": 2, "decoder_width": 8, "decoder_layers": 2, "decoder_heads": 2,
}  # fmt: skip
WEIGHTED = {"weighted_feature_maps": True}
VARIANTS: dict[str, dict[str, object]] = {
    "cross": {},
    "self": {"decoder": "self"},
    "cross self-attention": {"decoder_self_attention": True},
    "cross maps": WEIGHTED,
    "cross some maps": {**WEIGHTED, "feature_layers": (0,), "use_input": True, "prediction_ratio": 0.3},
    "shared cross": {"encoder": "shared"},
    "shared self": {"encoder": "shared", "decoder": "self"},
    "shared maps": {**WEIGHTED, "encoder": "shared", "feature_layers": (-2, 0), "decoder_self_attention": True},
    "no calendar": {"calendar": False},
    "images": {"series_modalities": 0},
    "series": {"image_modalities": 0, "static_attributes": 0, "decoder": "self"},
}
MULTIMODAL = [name for name in VARIANTS if name not in ("images", "series")]
MODES = ["padded", "packed"]
Counts = Sequence[tuple[int, int]]
"""Visible and masked tokens of each sample."""


def build(variant: str = "cross", *, seed: int = 0, **options: object) -> HydrologyMAE:
    """A small model of a variant, a little away from its initial weights, where biases are 0."""
    torch.manual_seed(seed)
    model = HydrologyMAE(HydrologyMAEConfig(**{**SMALL, **VARIANTS[variant], **options}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def random_batch(
    config: HydrologyMAEConfig,
    *,
    samples: int = 3,
    days: int = 5,
    patches: int = 7,
    images: Sequence[Counts] | tuple[int, int] = (11, 24),
    series: Sequence[Counts] | tuple[int, int] = (2, 3),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Inputs for ``config``.

    ``images`` and ``series`` are the visible and masked counts of all modalities and samples, or, with padding, of each
    modality and sample: ``images[k][b]``.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.cartesian_prod(torch.arange(8), torch.arange(12)).float()
    batch = {
        "day_of_year": (torch.rand(samples, 1, generator=generator) * 365 + torch.arange(days)) % 365,
        "statics": torch.randn(samples, config.static_attributes, generator=generator),
    }
    if config.image_modalities:
        batch["patch_positions"] = places[torch.randperm(96, generator=generator)[:patches]].expand(samples, -1, -1)
    for kind, total, modalities, counts in (
        ("image", days * patches, config.image_modalities, images),
        ("series", days, config.series_modalities, series),
    ):
        if not modalities:
            continue
        ragged = not isinstance(counts[0], int)
        each: Sequence[Counts] = counts if ragged else [[counts] * samples] * modalities  # type: ignore[assignment]
        longest = [max(pair[part] for own in each for pair in own) for part in (0, 1)]
        visible, predicted = (torch.full((samples, modalities, size), -1) for size in longest)
        for modality, own in enumerate(each):
            for sample, (kept, masked) in enumerate(own):
                order = torch.randperm(total, generator=generator)[: kept + masked]
                visible[sample, modality, :kept] = order[:kept].sort().values
                predicted[sample, modality, :masked] = order[kept:]
        pixels = (config.patch_pixels,) if kind == "image" else ()
        batch |= {
            f"{kind}_values": torch.randn(*visible.shape, *pixels, generator=generator),
            f"{kind}_visible": visible,
            f"{kind}_predicted": predicted,
        }
        if ragged:
            batch |= {f"{kind}_visible_mask": visible >= 0, f"{kind}_predicted_mask": predicted >= 0}
            batch[f"{kind}_values"][visible < 0] = float("nan")
    return batch


RAGGED_IMAGES: Sequence[Counts] = [[(11, 24), (0, 35), (7, 0)], [(3, 9), (12, 20), (0, 0)]]
"""Equal to most, all masked, all visible; then short, full, missing altogether."""
RAGGED_SERIES: Sequence[Counts] = [[(2, 3), (0, 5), (5, 0)], [(1, 2), (0, 0), (0, 1)]]


def ragged_batch(config: HydrologyMAEConfig, **options: object) -> dict[str, Tensor]:
    """Three samples, each with its own gaps; what stands in padding is NaN."""
    return random_batch(config, images=RAGGED_IMAGES, series=RAGGED_SERIES, **options)  # type: ignore[arg-type]


def alone(batch: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    """One sample of a batch, still with its padding."""
    return {name: value[sample : sample + 1] for name, value in batch.items()}


def both(config: HydrologyMAEConfig, **sizes: object) -> dict[str, dict[str, Tensor]]:
    """A batch with gaps and one without masks, which no mode runs in a way of its own."""
    batches = {"ragged": ragged_batch(config, **sizes)}
    return batches if config.ragged == "packed" else {**batches, "dense": random_batch(config, **sizes)}  # type: ignore[arg-type]


def scalar(outputs: dict[str, Tensor]) -> Tensor:
    """A loss [B] that weighs every number differently, and those of a sample alike wherever the sample stands."""
    total = torch.zeros(())
    for value in outputs.values():
        rows = value.flatten(2) if value.ndim == 4 else value
        total = total + (rows * torch.cos(torch.arange(rows[0].numel()).view(rows[0].shape) * 0.7)).sum((1, 2))
    return total


def gradients(model: HydrologyMAE, loss: Tensor) -> dict[str, Tensor]:
    """Of every weight that the loss reaches, by name."""
    model.zero_grad()
    loss.sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], atol: float = 1e-6) -> None:
    """Tensors of the same names are equal but for rounding."""
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=atol, rtol=atol)


def assert_same_gradients(first: dict[str, Tensor], second: dict[str, Tensor], rtol: float) -> None:
    """Gradients of the same names differ by little of their norm."""
    assert first.keys() == second.keys()
    for name in first:
        assert (first[name] - second[name]).norm() <= rtol * second[name].norm() + 1e-6, name
