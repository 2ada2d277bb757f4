"""Every published claim beside what was counted and measured here, or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report.paper.claims_table import Verdict, claims_table, counted, untested
from bench.report.paper.layout import PaperTable
from bench.report.paper.openvocab.quantities import (
    AT,
    BASE,
    CLASSES,
    PICTURE,
    SMALL_STEP,
    aggregator,
    attention,
    design,
    gflop,
    here,
    over,
    picture,
    picture_as_published,
    step,
    tower,
)
from bench.report.paper.published import Published
from bench.report.paper.quantities import Theirs, quotient
from bench.report.paper.ratios import shown
from bench.stats import Estimate
from bench.store.efficiency import Count, Efficiency

BENCHMARK = (
    "the data and CLIP's weights are not part of Isochron and the training is days on GPUs; the comparisons train on rendered "
    "scenes, from which nothing follows for this benchmark; folders in the same layouts are scored by the same definition"
)
OTHERS = "another architecture, which is not built here"
MODULES = {"layers": ("spatial", "classes")}
"""Part that is published as one -> the pieces that it is counted as."""


def claims(efficiency: Efficiency, published: Theirs) -> PaperTable:
    """One row for every entry of the published numbers."""
    notes = (
        f"Ratios of designs are over the aggregator of 2024 without class padding, at {AT} classes.",
        here(efficiency, "one crop"),
    )
    return claims_table("Claims, and what was tested here", published, RULES, efficiency, notes)


def _never(reason: str) -> Verdict:
    return lambda efficiency, entry: untested(reason)


def _quality(comparison: str) -> Verdict:
    return _never(
        f"quality is no matter of counting and timing, and data and weights are not part of Isochron; {comparison} trains such arms "
        "on data of the harness's own for equal time"
    )


Value = Callable[[Efficiency, str], float | None]
"""A number of ours by the key of a published one."""


def _by_key(value: Value, what: str = "counted") -> Verdict:
    """Compares numbers key by key."""
    return lambda efficiency, entry: counted(
        {key: (value(efficiency, key), theirs) for key, theirs in entry.values.items()}, what
    )


def _millions(row: Count | None) -> float | None:
    return None if row is None else row.parameters / 1e6


def _tower_parameters(efficiency: Efficiency, key: str) -> float | None:
    """A whole CLIP has both towers, and the scale of its own loss."""
    label, _, mode = key.partition(" ")
    if mode:
        return _millions(tower(efficiency, label, mode))
    image, text = (_millions(tower(efficiency, label, part)) for part in ("image", "text"))
    return None if image is None or text is None else image + text


def _piece_parameters(efficiency: Efficiency, key: str) -> float | None:
    version, _, part = key.partition(" ")
    found = [_millions(aggregator(efficiency, version, 150, mode=piece)) for piece in MODULES.get(part, (part,))]
    return sum(each for each in found if each is not None) if None not in found else None


def _tower_gflop(efficiency: Efficiency, key: str) -> float | None:
    label, _, mode = key.partition(" ")
    return gflop(tower(efficiency, label, mode))


def _towers(efficiency: Efficiency, entry: Published) -> str:
    said, short = _by_key(_tower_gflop)(efficiency, entry), gflop(tower(efficiency, "clip-l", "text", 16))
    if short is None:
        return said
    return f"{said}; ours computes nothing that the dense last block throws away; texts of 16 tokens need {short:.0f} GFLOP"


def _aggregator_gflop(efficiency: Efficiency, key: str) -> float | None:
    label, classes, pooling = key.split()
    return gflop(aggregator(efficiency, label, int(classes), int(pooling), "published"))


def _aggregators(efficiency: Efficiency, entry: Published) -> str:
    said, savings = _by_key(_aggregator_gflop)(efficiency, entry), []
    for key in entry.values:
        label, classes, pooling = key.split()
        one, two = (aggregator(efficiency, label, int(classes), int(pooling), mode) for mode in ("published", "full"))
        if one is not None and two is not None and label in ("2023", "2024"):
            savings.append(one.flops / two.flops)
    if not savings:
        return said
    return f"{said} executed as published; projecting guidance once needs {min(savings):.2f} to {max(savings):.2f} times less"


def _shares(efficiency: Efficiency, entry: Published) -> str:
    whole = gflop(aggregator(efficiency, "2023", 150))
    parts = {"decoder": ("decoder1", "decoder2"), **{part: (part,) for part in ("spatial", "classes", "embedding")}}
    if whole is None:
        return untested("it was not counted")
    said = []
    for part, theirs in entry.values.items():
        found = [gflop(aggregator(efficiency, "2023", 150, mode=piece)) or 0.0 for piece in parts[part]]
        said.append(f"{part} {100 * sum(found) / whole:.1f} % (theirs {theirs:g})")
    return f"counted: {', '.join(said)} of ours, whose guidance is projected once"


def _attention_share(efficiency: Efficiency, entry: Published) -> str:
    """Full attention less linear is the difference of their products, of which full's grow with the classes."""
    linear, full = (aggregator(efficiency, label, 150, mode="published") for label in ("2023", "2023-full-attention"))
    if linear is None or full is None:
        return untested("it was not counted")
    # Two layers, 576 places, width 128, heads of 32: summary, products with queries, and the sums that divide them.
    alone = {"linear": 2 * 576 * 150 * (4 * 128 * 32 + 2 * 128), "full": 2 * 576 * 150 * 4 * 128 * 150}
    rows = {"linear": linear, "full": full}
    return counted({kind: (100 * alone[kind] / rows[kind].flops, entry[kind]) for kind in alone})


