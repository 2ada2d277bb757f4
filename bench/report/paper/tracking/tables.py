"""The tables of MixFormer: claims, computation, times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.report.paper.claims_table import Verdict, claims_table, counted, untested
from bench.report.paper.layout import Column, PaperTable, as_printed, number
from bench.report.paper.published import Published
from bench.report.paper.quantities import Theirs, latency, memory, over, quotient, sources
from bench.report.paper.ratios import agreement, apart, show_ratio
from bench.report.paper.tracking.quantities import LABELS, MODES, call, count, here, name
from bench.store.efficiency import Call, Efficiency

CLASSES = 1000
LAST_WIDTHS = {"cvt-21": 384, "cvt-w24": 1024, "tiny": 96, "vit-b": 768}
"""Channels of the last stage."""
TOKENS_BESIDE = {"vit-b": 18**2 + 8**2 + 14**2 + 2}
"""Rows of that width which published weights have beside the classifier: position tables of the search picture, of the
templates and, unused, of 224 px with a class token; and that token."""


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them."""
    notes = (here(efficiency),)
    return [
        claims_table("Claims, and what was tested here", published, RULES, efficiency, notes),
        _computation(efficiency, published),
        _times(efficiency, published),
    ]


def _gflop(efficiency: Efficiency, label: str, mode: str) -> float | None:
    row = count(efficiency, label, mode)
    return None if row is None else row.flops / 1e9


def _computation(efficiency: Efficiency, published: Theirs) -> PaperTable:
    weights, forward, paper = (published[key] for key in ("parameters", "forward", "paper-flops"))
    rows = []
    for label in LABELS:
        row = count(efficiency, label, "full")
        made: dict[str, Any] = {
            "model": name(label),
            "parameters": None if row is None else row.parameters / 1e6,
            "parameters_run": weights.get(label),
            "macs": None if row is None else row.flops / 2e9,
            "paper": paper.get(label),
            "saving": over(_gflop(efficiency, label, "full"), _gflop(efficiency, label, "track")),
            "counters": agreement(row),
        }
        for mode in MODES:
            made[mode] = _gflop(efficiency, label, mode)
            made[f"{mode}_run"] = forward.get(f"{label}/{mode}")
        rows.append(made)
    columns = (
        Column("model", "model"),
        Column("parameters", "M parameters", number(4)),
        Column("parameters_run", "[run]", as_printed),
        *(
            column
            for mode, heading in MODES.items()
            for column in (Column(mode, f"{heading}, GFLOP", number(4)), Column(f"{mode}_run", "[run]", as_printed))
        ),
        Column("saving", "at once / kept", show_ratio),
        Column("macs", "at once, GMAC", number(4)),
        Column("paper", '"G FLOPs" [note]', as_printed),
        Column("counters", "counters that agree exactly"),
    )
    notes = (
        "One target with a template and an online template, forward, on the meta device; 2 FLOPs per multiply-add, matrix "
        "products, convolutions and attention. Ours have no dead classifier, which the published weights carry along. The "
        'papers\' "FLOPs" are multiply-adds.',
        "Asymmetric attention lets templates be kept over frames, keys and values after their projection; the published code "
        "of MixCvT keeps them before it and projects them again in every frame. In symmetric attention templates read the search picture, "
        "so that only their first embedding can be kept.",
    )
    title = "Computation of MixFormer"
    return PaperTable("computation", title, columns, tuple(rows), notes, sources(weights, forward, paper))


def _times(efficiency: Efficiency, published: Theirs) -> PaperTable:
    times = published["time"]
    rows, said = [], []
    for label in LABELS:
        full = call(efficiency, label, "full")
        for mode in MODES:
            made = call(efficiency, label, mode)
            if made is None:
                continue
            took, taken, measured = latency(made), memory(made), quotient(full, made)
            by_flops = None if full is None else full.flops / made.flops
            rows.append(
                {
                    "model": name(label),
                    "mode": MODES[mode],
                    "ms": took,
                    "run": times.get(f"{label}/{mode}"),
                    "ratio": measured,
                    "flops": by_flops,
                    "ratio_run": over(times.get(f"{label}/full"), times.get(f"{label}/{mode}")),
                    "rate": None if took is None or mode == "templates" else 1e3 / took.value,
                    "memory": None if taken is None else taken / 2**20,
                    "deviation": made.deviation,
                }
            )
            said += _explained(name(label), full, made) if mode == "track" else []
    columns = (
        Column("model", "model"),
        Column("mode", "call"),
        Column("ms", "ms here", number(3)),
        Column("run", "theirs [run]", as_printed),
        Column("ratio", "at once / this, here", show_ratio),
        Column("flops", "by FLOPs", show_ratio),
        Column("ratio_run", "theirs [run]", show_ratio),
        Column("rate", "frames/s of the network", number(3)),
        Column("memory", "MiB here", number(3)),
        Column("deviation", "largest difference", number(2)),
    )
    skipped = [
        f"Not timed: {made.label}, {made.mode}: {made.skipped}."
        for group in efficiency.groups
        for made in group.calls
        if made.skipped
    ]
    notes = (
        "One target, templates kept or not. Frames/s are of the network on pictures that are there already: a tracking loop also "
        "reads, crops and resizes them. MiB: the most bytes of tensors that a call holds at once, what is kept of the templates "
        "included, weights and inputs not. The largest difference is that of a box from the one of all at once, as a share of "
        "the search picture.",
        *said,
        *skipped,
        here(efficiency),
    )
    return PaperTable("times", "Times of MixFormer", columns, tuple(rows), notes, sources(times), names=2)


