"""Claimed, counted and measured ratios side by side, with what explains that they differ."""

from __future__ import annotations

from typing import Any

from bench.report.paper.hydrology.quantities import (
    ALL_PATCHES,
    CROSS,
    DAYS,
    DECODER_LAYERS,
    ENCODER_LAYERS,
    HEADS,
    MAE,
    NAMES,
    NOTES,
    PATCHES,
    SELF,
    THIRD,
    WIDTH,
    attention_flops,
    count,
    group,
    here,
    pairs,
    rates,
    shape,
    timed,
    tokens,
)
from bench.report.paper.layout import Column, PaperTable, as_printed, number, whole
from bench.report.paper.quantities import Theirs, quotient, sources
from bench.report.paper.ratios import (
    apart,
    counted_ratio,
    fewer,
    gflop,
    show_ratio,
    shown,
)
from bench.store.efficiency import Efficiency

APART = 15
"""Percentage points by which the shares of attention must differ, or two speeds cannot be told from two times."""


def claims(efficiency: Efficiency, published: Theirs) -> PaperTable:
    """One row a claim, at the notes' 90 days."""
    claimed, saving = published["claims"], published["claimed-saving"]
    standard, standard_ratio = published["standard-mae"], published["standard-mae-ratio"]
    mae, cross = count(efficiency, MAE), count(efficiency, CROSS)
    everything = count(efficiency, MAE, patches=ALL_PATCHES, hidden=ALL_PATCHES - 1)
    attention = pairs(MAE) / pairs(CROSS)
    decoder, step = counted_ratio(mae, cross, "decoder"), counted_ratio(mae, cross)
    measured: dict[str, Any] = {
        f"{mode}_measured": quotient(timed(efficiency, mode, NOTES, MAE), timed(efficiency, mode, NOTES, CROSS))
        for mode in ("decoder", "step")
    }
    known = {"attention": attention, "decoder": decoder, "step": step, **measured}
    strawman = counted_ratio(everything, cross, "decoder")
    rows: list[dict[str, Any]] = [
        {"claim": "attention, a sample", "claimed": claimed["sample"], **known},
        {"claim": "attention, a batch of 8", "claimed": claimed["batch"], **known},
        {
            "claim": "training (an expectation)",
            "claimed": f"{claimed['training, at least']:g} to {claimed['training, at most']:g}",
            **known,
        },
        {
            "claim": "computation saved, %",
            "claimed": saving["saving"],
            **{name: _saved(value) for name, value in known.items()},
        },
        {
            "claim": f'"standard MAE" over {ALL_PATCHES} patches a day [inferred]',
            "claimed": standard_ratio["ratio"],
            "attention": (NOTES * ALL_PATCHES) ** 2 / pairs(CROSS),
            "decoder": strawman,
        },
    ]
    columns = (
        Column("claim", "claim"),
        Column("claimed", "claimed [note]", lambda value: value if isinstance(value, str) else as_printed(value)),
        Column("attention", "attention only", show_ratio),
        Column("decoder", "decoder, FLOPs", show_ratio),
        Column("step", "step, FLOPs", show_ratio),
        Column("decoder_measured", "decoder here", show_ratio),
        Column("step_measured", "step here", show_ratio),
    )
    all_tokens, queries, keys = tokens(CROSS)
    gflops = gflop(everything, "decoder")
    notes = [
        f"MAE over CrossMAE at the notes' shapes: {NOTES} days of {PATCHES} patches make {all_tokens:,} tokens; {queries:,} are "
        f"masked and predicted, {keys:,} visible; decoder {WIDTH} wide with {DECODER_LAYERS} blocks, encoder {2 * WIDTH} with "
        f"{ENCODER_LAYERS}, {HEADS} heads. Step: encoder and decoder, forward and backward.",
        f"A claim counts score pairs: {all_tokens:,}² over {queries:,} x {keys:,} is {attention:.2f}. For the batch the notes "
        "square and multiply the tokens of all 8 samples together, as if attention spanned them; both sides are 8 times too "
        "large, and the ratio is that of exactly 75 % masked, 1 / (0.75 x 0.25) = 5.33, printed as 5.4.",
    ]
    if decoder is not None and step is not None:
        notes.append(
            f"Linear layers cost both designs the same a token, so the decoder is {decoder:.2f} times as cheap, not "
            f"{attention:.2f}; both have the same encoder, so the step is {step:.2f} times as cheap and saves "
            f"{fewer(step):.0f} % of the computation, not {saving['saving']:g} %."
        )
    if gflops is not None and strawman is not None:
        notes.append(
            f'The notes\' "standard MAE" attends over all {ALL_PATCHES} patches of a day, most of them sea, and reads the mean '
            f"of the encoder's tokens (it does not run as published: {standard['forward']:,.0f} GFLOP inferred, {gflops:,.0f} "
            f"counted for our MAE decoder over as many tokens). No fair baseline: its {strawman:.0f} times is left out elsewhere."
        )
    notes += [*_explained(efficiency, "decoder", (NOTES,)), *_explained(efficiency, "step", (NOTES,)), here(efficiency)]
    title = "Claimed and real cost"
    found = sources(claimed, saving, standard, standard_ratio)
    return PaperTable("claims", title, columns, tuple(rows), tuple(notes), found)


