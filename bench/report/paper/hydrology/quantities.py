"""What the tables and figures of hydrology read from the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from bench.report.paper import quantities
from bench.report.paper.quantities import latency
from bench.store.efficiency import Call, Count, Efficiency, Group

MAE, CROSS, SELF, THIRD = "mae", "cross", "cross-self", "cross-p25"
NAMES = {
    MAE: "MAE",
    CROSS: "CrossMAE",
    SELF: "CrossMAE, self-attention",
    THIRD: "CrossMAE, a third predicted",
}
"""Label -> its name in tables. A third of what is masked is a quarter of all tokens."""
DAYS = (1, 2, 6, 12, 30, 60, 90)
NOTES = 90
"""Days of the notes' windows."""
PATCHES, HIDDEN, WIDTH = 94, 70, 128
"""Patches of a day, those of them that are masked, width of the decoder: the notes'."""
ENCODER_LAYERS, DECODER_LAYERS, HEADS = 6, 4, 8
ALL_PATCHES = 522
"""Patches of a day, sea included."""


def sizes(days: int = NOTES, hidden: int = HIDDEN, width: int = WIDTH, patches: int = PATCHES) -> dict[str, int]:
    """Sizes of a counted row or a timed group."""
    return {"days": days, "patches": patches, "hidden": hidden, "width": width, "encoder_width": 2 * width}


def count(efficiency: Efficiency, label: str, **changed: int) -> Count | None:
    """The counted row of a design."""
    return efficiency.count(label, sizes(**changed))


def group(efficiency: Efficiency, mode: str, days: int) -> Group | None:
    """The timed group of decoders (``decoder``) or of whole steps (``step``) on so many days."""
    for made in efficiency.groups:
        whole = made.sizes["encoder_layers"] > 0
        if sizes(days).items() <= made.sizes.items() and whole == (mode == "step"):
            return made
    return None


def timed(efficiency: Efficiency, mode: str, days: int, label: str) -> Call | None:
    """The timed call of a design."""
    found = group(efficiency, mode, days)
    return None if found is None else next((call for call in found.calls if call.label == label), None)


def tokens(label: str, days: int = NOTES, hidden: int = HIDDEN) -> tuple[int, int, int]:
    """All tokens of a sample, those that a design predicts, and those that are visible."""
    everything, masked = days * PATCHES, days * hidden
    share = label.partition("-p")[2]
    predicted = min(masked, ceil(everything * int(share) / 100)) if share else masked
    return everything, predicted, everything - masked


def pairs(label: str, days: int = NOTES, hidden: int = HIDDEN) -> int:
    """Score pairs of a decoder layer, as the notes count them: without the token that is never masked."""
    everything, predicted, visible = tokens(label, days, hidden)
    if label == MAE:
        return everything**2
    return predicted * visible + (predicted**2 if label == SELF else 0)


def attention_flops(label: str, found: Group) -> int:
    """FLOPs of attention alone in a timed decoder, forward and backward."""
    extent = found.sizes["batch"] * found.sizes["decoder_layers"]
    return 12 * extent * pairs(label, found.sizes["days"]) * found.sizes["width"]


def rates(first: Call, second: Call, found: Group) -> tuple[float, float] | None:
    """GFLOP/s of linear layers and of attention that would explain the times of two decoders; None if none would.

    Each time is linear FLOPs over one speed and attention's over another: two equations, two speeds.
    """
    rows = []
    for call in (first, second):
        took = latency(call)
        if took is None:
            return None
        attention = attention_flops(call.label, found)
        rows.append((call.flops - attention, attention, took.value / 1e3))
    (a, b, s), (c, d, t) = rows
    determinant = a * d - b * c
    if not determinant:
        return None
    linear, attention_time = (s * d - b * t) / determinant, (a * t - s * c) / determinant
    return (1e-9 / linear, 1e-9 / attention_time) if linear > 0 and attention_time > 0 else None


def shape(label: str, days: int, hidden: int = HIDDEN) -> Mapping[str, int | float]:
    """L, M, V, D, E, depth and γ of a row."""
    everything, predicted, visible = tokens(label, days, hidden)
    return {"L": everything, "M": predicted, "V": visible, "D": WIDTH, "E": 2 * WIDTH, "gamma": predicted / everything}


def here(efficiency: Efficiency) -> str:
    """The sentence that says where and how times were measured."""
    size = f"the notes' shapes (preset {efficiency.record.preset})"
    return quantities.here(efficiency, size, "forward and backward")