def _class_cost(efficiency: Efficiency, key: str) -> float | None:
    """From 150 classes to 847."""
    few, many = (gflop(aggregator(efficiency, key, classes, mode="published")) for classes in (150, 847))
    return None if few is None or many is None else (many - few) / (847 - 150)


def _ratio(efficiency: Efficiency, first: str, second: str, classes: int, mode: str = "published") -> float | None:
    one, two = (gflop(aggregator(efficiency, label, classes, mode=mode)) for label in (first, second))
    return None if one is None or two is None else one / two


def _measured(ratio: Estimate | None, what: str) -> str:
    return "" if ratio is None else f"; measured: {what} {shown(ratio)}"


def _volume_cost(efficiency: Efficiency, entry: Published) -> str:
    said = counted({"FLOPs": (_ratio(efficiency, "2023-feature", "2023", 150), entry["FLOPs"])})
    ours = _ratio(efficiency, "2023-feature", "2023", 150, "full")
    if ours is not None:
        said += f"; {ours:.2f} where the volume is never made, with the same values"
    made, unmade = (over(efficiency, "unpadded-feature", mode=mode) for mode in ("published", "full"))
    return (
        f"{said}{_measured(made, f'feature volume over cost volume at {AT} classes')}{_measured(unmade, 'never made')}"
    )


def _guidance_cost(efficiency: Efficiency, entry: Published) -> str:
    whole = aggregator(efficiency, "2023", 150, mode="published")
    if whole is None:
        return untested("it was not counted")
    pairs: dict[str, tuple[float | None, float]] = {}
    for label, key in (("2023-no-appearance", "appearance FLOPs"), ("2023-no-text", "both FLOPs")):
        row = aggregator(efficiency, label, 150, mode="published")
        pairs[key] = None if row is None else 100 * (1 - row.flops / whole.flops), entry[key]
    bare = aggregator(efficiency, "2023-no-guidance", 150)
    pairs["all parameters"] = None if bare is None else 100 * (1 - bare.parameters / whole.parameters), entry["all parameters"]  # fmt: skip
    said = counted(pairs)
    return f"{said}{_measured(over(efficiency, 'unpadded-no-guidance'), 'without any guidance over with all')}"