def _saved(value: Any) -> Any:
    """The share that a ratio saves, with its interval."""
    if value is None or isinstance(value, float):
        return None if value is None else fewer(value)
    ends = value.interval and type(value.interval)(*(fewer(end) for end in value.interval))
    return value._replace(value=fewer(value.value), interval=ends)


def _explained(
    efficiency: Efficiency, mode: str, days: tuple[int, ...], labels: tuple[str, ...] = (CROSS,)
) -> list[str]:
    """A sentence for every measured ratio that FLOPs do not give, with what the times say of the reason."""
    said = []
    for count_of_days in days:
        for label in labels:
            found = group(efficiency, mode, count_of_days)
            mae, other = (timed(efficiency, mode, count_of_days, name) for name in (MAE, label))
            ratio = apart(mae, other)
            if found is None or mae is None or other is None or ratio is None:
                continue
            plural = "" if count_of_days == 1 else "s"
            sentence = (
                f"{mode.capitalize()}, {count_of_days} day{plural}, {NAMES[label]}: {shown(ratio.measured)} measured, {ratio.side} "
                f"the {ratio.flops:.2f} that FLOPs say, as MAE came to {ratio.speeds[0]:.0f} GFLOP/s and the other to "
                f"{ratio.speeds[1]:.0f}"
            )
            if mode == "decoder" and ratio.side == "above":
                attention = [attention_flops(call.label, found) for call in (mae, other)]
                shares = [100 * part / call.flops for part, call in zip(attention, (mae, other), strict=True)]
                executed = (mae.flops + attention[0] / 6) / (other.flops + attention[1] / 6)
                sentence += (
                    f". With the scores that fused attention computes again in its backward pass it is {executed:.2f}; "
                    f"attention is {shares[0]:.0f} % of the one's FLOPs and {shares[1]:.0f} % of the other's"
                )
                rate = rates(mae, other, found) if shares[0] - shares[1] > APART else None
                if rate is not None:
                    sentence += (
                        f": {rate[0]:.0f} GFLOP/s in linear layers and {rate[1]:.0f} in attention, whose heads are "
                        f"{found.sizes['width'] // HEADS} wide, would give both times"
                    )
            elif ratio.side == "below":
                sentence += ": what FLOPs leave out (norms, GELU, copies, calls) weighs more in the smaller one"
            sentence += "."
            said.append(sentence)
    return said


