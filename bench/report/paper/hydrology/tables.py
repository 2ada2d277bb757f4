"""The tables of the notes' cost claims, and of what lies behind them."""

from __future__ import annotations

from bench.report.paper.hydrology.claims import claims, ratios
from bench.report.paper.hydrology.quantities import (
    CROSS,
    DAYS,
    HIDDEN,
    MAE,
    NAMES,
    NOTES,
    PATCHES,
    THIRD,
    WIDTH,
    count,
    here,
    pairs,
    tokens,
)
from bench.report.paper.layout import Column, PaperTable, as_printed, number, ratio
from bench.report.paper.quantities import Theirs, latency, memory, over, sources
from bench.report.paper.ratios import (
    agreement,
    counted_ratio,
    gflop,
    show_ratio,
    speed,
)
from bench.store.efficiency import Efficiency

HIDDEN_BY_RATIO = {0.4: 37, 0.6: 56, 0.75: HIDDEN, 0.9: 84}
"""Mask ratio -> masked patches of a day, as the notes round them."""
WIDTHS = (64, 128, 256, 512, 768)
SHARES = {10: "cross-p10", 25: THIRD, 50: "cross-p50", 75: CROSS}
"""Percent of all tokens that are predicted (75: all that are masked) -> design."""


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them."""
    return [
        claims(efficiency, published),
        ratios(efficiency, published),
        _times(efficiency),
        _computation(efficiency, published),
        _sweep(efficiency, published),
    ]


def _times(efficiency: Efficiency) -> PaperTable:
    rows = []
    for made in efficiency.groups:
        for call in made.calls:
            took, taken = latency(call), memory(call)
            rows.append(
                {
                    "part": call.mode,
                    "days": made.sizes["days"],
                    "design": NAMES[call.label],
                    "batch": made.sizes["batch"],
                    "blocks": made.sizes["decoder_layers"],
                    "gflop": call.flops / 1e9,
                    "seconds": None if took is None else took._replace(
                        value=took.value / 1e3,
                        interval=took.interval and type(took.interval)(*(end / 1e3 for end in took.interval)),
                    ),
                    "speed": None if took is None else speed(call),
                    "memory": None if taken is None else taken / 2**20,
                    "load": made.load,
                }
            )  # fmt: skip
    rows.sort(key=lambda row: (row["part"], row["days"]))
    columns = (
        Column("part", "part"),
        Column("days", "days"),
        Column("design", "design"),
        Column("batch", "B"),
        Column("blocks", "decoder blocks"),
        Column("gflop", "GFLOP", number(4)),
        Column("seconds", "s", number(3)),
        Column("speed", "GFLOP/s", number(3)),
        Column("memory", "MiB", number(3)),
        Column("load", "load", number(2)),
    )
    notes = (
        "Forward and backward; GFLOP is three times the forward pass. MiB: the most bytes of tensors that a call holds at once, "
        "gradients of the weights included, weights and inputs not.",
        here(efficiency),
    )
    return PaperTable("times", "Times and memory", columns, tuple(rows), notes, names=3)


def _computation(efficiency: Efficiency, published: Theirs) -> PaperTable:
    forward = published["forward"]
    rows = []
    for days in DAYS:
        for label, name in NAMES.items():
            row = count(efficiency, label, days=days)
            encoder, decoder = gflop(row, "encoder"), gflop(row, "decoder")
            theirs = forward.get(f"{label} {days}")
            rows.append(
                {
                    "days": days,
                    "design": name,
                    "encoder": encoder,
                    "encoder_inferred": forward.get(f"encoder {days}"),
                    "decoder": decoder,
                    "decoder_inferred": theirs,
                    "over_inferred": over(decoder, theirs),
                    "training": None if row is None else row.training_flops / 1e9,
                    "counters": agreement(row),
                }
            )
    columns = (
        Column("days", "days"),
        Column("design", "design"),
        Column("encoder", "encoder GFLOP", number(4)),
        Column("encoder_inferred", "[inferred]", as_printed),
        Column("decoder", "decoder GFLOP", number(4)),
        Column("decoder_inferred", "[inferred]", as_printed),
        Column("over_inferred", "ours / inferred", ratio),
        Column("training", "training step GFLOP", number(4)),
        Column("counters", "counters that agree exactly"),
    )
    notes = (
        "A sample and an image modality, forward, on the meta device; 2 FLOPs per multiply-add, matrix products with attention. "
        "Ours have embeddings and heads; the inferred encoder is its blocks alone. Counters: closed form, FlopCounterMode, "
        "fvcore.",
    )
    return PaperTable("computation", "Computation", columns, tuple(rows), notes, sources(forward), names=2)


def _sweep(efficiency: Efficiency, published: Theirs) -> PaperTable:
    by_width, by_mask = published["ratio-by-width"], published["ratio-by-mask"]
    settings: list[tuple[str, dict[str, int], str, float | None, float | None]] = []
    for share, hidden in HIDDEN_BY_RATIO.items():
        inferred = by_mask.get(f"decoder {share:g}"), by_mask.get(f"step {share:g}")
        settings.append((f"mask ratio {share:g} ({hidden} of {PATCHES})", {"hidden": hidden}, CROSS, *inferred))
    settings += [
        (f"decoder width {width}, encoder {2 * width}", {"width": width}, CROSS, by_width.get(str(width)), None)
        for width in WIDTHS
    ]
    settings += [(f"γ {tokens(label)[1] / tokens(label)[0]:.3g}", {}, label, None, None) for label in SHARES.values()]
    rows = []
    for name, changed, label, decoder, step in settings:
        mae, row = (count(efficiency, one, **changed) for one in (MAE, label))
        rows.append(
            {
                "setting": name,
                "attention": pairs(MAE) / pairs(label, hidden=changed.get("hidden", HIDDEN)),
                "decoder": counted_ratio(mae, row, "decoder"),
                "decoder_inferred": decoder,
                "step": counted_ratio(mae, row),
                "step_inferred": step,
            }
        )
    columns = (
        Column("setting", "setting"),
        Column("attention", "attention only", show_ratio),
        Column("decoder", "decoder, FLOPs", show_ratio),
        Column("decoder_inferred", "[inferred]", as_printed),
        Column("step", "step, FLOPs", show_ratio),
        Column("step_inferred", "[inferred]", as_printed),
    )
    notes = (
        f"MAE over CrossMAE at {NOTES} days; what a row does not name is the notes' ({HIDDEN} of {PATCHES} patches masked, "
        f"decoder {WIDTH} wide, all that is masked predicted). The less is masked, the more the encoder has to do, which both "
        "share; the wider the layers, the less attention weighs.",
    )
    title = "Ratios over mask ratio, width and predicted share"
    return PaperTable("sweep", title, columns, tuple(rows), notes, sources(by_width, by_mask))
