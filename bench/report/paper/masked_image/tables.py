"""The tables of MAE and CrossMAE: counted at the published sizes, timed at ViT-B/16."""

from __future__ import annotations

from typing import Any

from bench.report.paper.layout import Column, PaperTable, as_printed, number, ratio, whole
from bench.report.paper.masked_image.quantities import (
    CROSS,
    DEPTHS,
    MAE,
    MASK_PERCENT,
    MODELS,
    NAMES,
    THIRD,
    batch,
    count,
    design_sizes,
    here,
    step,
    tokens,
)
from bench.report.paper.quantities import Theirs, latency, memory, over, quotient, sources
from bench.report.paper.ratios import agreement, beside, counted_ratio, gflop, show_ratio, shown, speed
from bench.store.efficiency import Call, Count, Efficiency

MASKS, WIDTHS = (40, 60, 75, 90), (64, 128, 256, 512, 768)


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them."""
    return [
        _training(efficiency, published),
        _computation(efficiency, published),
        _designs(efficiency, published),
        _equal(efficiency),
        _sweep(efficiency),
    ]


def _training(efficiency: Efficiency, published: Theirs) -> PaperTable:
    two, four, taken, parts = (published[name] for name in ("epoch-2", "epoch-4", "memory-2", "epoch-steps"))
    mae, mae_call = count(efficiency, MAE), step(efficiency, MAE)
    rows: list[dict[str, Any]] = []
    remarks = []
    designs = (MAE, "mae-3", "crossmae-8", "crossmae-12", CROSS, THIRD)
    for design in designs:
        key, row, call = f"vit-b/{design}", count(efficiency, design), step(efficiency, design)
        by_flops, measured, took = counted_ratio(mae, row), quotient(mae_call, call), latency(call)
        rows.append(
            {
                "design": NAMES[design],
                **design_sizes(design),
                "epoch_4": over(four["vit-b/" + MAE], four.get(key)),
                "epoch_2": over(two["vit-b/" + MAE], two.get(key) or parts.get(key)),
                "attention": _attention(design),
                "decoder": counted_ratio(mae, row, "decoder"),
                "step": by_flops,
                "measured": measured,
                "seconds": None if took is None else took.value / 1e3,
                "memory_note": over(taken.get(key), taken["vit-b/" + MAE]),
                "memory": over(memory(call), memory(mae_call)),
            }
        )
        side = beside(measured, by_flops)
        if side and call is not None and mae_call is not None and measured is not None and by_flops is not None:
            remarks.append(
                f"{NAMES[design]}: {shown(measured)} measured, {side} the {by_flops:.2f} by FLOPs: it came to "
                f"{speed(call):.0f} GFLOP/s, MAE to {speed(mae_call):.0f}."
            )
    columns = (
        Column("design", "design"),
        *(Column(name, name) for name in ("L", "M", "V", "D", "E", "blocks")),
        Column("epoch_4", "published, 4 GPUs [note]", show_ratio),
        Column("epoch_2", "published, 2 GPUs [note]", show_ratio),
        Column("attention", "attention of the decoder", show_ratio),
        Column("decoder", "FLOPs of the decoder", show_ratio),
        Column("step", "FLOPs of the step", show_ratio),
        Column("measured", "step here", show_ratio),
        Column("seconds", "s a step here", number(3)),
        Column("memory_note", "memory, published [note]", show_ratio),
        Column("memory", "memory here", show_ratio),
    )
    notes = (
        f"ViT-B/16 at 224 px, mask ratio {MASK_PERCENT / 100:g}. Times as many as, or times as fast as: MAE with 8 blocks over the "
        "design (memory: the design over MAE). L patches, M predicted and V visible; D width of the decoder, E of the encoder. "
        "FLOPs of the step: forward and backward, encoder included. Attention: score pairs of the decoder, layers counted.",
        "Memory here is the most bytes of tensors that a step holds at once, gradients of the weights included, weights not; "
        f"published it is a GPU's, on hundreds of images. The batch here is {batch(efficiency) or 0}, so that the gradients, "
        f"which have the size of the weights, weigh more: {_gradients(mae)} MiB of MAE's{_of(mae_call)}.",
        *remarks,
        here(efficiency),
    )
    title = "Training: published and measured ratios"
    return PaperTable("training", title, columns, tuple(rows), notes, sources(four, two, parts, taken))


def _gradients(row: Count | None) -> str:
    """MiB of the fp32 gradients of all weights."""
    return "no" if row is None else f"{4 * row.parameters / 2**20:,.0f}"


def _of(call: Call | None) -> str:
    taken = memory(call)
    return "" if taken is None else f" {taken / 2**20:,.0f}"


def _attention(design: str) -> float:
    """Score pairs of MAE's decoder over the design's; a class token is one more patch."""
    pairs = []
    for name in (MAE, design):
        architecture, blocks, *flags = name.split("-")
        patches, predicted, visible = tokens(name)
        read = (1 + patches) ** 2 if architecture == "mae" else predicted * (1 + visible)
        pairs.append(int(blocks) * (read + (predicted**2 if "self" in flags else 0)))
    return pairs[0] / pairs[1]


def _computation(efficiency: Efficiency, published: Theirs) -> PaperTable:
    weights, encoder, decoder = (published[name] for name in ("parameters", "encoder-forward", "decoder-forward"))
    rows = []
    for model, px in (("vit-s", 224), ("vit-b", 224), ("vit-b", 448), ("vit-l", 224), ("vit-h", 224)):
        mae = count(efficiency, MAE, model, image_size=px)
        for design in (MAE, CROSS, THIRD):
            key, row = f"{model}/{design}", count(efficiency, design, model, image_size=px)
            theirs, ours = decoder.get(f"{key} {px}"), gflop(row, "decoder")
            rows.append(
                {
                    "model": f"{MODELS[model]}, {px} px",
                    "design": NAMES[design],
                    "parameters": None if row is None else row.parameters / 1e6,
                    "parameters_run": weights.get(key) if px == 224 else None,
                    "encoder": gflop(row, "encoder"),
                    "encoder_run": encoder.get(f"{model} {px}"),
                    "decoder": ours,
                    "decoder_run": theirs,
                    "over_run": over(ours, theirs),
                    "counters": agreement(row),
                    "decoder_ratio": counted_ratio(mae, row, "decoder"),
                    "whole_ratio": None if mae is None or row is None else mae.flops / row.flops,
                    "training_ratio": counted_ratio(mae, row),
                }
            )
    columns = (
        Column("model", "encoder"),
        Column("design", "design"),
        Column("parameters", "M weights", number(5)),
        Column("parameters_run", "with tables [run]", as_printed),
        Column("encoder", "encoder GFLOP", number(4)),
        Column("encoder_run", "their code [run]", as_printed),
        Column("decoder", "decoder GFLOP", number(4)),
        Column("decoder_run", "their code [run]", as_printed),
        Column("over_run", "ours / their code", ratio),
        Column("counters", "counters that agree exactly"),
        Column("decoder_ratio", "MAE / this, decoder", show_ratio),
        Column("whole_ratio", "MAE / this, whole", show_ratio),
        Column("training_ratio", "MAE / this, training", show_ratio),
    )
    notes = (
        "Forward pass of one image, 75 % masked, on the meta device; 2 FLOPs per multiply-add, matrix products and convolutions "
        "with attention. Our weights leave out the fixed position tables. Counters: closed form, FlopCounterMode, fvcore.",
        "The bigger the encoder, the less the decoder matters. CrossMAE's default predicts all that is masked with 12 blocks and "
        "costs what MAE's 8 do; what saves is predicting a third of it.",
    )
    title = "Computation at the published sizes"
    return PaperTable("computation", title, columns, tuple(rows), notes, sources(weights, encoder, decoder), names=2)


def _designs(efficiency: Efficiency, published: Theirs) -> PaperTable:
    accuracy, decoder = published["accuracy"], published["decoder-forward"]
    mae = count(efficiency, MAE)
    rows = []
    for design in NAMES:
        row = count(efficiency, design)
        rows.append(
            {
                "design": NAMES[design],
                "decoder": gflop(row, "decoder"),
                "decoder_run": decoder.get(f"vit-b/{design} 224"),
                "decoder_ratio": counted_ratio(mae, row, "decoder"),
                "whole_ratio": None if mae is None or row is None else mae.flops / row.flops,
                "training_ratio": counted_ratio(mae, row),
                "accuracy": accuracy.get(f"vit-b/{design}"),
            }
        )
    columns = (
        Column("design", "design"),
        Column("decoder", "decoder GFLOP", number(4)),
        Column("decoder_run", "their code [run]", as_printed),
        Column("decoder_ratio", "MAE / this, decoder", show_ratio),
        Column("whole_ratio", "MAE / this, whole", show_ratio),
        Column("training_ratio", "MAE / this, training", show_ratio),
        Column("accuracy", "fine-tuned % [note]", as_printed),
    )
    notes = (
        "ViT-B/16 at 224 px, mask ratio 0.75. The published accuracies lie within 0.4 points of one another; all are of one run.",
    )
    title = "What each option costs, beside the published accuracy"
    return PaperTable("designs", title, columns, tuple(rows), notes, sources(decoder, accuracy))


def _equal(efficiency: Efficiency) -> PaperTable:
    """Every CrossMAE beside the MAE of its depth and the MAE of its cost: else depth and attention are confounded."""
    maes: dict[int, Count] = {depth: row for depth in DEPTHS if (row := count(efficiency, f"mae-{depth}")) is not None}
    rows: list[dict[str, Any]] = []
    for design in NAMES:
        row = count(efficiency, design)
        if design.startswith("mae") or row is None or not maes:
            continue
        depth = int(design.split("-")[1])
        cost = {blocks: abs(mae.training_flops - row.training_flops) for blocks, mae in maes.items()}
        nearest = min(cost, key=lambda blocks: cost[blocks])
        rows.append(
            {
                "design": NAMES[design],
                "training": row.training_flops / 1e9,
                "equal_depth": counted_ratio(maes.get(depth), row),
                "equal_depth_decoder": counted_ratio(maes.get(depth), row, "decoder"),
                "blocks": nearest,
                "equal_flops": counted_ratio(maes[nearest], row),
            }
        )
    columns = (
        Column("design", "design"),
        Column("training", "GFLOP of a training step", number(4)),
        Column("equal_depth_decoder", "MAE of equal depth / this, decoder", show_ratio),
        Column("equal_depth", "MAE of equal depth / this, training", show_ratio),
        Column("blocks", "MAE of equal FLOPs: blocks", whole),
        Column("equal_flops", "it / this, training", show_ratio),
    )
    notes = (
        f"ViT-B/16 at 224 px, one image. MAE decoders of {DEPTHS[0]} to {DEPTHS[-1]} blocks are counted; a dash: none of the depth.",
    )
    return PaperTable("equal", "MAE at equal depth and at equal FLOPs", columns, tuple(rows), notes)


def _sweep(efficiency: Efficiency) -> PaperTable:
    settings: list[tuple[str, dict[str, int]]] = [(f"mask ratio {mask / 100:g}", {"mask": mask}) for mask in MASKS]
    settings += [(f"decoder width {width}", {"width": width}) for width in WIDTHS]
    rows = []
    for name, changed in settings:
        mae = count(efficiency, MAE, **changed)
        row: dict[str, Any] = {"setting": name}
        for stem, design in (("all", CROSS), ("third", THIRD)):
            other = count(efficiency, design, **changed)
            row[f"{stem}_decoder"] = counted_ratio(mae, other, "decoder")
            row[f"{stem}_training"] = counted_ratio(mae, other)
        rows.append(row)
    columns = (
        Column("setting", "setting"),
        Column("all_decoder", "all masked predicted: decoder", show_ratio),
        Column("all_training", "training", show_ratio),
        Column("third_decoder", "γ 0.25: decoder", show_ratio),
        Column("third_training", "training", show_ratio),
    )
    notes = (
        "FLOPs of MAE with 8 blocks over CrossMAE with 12 and feature maps; ViT-B/16 at 224 px, heads 32 wide. The other one of "
        "mask ratio and decoder width is 0.75 and 512.",
    )
    return PaperTable("sweep", "Ratios over mask ratio and decoder width", columns, tuple(rows), notes)
