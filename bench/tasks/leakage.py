"""What must be told: targets that are input views, poses that say where targets are, a protocol that is not the usual one."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.tasks.nvs_config import NVSConfig


def expected_leakage(fewest: int, input_views: int, target_views: int) -> tuple[float, float]:
    """What `mix_inputs` comes to, with inputs masked by `mask_inputs`, in closed form.

    Of the Vi + Vt views of a sample n are inputs that can be seen, and Vt are drawn: hypergeometric, averaged over n.

    Returns:
        Share of the supervised targets that are input views; share of the samples that hold at least one.
    """
    pool, counts = input_views + target_views, range(fewest, input_views + 1)
    targets = sum(n / pool for n in counts) / len(counts)
    clean = sum(comb(pool - n, target_views) / comb(pool, target_views) for n in counts) / len(counts)
    return targets, 1 - clean


def training_notices(config: NVSConfig) -> Iterator[str]:
    """Lines that the options alone call for."""
    if config.target_has_input:
        share, samples = expected_leakage(config.fewest_input_views, config.input_views, config.target_views)
        yield (
            f"task.target_has_input: in training {100 * share:.0f} % of the supervised targets are input views, and "
            f"{100 * samples:.0f} % of the samples hold at least one"
        )
    if config.data == "re10k" and config.evaluation_index is None:
        yield (
            "task.evaluation_index is not set: the views of test clips are drawn as in training, and the scores are not "
            "those of the published protocol"
        )
    counts = {*range(config.fewest_input_views, config.input_views + 1), *config.extra_input_views}
    if config.frame == "inputs" and 1 in counts and len(counts) > 1:
        yield (
            "task.frame: inputs scales poses by the extent of the input cameras, and one camera has none: with 1 input lengths "
            "are in the data's own unit, with more in another; compare 1 input with care, or set task.frame: none"
        )
    if config.frame == "sample":
        yield "task.frame: sample places the input cameras by the target poses as well; inputs leaves those out"


def evaluation_notice(split: str, inputs: np.ndarray, targets: np.ndarray) -> Iterator[str]:
    """A line if some targets [B, T] of an evaluation's scenes are among its input views [B, Vi]."""
    seen = (targets[:, :, None] == inputs[:, None]).any(axis=2)
    if seen.any():
        count = inputs.shape[1]
        yield (
            f"{split}: {100 * seen.mean():.1f} % of the targets are input views ({seen.any(axis=1).sum()} of {len(seen)} scenes) "
            f"at {count} input{'s' * (count > 1)}, as the data's own evaluation has it"
        )