def _padding(efficiency: Efficiency, entry: Published) -> str:
    said = counted({key: (_ratio(efficiency, "2024", BASE, int(key)), theirs) for key, theirs in entry.values.items()})
    again = quotient(design(efficiency, BASE, AT), design(efficiency, "2024", AT))
    folded = quotient(design(efficiency, "2024", AT, "folded"), design(efficiency, "2024", AT))
    return (
        f"{said}{_measured(again, f'not padded over padded to 256 at {AT} classes')}"
        f"{_measured(folded, 'fillers computed once over one by one')}"
    )


def _prompts(efficiency: Efficiency, entry: Published) -> str:
    rows = {"80 prompts": "2023", "one prompt": "2024"}
    said = counted(
        {key: (gflop(aggregator(efficiency, label, 150, mode="embedding")), entry[key]) for key, label in rows.items()}
    )
    return f"{said}{_measured(over(efficiency, 'unpadded-prompts-80'), 'aggregator with 80 prompts over one')}"


def _text_step(efficiency: Efficiency, entry: Published) -> str:
    text, cached = gflop(tower(efficiency, "clip-l", "text")), gflop(step(efficiency, "2024-l-cached"))
    ours, theirs = (
        aggregator(efficiency, "2024", 171, 2, mode) if cached is not None else None for mode in ("full", "published")
    )
    rest = cached
    if cached is not None and ours is not None and theirs is not None:
        rest = cached + (theirs.flops - ours.flops) / 1e9
    return f"{counted({'text': (text, entry['text']), 'rest': (rest, entry['rest'])})}, guidance projected as published"


def _text_speed(efficiency: Efficiency, entry: Published) -> str:
    graph, cached = (step(efficiency, label) for label in ("2024-l", "2024-l-cached"))
    if graph is None or cached is None:
        return untested("it was not counted")
    calls = (efficiency.call(label, SMALL_STEP, "step") for label in ("step-graph", "step-cached"))
    return (
        f"counted: {graph.flops / cached.flops:.2f} forward, {graph.training_flops / cached.training_flops:.2f} with "
        "backward; ours projects guidance once, so that the rest is less than theirs"
        f"{_measured(quotient(*calls), 'with small towers and 8 classes')}; what tuned text is worth: ovseg-text"
    )


def _windows(efficiency: Efficiency, entry: Published) -> str:
    five, one = (gflop(picture(efficiency, "2024-l", windows)) for windows in (5, 1))
    pairs = {"windows": (None if five is None or one is None else five / one, entry["windows"])}
    calls = (efficiency.call(label, PICTURE, "picture") for label in ("sliding", "single"))
    return f"{counted(pairs)}{_measured(quotient(*calls), 'five over one, small towers')}"


def _speed(efficiency: Efficiency, entry: Published) -> str:
    five, device = picture(efficiency, "2024-l"), efficiency.record.device
    said = "" if five is None else f"; ours needs {five.flops / 2e9:,.0f} GMAC a picture"
    return untested(
        f"the seconds are of an RTX 3090 and the others are not built here, here is {device.name}{said}; 0.54 s and 2,121 "
        "GMAC would be 3.9 TMAC/s"
    )


def _picture_macs(efficiency: Efficiency, entry: Published) -> str:
    found = [picture_as_published(efficiency, label) for label in ("2024-l-unpadded", "2024-l")]
    low, high = (None if each is None else each / 2e9 for each in found)
    if low is None or high is None:
        return untested("it was not counted")
    inside = low <= entry["CAT-Seg"] <= high
    return (
        f"counted: {low:,.0f} GMAC without class padding and {high:,.0f} with it, guidance projected as published: "
        f"{'theirs lies between' if inside else 'theirs does not lie between'}; they are multiply-adds, FLOPs are twice as many "
        f"({2 * low / 1e3:.2f} to {2 * high / 1e3:.2f} T)"
    )


def _picture_counted(efficiency: Efficiency, key: str) -> float | None:
    found = picture_as_published(efficiency, key)
    return None if found is None else found / 2e9