def _explained(title: str, full: Call | None, made: Call) -> list[str]:
    """Why a measured ratio is not the one by FLOPs."""
    found = apart(full, made)
    if found is None:
        return []
    why = (
        "what FLOPs leave out (norms, depth-wise convolutions of few FLOPs, copies, calls) weighs more in the smaller call"
        if found.side == "below"
        else "concatenating and splitting pictures, and attention to all of them, are spared as well"
    )
    return [f"{title}, {MODES['track']}: {found.told('all at once', 'this')}: {why}."]


# ------------------------------------------------------------------------------------------------------------------ claims

BENCHMARK = (
    "the benchmark's videos are not part of Isochron and the training is days on eight GPUs; the comparison "
    "tracking-mixed-attention trains on embedded clips, from which nothing follows for it; GOT-10k and LaSOT folders are scored "
    "by the conventions that each metric names"
)


def _never(reason: str) -> Verdict:
    return lambda efficiency, entry: untested(reason)


def _parameters(efficiency: Efficiency, entry: Published) -> str:
    """Ours have no dead classifier, and position tables are no weights: both are added for the models that carry them."""
    pairs: dict[str, tuple[float | None, float]] = {}
    for label, width in LAST_WIDTHS.items():
        row = count(efficiency, label, "full")
        beside = (2 + TOKENS_BESIDE.get(label, 0)) * width + CLASSES * (width + 1)
        pairs[label] = None if row is None else (row.parameters + beside) / 1e6, entry[label]
    without = count(efficiency, "cvt-21", "full")
    bare = "cvt-21 without dead weights"
    pairs[bare] = None if without is None else without.parameters / 1e6, entry[bare]
    return counted(pairs)


def _counted(divisor: float, mode: str = "") -> Verdict:
    def verdict(efficiency: Efficiency, entry: Published) -> str:
        pairs: dict[str, tuple[float | None, float]] = {}
        for key, theirs in entry.values.items():
            label, _, part = key.partition("/")
            row = count(efficiency, label, part or mode)
            pairs[key] = None if row is None else row.flops / divisor, theirs
        return counted(pairs)

    return verdict


def _forward(efficiency: Efficiency, entry: Published) -> str:
    said, row = _counted(1e9)(efficiency, entry), count(efficiency, "cvt-21", "track")
    return said if row is None else f"{said}; a frame is less where keys and values are kept after their projection"


def _paper(efficiency: Efficiency, entry: Published) -> str:
    return f"{_counted(2e9, 'full')(efficiency, entry)} as multiply-adds, half of the FLOPs"


def _timed(efficiency: Efficiency, entry: Published) -> str:
    ratios = []
    for key, theirs in entry.values.items():
        made = call(efficiency, *key.split("/"))
        took = latency(made)
        if took is not None:
            ratios.append(took.value / theirs)
    if not ratios:
        return untested("it was not timed")
    return (
        f"measured: {len(ratios)} of {len(entry.values)} calls, {min(ratios):.2f} to {max(ratios):.2f} times their ms"
    )


def _rate(efficiency: Efficiency, entry: Published) -> str:
    full, kept = (latency(call(efficiency, "cvt-21", mode)) for mode in ("full", "track"))
    if full is None or kept is None:
        return untested("it was not timed")
    device = efficiency.record.device
    theirs = "" if device.kind == "cuda" else "; their GPU is not here"
    return (
        f"measured: the network alone makes {1e3 / full.value:.2g} frames/s all at once and {1e3 / kept.value:.2g} with kept "
        f"templates on {device.name}{theirs}; a rate of calls on random input is no rate of tracking"
    )


def _exact(efficiency: Efficiency, entry: Published) -> str:
    differ = [
        made.deviation
        for label in LABELS
        if (made := call(efficiency, label, "track")) is not None and made.deviation is not None
    ]
    if not differ:
        return untested("it was not timed")
    return f"measured: at most {max(differ):.2g}, symmetric and tiny models included; keys and values kept after projection"


RULES: Mapping[str, Callable[[Efficiency, Published], str]] = {
    **dict.fromkeys(("accuracy", "accuracy-abstract", "accuracy-paper", "accuracy-repeated"), _never(BENCHMARK)),
    "speed": _rate,
    "speed-user": _never(
        "the loop of the user, with their pictures and their GPU; frames/s of ours are in the task's records"
    ),
    "speed-v2": _never("another architecture, which is not built here"),
    "paper-flops": _paper,
    "parameters": _parameters,
    "forward": _forward,
    "time": _timed,
    "cached-exact": _exact,
}
"""Published name -> what is said of it."""
