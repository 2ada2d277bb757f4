"""How many tokens a masked autoencoder keeps and predicts, in exact decimal arithmetic.

Floating point would keep 9 of 100 tokens at a mask ratio of 0.9, for 100 * (1 - 0.9) is a little less than 10.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import NamedTuple


class MaskCounts(NamedTuple):
    """Split of the tokens of one sample; the three add up to all of them."""

    kept: int
    """Visible to the encoder."""
    ignored: int
    """Masked, and not predicted either."""
    predicted: int
    """Masked and predicted."""


def mask_counts(tokens: int, mask_ratio: float, prediction_ratio: float | None = None) -> MaskCounts:
    """Split ``tokens`` into kept = floor(L (1 - r)), ignored = floor(L (r - g)) and predicted, which is the rest.

    Args:
        tokens: number L of tokens.
        mask_ratio: share r of the tokens that are hidden from the encoder, read as the decimal number that it prints as.
        prediction_ratio: share g of all tokens that are predicted, at most r; None predicts all that are hidden.

    Raises:
        ValueError: a ratio out of range, or one that leaves nothing to keep or to predict.
    """
    if prediction_ratio is None:
        prediction_ratio = mask_ratio
    if not _is_number(mask_ratio) or not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio must be a number between 0 and 1, got {mask_ratio!r}")
    if not _is_number(prediction_ratio) or not 0 < prediction_ratio <= mask_ratio:
        raise ValueError(
            f"prediction_ratio must be a number above 0 and at most mask_ratio {mask_ratio!r}, got {prediction_ratio!r}"
        )
    masked, predicted = Fraction(str(mask_ratio)), Fraction(str(prediction_ratio))
    kept, ignored = floor(tokens * (1 - masked)), floor(tokens * (masked - predicted))
    if kept == 0:
        raise ValueError(f"mask_ratio {mask_ratio!r} keeps none of {tokens} tokens: lower it")
    if kept + ignored == tokens:
        raise ValueError(f"prediction_ratio {prediction_ratio!r} predicts none of {tokens} tokens: raise it")
    return MaskCounts(kept, ignored, tokens - kept - ignored)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
