"""The tables of CAT-Seg: claims, modules, aggregators, networks, class attention, designs, pictures and steps."""

from __future__ import annotations

from typing import Any

from bench.report.paper.layout import Column, PaperTable, as_printed, number, ratio
from bench.report.paper.openvocab.claims import claims
from bench.report.paper.openvocab.quantities import (
    AT,
    BASE,
    CLASSES,
    COUNTED_AT,
    DESIGNS,
    LENGTHS,
    MODELS,
    MODES,
    PICTURE,
    PIECES,
    SMALL_STEP,
    TIMED_AT,
    TOWERS,
    aggregator,
    attention,
    design,
    gflop,
    here,
    picture,
    picture_as_published,
    step,
    tower,
)
from bench.report.paper.quantities import Theirs, latency, memory, over, quotient, sources
from bench.report.paper.ratios import agreement, apart, show_ratio
from bench.store.efficiency import Call, Efficiency

FLOPS = "2 FLOPs per multiply-add; matrix products, convolutions and attention; counted on the meta device."


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them."""
    return [
        claims(efficiency, published),
        _modules(efficiency, published),
        _aggregators(efficiency, published),
        _networks(efficiency, published),
        _attention(efficiency),
        _designs(efficiency),
        _whole(efficiency),
    ]


def _modules(efficiency: Efficiency, published: Theirs) -> PaperTable:
    towers, weights = published["towers"], published["tower-parameters"]
    pieces = published["piece-parameters"]
    rows: list[dict[str, Any]] = []
    for (label, mode), name in TOWERS.items():
        for length in LENGTHS if mode == "text" else LENGTHS[:1]:
            row, key = tower(efficiency, label, mode, length), f"{label} {mode}"
            rows.append(
                {
                    "module": f"{name} of {length} tokens" if mode == "text" else name,
                    "parameters": None if row is None else row.parameters / 1e6,
                    "parameters_run": weights.get(key),
                    "gflop": gflop(row),
                    "run": towers.get(key) if length == LENGTHS[0] else None,
                    "counters": agreement(row),
                }
            )
    for version in ("2023", "2024"):
        for part, name in PIECES.items():
            row, whole = aggregator(efficiency, version, 150, mode=part), aggregator(efficiency, version, 150)
            share = over(gflop(row), gflop(whole))
            rows.append(
                {
                    "module": f"aggregator {version}: {name}",
                    "parameters": None if row is None else row.parameters / 1e6,
                    "parameters_run": pieces.get(f"{version} {part}"),
                    "gflop": gflop(row),
                    "share": None if share is None else 100 * share,
                    "counters": agreement(row),
                }
            )
    columns = (
        Column("module", "module"),
        Column("parameters", "M parameters", number(4)),
        Column("parameters_run", "[run]", as_printed),
        Column("gflop", "GFLOP", number(4)),
        Column("run", "[run]", as_printed),
        Column("share", "% of the aggregator", number(3)),
        Column("counters", "counters that agree exactly"),
    )
    notes = (
        f"One crop, forward; aggregators on ViT-L/14 with 150 classes, not pooled. {FLOPS}",
        "The dense image towers cost 1 to 3 % less than published: in the last block, which passes values on, the published code makes "
        "queries and keys too and projects all three. Texts need no filling up to 77 tokens: behind the last one no token matters.",
    )
    return PaperTable("modules", "Parameters and computation of every module", columns, tuple(rows), notes,
                      sources(weights, pieces, towers))  # fmt: skip


def _aggregators(efficiency: Efficiency, published: Theirs) -> PaperTable:
    theirs, weights = published["aggregator"], published["aggregator-parameters"]
    rows = []
    for label, name in DESIGNS.items():
        for classes, pooling in COUNTED_AT:
            ours = aggregator(efficiency, label, classes, pooling)
            again = aggregator(efficiency, label, classes, pooling, "published")
            if ours is None and again is None:
                continue
            key = f"{label} {classes} {pooling}"
            rows.append(
                {
                    "design": name,
                    "classes": classes,
                    "pooling": pooling,
                    "parameters": None if ours is None else ours.parameters / 1e6,
                    "parameters_run": weights.get(label),
                    "gflop": gflop(ours),
                    "published": gflop(again),
                    "run": theirs.get(key),
                    "agree": over(gflop(again), theirs.get(key)),
                    "saving": over(gflop(again), gflop(ours)),
                    "macs": None if ours is None else ours.flops / 2e9,
                    "counters": agreement(ours),
                }
            )
    columns = (
        Column("design", "aggregator"),
        Column("classes", "T"),
        Column("pooling", "pooling"),
        Column("parameters", "M parameters", number(4)),
        Column("parameters_run", "[run]", as_printed),
        Column("gflop", "GFLOP", number(4)),
        Column("published", "as published, GFLOP", number(5)),
        Column("run", "[run]", as_printed),
        Column("agree", "as published / [run]", ratio),
        Column("saving", "as published / ours", show_ratio),
        Column("macs", "GMAC", number(4)),
        Column("counters", "counters that agree exactly"),
    )
    notes = (
        f"One crop of 24 x 24 places, features of ViT-L/14, forward. {FLOPS}",
        "As published: the same weights, but guidance is concatenated to every class and every place and projected with it each "
        "time, and a feature volume is made and convolved whole. Ours projects guidance once and adds it, which gives the same "
        "values. Above 256 classes the padded version computes 256 and gives the others up.",
    )
    title = "Computation of the aggregator by design and number of classes"
    return PaperTable("aggregators", title, columns, tuple(rows), notes, sources(weights, theirs), names=3)


def _networks(efficiency: Efficiency, published: Theirs) -> PaperTable:
    learnable, trainable, whole = (published[name] for name in ("learnable", "trainable", "parameters"))
    macs, counted = published["picture-macs"], published["picture-macs-counted"]
    rows = []
    for label, name in MODELS.items():
        one, everything = step(efficiency, label), step(efficiency, label, "whole")
        five, single = picture(efficiency, label), picture(efficiency, label, 1)
        again = picture_as_published(efficiency, label)
        rows.append(
            {
                "network": name,
                "trainable": None if one is None else one.parameters / 1e6,
                "trainable_run": trainable.get(label),
                "learnable": learnable.get(label),
                "parameters": None if everything is None else everything.parameters / 1e6,
                "parameters_run": whole.get(label),
                "forward": gflop(one),
                "training": None if one is None else one.training_flops / 1e9,
                "five": gflop(five),
                "five_macs": None if five is None else five.flops / 2e9,
                "published_macs": None if again is None else again / 2e9,
                "macs_run": counted.get(label),
                "macs_note": macs["CAT-Seg"] if label == "2024-l" else None,
                "windows": over(gflop(five), gflop(single)),
                "counters": agreement(one),
            }
        )
    columns = (
        Column("network", "network and what is trained"),
        Column("trainable", "trainable, M", number(4)),
        Column("trainable_run", "[run]", as_printed),
        Column("learnable", "[note]", as_printed),
        Column("parameters", "all, M", number(4)),
        Column("parameters_run", "[run]", as_printed),
        Column("forward", "step, forward GFLOP", number(4)),
        Column("training", "with backward", number(4)),
        Column("five", "five windows, GFLOP", number(4)),
        Column("five_macs", "GMAC", number(4)),
        Column("published_macs", "as published, GMAC", number(4)),
        Column("macs_run", "[run]", as_printed),
        Column("macs_note", '"GFLOPs" [note]', as_printed),
        Column("windows", "five windows / one", show_ratio),
        Column("counters", "counters that agree exactly"),
    )
    notes = (
        f"A step: one crop of 384 px, 171 classes, texts of 77 tokens, class layers pooled 2 x 2. A picture: 150 classes, texts read "
        f"before, class layers not pooled, four windows and the whole. {FLOPS} Backward as executed: what is frozen has none.",
        'The published 2,121 "GFLOPs" are multiply-adds of five windows: between ours as published without padding and with it.',
        *_text_note(efficiency),
    )
    title = "Whole networks: parameters, training steps, pictures"
    return PaperTable("networks", title, columns, tuple(rows), notes,
                      sources(trainable, learnable, whole, counted, macs))  # fmt: skip


def _text_note(efficiency: Efficiency) -> list[str]:
    said = []
    for size in ("l", "b"):
        graph, cached = (step(efficiency, f"2024-{size}{suffix}") for suffix in ("", "-cached"))
        if graph is not None and cached is not None:
            said.append(
                f"ViT-{size.upper()}: a step with the text tower in the graph is {graph.flops / cached.flops:.2f} times one with "
                f"cached texts by forward FLOPs, {graph.training_flops / cached.training_flops:.2f} times with backward."
            )
    return said


# ------------------------------------------------------------------------------------------------------------------- times


def _attention(efficiency: Efficiency) -> PaperTable:
    rows = []
    for width, numbers in CLASSES.items():
        for classes in numbers:
            row: dict[str, Any] = {"width": width, "classes": classes}
            for mode in ("attention", "block"):
                linear, full = (attention(efficiency, kind, mode, classes, width) for kind in ("linear", "full"))
                row |= {
                    f"{mode}_linear": latency(linear),
                    f"{mode}_full": latency(full),
                    f"{mode}_ratio": quotient(full, linear),
                    f"{mode}_flops": None if full is None or linear is None else full.flops / linear.flops,
                }
            rows.append(row)
    columns = [Column("width", "width"), Column("classes", "T")]
    for mode, name in (("attention", "attention alone"), ("block", "class block")):
        columns += [
            Column(f"{mode}_linear", f"{name}, linear, ms", number(3)),
            Column(f"{mode}_full", "full, ms", number(3)),
            Column(f"{mode}_ratio", "full / linear, here", show_ratio),
            Column(f"{mode}_flops", "by FLOPs", show_ratio),
        ]
    notes = (
        "144 places, as of a 24 x 24 grid that is pooled 2 x 2, four heads. By FLOPs the two are alike where there are about as "
        "many classes as a head has channels: 32 at width 128, 8 at width 32.",
        "Where attention alone is measured below its FLOPs' ratio: linear attention is mostly what FLOPs leave out, the features elu(x) + 1 and two "
        "products that are too thin for the processor to run fast. Around it in the block are 11 products as wide as a token, "
        "the same for both.",
        here(efficiency, "forward, one crop"),
    )
    return PaperTable("class-attention", "Class attention: linear against full, by number of classes", tuple(columns),
                      tuple(rows), notes, names=2)  # fmt: skip


def _designs(efficiency: Efficiency) -> PaperTable:
    rows, said = [], []
    for classes in TIMED_AT:
        base = design(efficiency, BASE, classes)
        for label, name in DESIGNS.items():
            for mode, way in MODES.items():
                call = design(efficiency, label, classes, mode)
                if call is None:
                    continue
                taken, title = memory(call), f"{name}, {way}" if way else name
                rows.append(
                    {
                        "classes": classes,
                        "design": title,
                        "ms": latency(call),
                        "here": quotient(call, base),
                        "flops": None if base is None else call.flops / base.flops,
                        "memory": None if taken is None else taken / 2**20,
                        "deviation": call.deviation,
                    }
                )
                if classes == AT:
                    said += _explained(title, call, base)
    columns = (
        Column("classes", "T"),
        Column("design", "aggregator"),
        Column("ms", "ms here", number(3)),
        Column("here", "over not padded, here", show_ratio),
        Column("flops", "by FLOPs", show_ratio),
        Column("memory", "MiB here", number(3)),
        Column("deviation", "largest difference", number(2)),
    )
    notes = (
        "The aggregator of 2024 on features of ViT-L/14 at the published width and 24 x 24 places, not pooled, random weights. Those that "
        "do not say that they are padded are not. The largest difference is that of the logits from the same weights "
        "computed whole. MiB: the most bytes of tensors that a call holds at once, weights and inputs not.",
        *said,
        *_skipped(efficiency, "grid"),
        here(efficiency, "forward, one crop"),
    )
    return PaperTable("designs", "Times of the aggregator by design", columns, tuple(rows), notes, names=2)


def _explained(title: str, call: Call, base: Call | None) -> list[str]:
    """Why a measured ratio is not the one by FLOPs."""
    found = apart(call, base)
    if found is None or call is base:
        return []
    why = (
        "norms, softmax, windows and copies, which are no FLOPs, weigh more in it, or its larger tensors leave the caches"
        if found.side == "above"
        else "its products are larger and run faster, or it is spared work that is no FLOPs"
    )
    return [f"{title}: {found.told('it', 'the one that is not padded')}: {why}."]


def _whole(efficiency: Efficiency) -> PaperTable:
    pairs = (
        ("a picture: five windows / one", ("sliding", "single"), "picture", PICTURE),
        ("a step: text tower in the graph / cached", ("step-graph", "step-cached"), "step", SMALL_STEP),
    )
    rows = []
    for name, labels, mode, sizes in pairs:
        first, second = (efficiency.call(label, sizes, mode) for label in labels)
        flops = over(None if first is None else first.flops, None if second is None else second.flops)
        if mode == "step":
            one, two = (efficiency.count(label, sizes, mode) for label in labels)
            flops = None if one is None or two is None else one.training_flops / two.training_flops
        rows.append(
            {
                "what": name,
                "first": latency(first),
                "second": latency(second),
                "here": quotient(first, second),
                "flops": flops,
            }
        )
    columns = (
        Column("what", "what"),
        Column("first", "first, ms", number(3)),
        Column("second", "second, ms", number(3)),
        Column("here", "ratio here", show_ratio),
        Column("flops", "by FLOPs", show_ratio),
    )
    notes = (
        "A picture of 20 classes with small towers (crops of 128 px, preset small), to probabilities of 256 x 256 pixels. A step of one "
        "crop and 8 classes with CLIP's small towers (ViT-S/16 at 192 px, width 64), texts of 77 tokens, queries and values of the "
        "towers trained, forward and backward; its ratio by FLOPs is of what is executed. Weights are random.",
        *_skipped(efficiency, "pixels", "length"),
        here(efficiency, "one picture"),
    )
    return PaperTable(
        "pictures-and-steps", "Pictures in windows, and steps with cached text", columns, tuple(rows), notes
    )


def _skipped(efficiency: Efficiency, *keys: str) -> list[str]:
    """A sentence on each call that was not timed, of the groups whose sizes have one of these keys."""
    return [
        f"Not timed: {DESIGNS.get(call.label, call.label)}, {call.mode}, {group.sizes['classes']} classes: {call.skipped}."
        for group in efficiency.groups
        for call in group.calls
        if call.skipped and any(key in group.sizes for key in keys)
    ]
