"""What the tables and figures of view synthesis read from the measurements, under the names that they show."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report.paper import quantities
from bench.store.efficiency import Call, Efficiency

LVSM, LATENTS, OURS = "lvsm-decoder-only", "lvsm-encoder-decoder", "efficient-lvsm"
FAMILIES = (LVSM, LATENTS, OURS)
CALLS = {
    (LVSM, "full"): "LVSM decoder-only",
    (LATENTS, "full"): "LVSM encoder-decoder",
    (LATENTS, "render"): "LVSM encoder-decoder, from latents",
    (OURS, "full"): "Efficient-LVSM, no cache",
    (OURS, "add"): "Efficient-LVSM, one view added",
    (OURS, "render"): "Efficient-LVSM, from cache",
}
"""Label and mode of what is timed -> its name in tables and figures."""
TARGETS, INPUTS = 8, 4
"""Target views where the input views vary, and the other way round."""
ASYMPTOTIC_FROM = 8
"""Views from which exponents are fitted: below, what does not grow with the views hides what does."""

INCREMENTAL = (4, 8, 16, 32, 48, 64)
"""Input views, the added one included, of the published table."""


def views(inputs: int, targets: int = TARGETS) -> dict[str, int]:
    """Sizes of a row or a group."""
    return {"input_views": inputs, "target_views": targets}


def tflop(efficiency: Efficiency, label: str, sizes: Mapping[str, int], mode: str = "full") -> float | None:
    """Counted forward TFLOP of a row."""
    row = efficiency.count(label, sizes, mode)
    return None if row is None else row.flops / 1e12


def here(efficiency: Efficiency) -> str:
    """The sentence that says where and how latencies were measured."""
    record = efficiency.record
    return quantities.here(efficiency, f"preset {record.preset} ({record.image_size} px)", "one scene")


def sweep(efficiency: Efficiency, vary: str) -> dict[int, dict[tuple[str, str], Call]]:
    """Calls by number of views while `vary` (``input_views`` or ``target_views``) varies, fewest first."""
    fixed = {"target_views": TARGETS} if vary == "input_views" else {"input_views": INPUTS}
    found = {
        group.sizes[vary]: {(call.label, call.mode): call for call in group.calls}
        for group in efficiency.groups
        if fixed.items() <= group.sizes.items()
    }
    return dict(sorted(found.items()))