def ratios(efficiency: Efficiency, published: Theirs) -> PaperTable:
    """Every length and design: claimed, attention only, decoder, step, measured."""
    claimed, runs = published["claims"], published["decoder-measured"]
    decoders, steps = published["decoder-ratio"], published["step-ratio"]
    theirs = {CROSS: "cross", SELF: "cross-self", THIRD: "third"}
    rows: list[dict[str, Any]] = []
    for label in (CROSS, SELF, THIRD):
        for days in DAYS:
            mae, row = (count(efficiency, name, days=days) for name in (MAE, label))
            notes_claim = label == CROSS and days == NOTES
            made: dict[str, Any] = {
                "design": NAMES[label],
                "days": days,
                **shape(label, days),
                "claimed": claimed["sample"] if notes_claim else None,
                "attention": pairs(MAE, days) / pairs(label, days),
                "decoder": counted_ratio(mae, row, "decoder"),
                "decoder_inferred": decoders.get(f"{theirs[label]} {days}"),
                "step": counted_ratio(mae, row),
                "step_inferred": steps.get(f"{theirs[label]} {days}"),
                "decoder_run": runs.get(str(days)) if label == CROSS else None,
            }
            for mode in ("decoder", "step"):
                found = group(efficiency, mode, days)
                made[f"{mode}_here"] = quotient(*(timed(efficiency, mode, days, name) for name in (MAE, label)))
                if found is not None and made[f"{mode}_here"] is not None:
                    made[f"{mode}_batch"] = found.sizes["batch"]
                    made[f"{mode}_depth"] = found.sizes["decoder_layers"]
                    made[f"{mode}_load"] = found.load
            rows.append(made)
    columns = (
        Column("design", "MAE over"),
        Column("days", "days"),
        *(Column(name, name) for name in ("L", "M", "V", "D", "E")),
        Column("gamma", "γ", number(2)),
        Column("claimed", "claimed [note]", as_printed),
        Column("attention", "attention only", show_ratio),
        Column("decoder", "decoder, FLOPs", show_ratio),
        Column("decoder_inferred", "[inferred]", as_printed),
        Column("step", "step, FLOPs", show_ratio),
        Column("step_inferred", "[inferred]", as_printed),
        Column("decoder_run", "decoder, theirs [run]", as_printed),
        Column("decoder_here", "decoder here", show_ratio),
        Column("decoder_batch", "B", whole),
        Column("decoder_depth", "blocks", whole),
        Column("decoder_load", "load", number(2)),
        Column("step_here", "step here", show_ratio),
        Column("step_batch", "B", whole),
        Column("step_load", "load", number(2)),
    )
    notes = (
        f"How many times as much MAE costs. L tokens of a sample and modality, M predicted, V visible; D width of the decoder "
        f"({DECODER_LAYERS} blocks), E of the encoder ({ENCODER_LAYERS} blocks); γ share of the tokens that is predicted; B "
        "samples of the timed call, blocks of the timed decoder; load average when the group began. Decoder FLOPs: forward; "
        "step: forward and backward, encoder included. The encoder also sees one token that is never masked.",
        "CrossMAE with self-attention among the masked tokens is not timed at 90 days on a CPU (preset tiny): by FLOPs it takes "
        "nearly as long as MAE.",
        *_explained(efficiency, "decoder", (1, 2, 12, 30, 90), (CROSS, SELF, THIRD)),
        *_explained(efficiency, "step", (1, 2, 12, 30, 90), (CROSS, SELF, THIRD)),
        *_skipped(efficiency),
        here(efficiency),
    )
    title = "Ratios by the length of the window"
    found_in = sources(claimed, decoders, steps, runs)
    return PaperTable("ratios", title, columns, tuple(rows), notes, found_in, names=2)


def _skipped(efficiency: Efficiency) -> list[str]:
    """A sentence on each call that was not timed."""
    return [
        f"Not timed: {NAMES[call.label]}, {call.mode}, {made.sizes['days']} days: {call.skipped}."
        for made in efficiency.groups
        for call in made.calls
        if call.skipped
    ]