def _attention_time(efficiency: Efficiency, entry: Published) -> str:
    said = []
    for classes in CLASSES[128]:
        calls = (attention(efficiency, kind, "block", classes) for kind in ("full", "linear"))
        ratio = quotient(*calls)
        if ratio is not None:
            said.append(f"{shown(ratio)} at {classes}")
    if not said:
        return untested("class attention was not timed")
    theirs = ", ".join(f"{entry[f'full {t}'] / entry[f'linear {t}']:.2f} at {t}" for t in (24, 64))
    return f"measured: class block, full over linear: {', '.join(said)} classes (theirs, whole aggregator: {theirs})"


def _padded_time(efficiency: Efficiency, entry: Published) -> str:
    small = quotient(*(attention(efficiency, kind, "block", 256, 32) for kind in ("full", "linear")))
    whole = over(efficiency, "2024-full-attention", "2024")
    said = [
        f"{name} {shown(value)}"
        for name, value in (
            ("class block at width 32 and 256 classes", small),
            ("padded aggregator at width 128", whole),
        )
        if value is not None
    ]
    return f"measured: full over linear: {', '.join(said)}" if said else untested("it was not timed")


def _pooled(efficiency: Efficiency, entry: Published) -> str:
    return untested(
        "no output is compared here; the option test_pooling_size sets both modes apart or alike, and parity holds for both"
    )


def _early(efficiency: Efficiency, entry: Published) -> str:
    ratio = quotient(*(design(efficiency, BASE, classes) for classes in (64, AT)))
    said = (
        ""
        if ratio is None
        else f"; what dropping classes can save: 64 classes take {shown(ratio)} times as long as {AT}"
    )
    return untested(f"{OTHERS}{said}")


RULES: Mapping[str, Verdict] = {
    **dict.fromkeys(
        ("accuracy-2023", "accuracy-first", "accuracy-2024", "accuracy-mess", "accuracy-a150", "reproduction"),
        _never(BENCHMARK),
    ),
    **dict.fromkeys(("accuracy-others", "parallel-aggregation"), _never(OTHERS)),
    "accuracy-siglip": _never("SigLIP's towers are not built here"),
    "metric-versions": _never(
        "the checkpoint and the data are not part of Isochron; both definitions are printed, miou-gt and miou-union"
    ),
    "volume-accuracy": _quality("ovseg-volume"),
    "seen-unseen": _quality("ovseg-volume"),
    "parts-accuracy": _quality("ovseg-head (space, classes) and ovseg-guidance"),
    "decoder-accuracy": _quality("ovseg-head"),
    "frozen-accuracy": _never(BENCHMARK),
    "tuning-memory": _never("the memory is of a GPU with CLIP's weights, optimizer and a batch that is not given"),
    "toy-volume": _quality("ovseg-volume"),
    "speed": _speed,
    "picture-macs": _picture_macs,
    "picture-macs-counted": _by_key(_picture_counted),
    "early-rejection": _early,
    "learnable": _by_key(lambda efficiency, key: _millions(step(efficiency, key))),
    "trainable": _by_key(lambda efficiency, key: _millions(step(efficiency, key))),
    "parameters": _by_key(lambda efficiency, key: _millions(step(efficiency, key, "whole"))),
    "tower-parameters": _by_key(_tower_parameters),
    "aggregator-parameters": _by_key(lambda efficiency, key: _millions(aggregator(efficiency, key, 150))),
    "piece-parameters": _by_key(_piece_parameters),
    "towers": _towers,
    "aggregator": _aggregators,
    "shares": _shares,
    "attention-share": _attention_share,
    "class-cost": _by_key(_class_cost),
    "volume-cost": _volume_cost,
    "guidance-cost": _guidance_cost,
    "padding-cost": _padding,
    "prompts-cost": _prompts,
    "text-step": _text_step,
    "text-speed": _text_speed,
    "windows-cost": _windows,
    "attention-time": _attention_time,
    "attention-padded-time": _padded_time,
    "pooled-difference": _pooled,
}
"""Published name -> what is said of it."""
