"""Host batches of the task ``hydrology``: gathered from a region, made up for probes, and degenerate ones for checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.draws import Salt
from bench.tasks import hydrology_masks as masks
from bench.tasks.hydrology_masks import Tokens

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.hydrology_config import HydrologyConfig
    from bench.tasks.hydrology_data import Region

MASK_FIELDS = {"image": ("image_visible", "image_predicted"), "series": ("series_visible", "series_predicted")}
"""Fields of token numbers, to each of which a ``.._mask`` belongs where samples may be ragged."""


class Chosen(NamedTuple):
    """What samples are made of; all [B]."""

    catchments: NDArray[np.int64]
    starts: NDArray[np.int64]
    """First days."""
    lengths: NDArray[np.int64]
    """Days of the windows."""
    image_draws: NDArray[np.uint64]
    """What decides which patches are hidden."""
    series_draws: NDArray[np.uint64]
    """What decides which days of the series are hidden."""
    present: NDArray[np.bool_] | None = None
    """[B, K + S]: which modalities a sample has; None: all."""


class Cut(NamedTuple):
    """Which tokens of a batch are visible and which are predicted; None where there is no such modality."""

    images: Tokens | None
    series: Tokens | None


def cut(config: HydrologyConfig, patches: int, chosen: Chosen, *, longest: int, region: Region | None = None) -> Cut:
    """Mask the windows of N = `patches` tokens a frame; what `region` lacks and what is not present is no token."""
    images = series = None
    fields, days = len(config.images), int(chosen.lengths.max())
    within = np.arange(days) < chosen.lengths[:, None]
    if fields:
        visible = masks.visible_patches(
            chosen.image_draws, config.image_masks, chosen.lengths, patches, config.kept(patches), longest=longest,
            unified=config.unified_masks,
        )  # fmt: skip
        there = None
        if config.ragged:
            there = np.broadcast_to(within[:, None, :, None], visible.shape)
            if region is not None and region.patch_there is not None:
                days_of = _days(chosen, days, region)
                there = there & region.patch_there[:, days_of].swapaxes(0, 1)
            if chosen.present is not None:
                there = there & chosen.present[:, :fields, None, None]
        images = masks.tokens(chosen.image_draws, Salt.HYDROLOGY_IMAGE_ORDER, visible, there, longest)
    if config.series_names:
        count = len(config.series_names)
        kept = config.kept(chosen.lengths)
        visible = masks.visible_days(
            chosen.series_draws, config.series_mask, chosen.lengths, kept, count, longest=longest,
            unified=config.unified_masks,
        )  # fmt: skip
        there = None
        if config.ragged:
            there = np.broadcast_to(within[:, None], visible.shape)
            if region is not None and region.day_there is not None:
                days_of = _days(chosen, days, region)
                there = there & region.day_there[chosen.catchments[:, None], :, days_of].swapaxes(1, 2)
            if chosen.present is not None:
                there = there & chosen.present[:, fields:, None]
        series = masks.tokens(chosen.series_draws, Salt.HYDROLOGY_SERIES_ORDER, visible, there, longest)
    return Cut(images, series)


def _days(chosen: Chosen, days: int, region: Region) -> NDArray[np.int64]:
    """[B, T] places in the calendar; behind the end of a record its last day, which no token stands for."""
    return np.minimum(chosen.starts[:, None] + np.arange(days), len(region.dates) - 1)


def gather(config: HydrologyConfig, region: Region, chosen: Chosen, *, longest: int) -> Batch:
    """Read and mask the windows of `chosen`; `longest` is no less than any of their lengths, see `hydrology_masks`."""
    patches, days = len(region.patch_positions), int(chosen.lengths.max())
    images, series = cut(config, patches, chosen, longest=longest, region=region)
    samples = len(chosen.starts)
    batch: Batch = {}
    if images is not None:
        record, pixels = len(region.dates) * patches, region.patches.shape[-1]
        # The tokens of a field on consecutive days stand one after the other: a window's are those behind its first.
        first = np.arange(len(config.images))[:, None] * record + chosen.starts[:, None, None] * patches
        seen = region.patch_seen.reshape(-1, pixels)
        _add(batch, config, "image", images, region.patches.reshape(-1, pixels), seen, first)
        positions = np.broadcast_to(region.patch_positions, (samples, patches, 2))
        batch["patch_positions"] = torch.from_numpy(positions.copy())
    if series is not None:
        place = chosen.catchments[:, None] * len(config.series_names) + np.arange(len(config.series_names))
        first = (place * len(region.dates) + chosen.starts[:, None])[..., None]
        _add(batch, config, "series", series, region.series.reshape(-1), region.series_seen.reshape(-1), first)
    if config.static_names:
        batch["statics"] = torch.from_numpy(region.statics[chosen.catchments])
    batch["day_of_year"] = torch.from_numpy(region.day_of_year[_days(chosen, days, region)].astype(np.float32))
    return batch


def _add(
    batch: Batch,
    config: HydrologyConfig,
    role: str,
    tokens: Tokens,
    rows: NDArray[np.float32],
    seen: NDArray[np.bool_],
    first: NDArray[np.int64],
) -> None:
    """Put values and targets into the batch: those of token i of a sample stand in row first + i of `rows`.

    Whether they were observed stands in the same row of `seen`, which has fewer where they repeat. What was not is 0 in `rows`:
    the mean for the model, and no target.
    """
    targets = first + tokens.predicted
    # -1, which is no token, reads a row like the others, and is emptied.
    found = {
        "values": rows.take(first + tokens.visible, axis=0, mode="wrap"),
        "targets": rows.take(targets, axis=0, mode="wrap"),
        "target_mask": seen.take(targets if len(seen) == len(rows) else targets % len(seen), axis=0, mode="wrap"),
    }
    for kind, value in found.items():
        if config.ragged:
            value[(tokens.visible if kind == "values" else tokens.predicted) < 0] = 0
        batch[f"{role}_{kind}"] = torch.from_numpy(value)
    for field, number in zip(MASK_FIELDS[role], tokens, strict=True):
        batch[field] = torch.from_numpy(number)
        if config.ragged:
            batch[f"{field}_mask"] = torch.from_numpy(number >= 0)


# ------------------------------------------------------------------------------------------------------ made up


def synthetic(config: HydrologyConfig, patches: int, batch_size: int, seed: int, *, whole: bool = False) -> Batch:
    """Batch of the largest shapes of training, of noise around different means; reads no data.

    Where samples may be ragged, every other one, from the first, has the shortest window and lacks its first modality, unless
    all are `whole`: a larger batch is more of the same.
    """
    generator = np.random.default_rng(seed)
    lengths = np.full(batch_size, config.longest)
    present = None
    if config.ragged and not whole:
        lengths[::2] = config.shortest
        present = np.ones((batch_size, len(config.modalities)), bool)
        present[::2, 0] = len(config.modalities) == 1
    return _made_up(config, patches, lengths, present, generator)


def _made_up(
    config: HydrologyConfig,
    patches: int,
    lengths: NDArray[np.int64],
    present: NDArray[np.bool_] | None,
    generator: np.random.Generator,
) -> Batch:
    """Batch of windows of `lengths` days with made-up values, padded to the shapes of the longest window of training."""
    samples, longest = len(lengths), max(config.longest, int(lengths.max()))
    draws = generator.integers(0, 2**64, samples, dtype=np.uint64)
    none = np.zeros(samples, np.int64)
    tokens = cut(config, patches, Chosen(none, none, lengths, draws, draws, present), longest=longest)
    kept = config.kept(patches) * longest
    batch: Batch = {}
    if tokens.images is not None:
        most = (kept, longest * patches - kept)
        pixels = config.patch_cells**2
        rows = (generator.standard_normal((longest * patches, pixels)) + generator.normal()).astype(np.float32)
        seen = generator.random(rows.shape) >= 0.1
        rows *= seen
        _add(batch, config, "image", _padded(tokens.images, most, config), rows, seen, np.zeros((1, 1, 1), np.int64))
        side = int(np.ceil(np.sqrt(patches)))
        positions = np.stack(np.divmod(np.arange(patches), side), axis=1).astype(np.float32)
        batch["patch_positions"] = torch.from_numpy(np.broadcast_to(positions, (samples, patches, 2)).copy())
    if tokens.series is not None:
        most = (config.kept(longest), longest - config.kept(longest))
        rows = generator.standard_normal(longest).astype(np.float32)
        whole, none_before = np.ones(1, bool), np.zeros((1, 1, 1), np.int64)
        _add(batch, config, "series", _padded(tokens.series, most, config), rows, whole, none_before)
    if config.static_names:
        statics = generator.standard_normal((samples, len(config.static_names))).astype(np.float32)
        batch["statics"] = torch.from_numpy(statics)
    first = generator.integers(0, 366, (samples, 1))
    days = np.arange(longest if config.ragged else int(lengths.max()))
    batch["day_of_year"] = torch.from_numpy(((first + days) % 366).astype(np.float32))
    return batch


def _padded(tokens: Tokens, most: tuple[int, int], config: HydrologyConfig) -> Tokens:
    """Where samples may be ragged, widen the token numbers to `most` visible and predicted ones."""
    if not config.ragged:
        return tokens
    return Tokens(
        *(
            np.pad(number, ((0, 0), (0, 0), (0, max(0, count - number.shape[-1]))), constant_values=-1)
            for number, count in zip(tokens, most, strict=True)
        )
    )


def edge_cases(config: HydrologyConfig, patches: int, batch_size: int) -> dict[str, Batch]:
    """Constant values, extreme values, an odd window; where samples may be ragged, also all visible, nothing visible, one modality."""
    cases = {
        name: synthetic(config, patches, batch_size, seed) for seed, name in enumerate(("zeros", "extreme values"))
    }
    for name, factor in (("zeros", 0.0), ("extreme values", 1e3)):
        for field in cases[name]:
            if field.endswith(("_values", "_targets")) or field == "statics":
                cases[name][field].mul_(factor)
    generator = np.random.default_rng(2)
    odd = next(days for days in range(3, 1000, 2) if config.kept(days) or not config.series_names)
    cases[f"windows of {odd} days"] = _made_up(config, patches, np.full(batch_size, odd), None, generator)
    if config.ragged:
        for name, fields in (
            ("all visible", [field for _, field in MASK_FIELDS.values()]),
            ("nothing visible", [field for field, _ in MASK_FIELDS.values()]),
        ):
            batch = synthetic(config, patches, batch_size, 3, whole=True)
            for field in fields:
                empty(batch, field)
            cases[name] = batch
        alone = np.eye(len(config.modalities), dtype=bool)[np.arange(batch_size) % len(config.modalities)]
        cases["one modality a sample"] = _made_up(
            config, patches, np.full(batch_size, config.longest), alone, np.random.default_rng(4)
        )
    return cases


def empty(batch: Batch, field: str) -> None:
    """Take all tokens of a field of token numbers out of the batch, in place, with their values or targets."""
    if field not in batch:
        return
    role, kind = field.split("_")
    batch[field].fill_(-1)
    batch[f"{field}_mask"].fill_(False)
    for value in ("values",) if kind == "visible" else ("targets", "target_mask"):
        batch[f"{role}_{value}"].zero_()


# ---------------------------------------------------------------------------------------------------- symmetries


def permute_visible(batch: Batch, generator: torch.Generator) -> Batch:
    """Copy of a batch whose visible tokens stand in another order, with their numbers and masks."""
    changed = dict(batch)
    for role in MASK_FIELDS:
        if f"{role}_visible" not in batch:
            continue
        number = batch[f"{role}_visible"]
        order = torch.rand(number.shape, generator=generator).argsort(dim=-1).to(number.device)
        for field in (f"{role}_visible", f"{role}_values", f"{role}_visible_mask"):
            if field in batch:
                value = batch[field]
                places = order.reshape(*order.shape, *[1] * (value.ndim - order.ndim)).expand_as(value)
                changed[field] = value.gather(2, places)
    return changed


def scramble_padding(batch: Batch, generator: torch.Generator) -> Batch:
    """Copy of a ragged batch whose padding holds other values."""
    changed = dict(batch)
    for role in MASK_FIELDS:
        if f"{role}_values" in batch:
            values, mask = batch[f"{role}_values"], batch[f"{role}_visible_mask"]
            noise = torch.randn(values.shape, generator=generator).to(values.device)
            changed[f"{role}_values"] = torch.where(
                mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim)), values, noise
            )
    return changed
