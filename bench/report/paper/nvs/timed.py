"""The tables that are timed, at the size and on the device of the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.report import text
from bench.report.paper.layout import Column, PaperTable, as_printed, number
from bench.report.paper.nvs.quantities import (
    ASYMPTOTIC_FROM,
    CALLS,
    INCREMENTAL,
    INPUTS,
    LVSM,
    OURS,
    TARGETS,
    here,
    sweep,
    tflop,
    views,
)
from bench.report.paper.quantities import Theirs, exponent, latency, memory, over, quotient, sources
from bench.stats import Estimate
from bench.store.efficiency import Call, Efficiency


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them; the first one beside what is counted in the same setting."""
    return [
        _efficiency(efficiency, published),
        _speed_ups(efficiency, published),
        _incremental(efficiency, published),
        *_sweeps(efficiency),
        _exponents(efficiency),
    ]


def _efficiency(efficiency: Efficiency, published: Theirs) -> PaperTable:
    readme, gflops = published["parameters-readme"], published["efficiency-gflops"]
    milliseconds, thop, true = (published[f"efficiency-{name}"] for name in ("latency", "thop", "true"))
    names = {"pixelsplat": "pixelSplat", "gs-lrm": "GS-LRM", LVSM: "LVSM decoder-only", OURS: "Efficient-LVSM"}
    sizes = views(6, 7)
    rows: list[dict[str, Any]] = []
    for label, name in names.items():
        row = efficiency.count(label, sizes)
        rows.append(
            {
                "model": name,
                "parameters_readme": readme[label] / 1e6,
                "parameters": None if row is None else row.parameters / 1e6,
                "gflops_readme": gflops[label],
                "linear_gmac": None if row is None else row.linear_macs / 1e9,
                "thop_run": thop.get(label),
                "thop_rule": None if row is None else (row.linear_macs + row.norm_ops) / 1e9,
                "tflop": None if row is None else row.flops / 1e12,
                "tflop_inferred": true.get(label),
                "latency_readme": milliseconds[label],
                "latency": latency(efficiency.call(label, sizes)),
            }
        )
    columns = (
        Column("model", "model"),
        Column("parameters_readme", "M parameters [README]", as_printed),
        Column("parameters", "ours", number(4)),
        Column("gflops_readme", '"GFLOPS" [README]', as_printed),
        Column("linear_gmac", "linear GMAC, ours", number(5)),
        Column("thop_run", "thop [run]", as_printed),
        Column("thop_rule", "thop's rule, ours", number(5)),
        Column("tflop", "TFLOP, ours", number(3)),
        Column("tflop_inferred", "TFLOP [inferred]", as_printed),
        Column("latency_readme", "ms [README]", as_printed),
        Column("latency", f"ms here ({efficiency.record.preset})", number(3)),
    )
    notes = (
        "6 inputs, 7 targets, 256 px: the only setting that gives both published figures. They are multiply-adds of the linear "
        "layers, that is half of their FLOPs, and leave attention out. 8523 is what the linear layers of LVSM's blocks alone "
        "come to (8523.4); tokenisers and head make 5.9 more. Thop's rule adds 2 operations a number of a layer norm, 4 where "
        "it has weights; our LVSM norms the inputs before it repeats them for every target, 0.1 less.",
        here(efficiency),
    )
    title = "The published efficiency table"
    return PaperTable("efficiency", title, columns, tuple(rows), notes, sources(gflops, thop, true, milliseconds))


def _speed_ups(efficiency: Efficiency, published: Theirs) -> PaperTable:
    claims, gflops = published["speed-up-claims"], published["efficiency-gflops"]
    settings = {"efficiency table": views(6, 7), "16 inputs": views(16)}
    rows = []
    for name, sizes in settings.items():
        lvsm, ours = efficiency.count(LVSM, sizes), efficiency.count(OURS, sizes)
        lvsm_call, our_call = efficiency.call(LVSM, sizes), efficiency.call(OURS, sizes)
        rows.append(
            {
                "claim": name,
                "views": f"{sizes['input_views']} to {sizes['target_views']}",
                "note": claims[name],
                "by_published_gflops": gflops[LVSM] / gflops[OURS] if name == "efficiency table" else None,
                "by_linear": None if lvsm is None or ours is None else lvsm.linear_macs / ours.linear_macs,
                "by_flops": None if lvsm is None or ours is None else lvsm.flops / ours.flops,
                "by_flops_here": _flops_quotient(lvsm_call, our_call),
                "here": quotient(lvsm_call, our_call),
            }
        )
    columns = (
        Column("claim", "claim"),
        Column("views", "views"),
        Column("note", "published latency [note]", as_printed),
        Column("by_published_gflops", 'by "GFLOPS" [README]', number(3)),
        Column("by_linear", "by linear layers, full size", number(3)),
        Column("by_flops", "by FLOPs, full size", number(3)),
        Column("by_flops_here", "by FLOPs, this size", number(3)),
        Column("here", "latency here", number(3)),
    )
    notes = (
        "LVSM decoder-only over Efficient-LVSM, both from scratch. The more views, the more of the cost is attention, which the "
        'published "GFLOPS" do not count. The claim on 16 inputs does not say how many targets; 8 here.',
        here(efficiency),
    )
    return PaperTable("speed-ups", "Speed-ups", columns, tuple(rows), notes, sources(claims), names=2)


def _flops_quotient(first: Call | None, second: Call | None) -> float | None:
    return None if first is None or second is None else first.flops / second.flops


def _incremental(efficiency: Efficiency, published: Theirs) -> PaperTable:
    milliseconds, speed_up, size = (
        published[name] for name in ("incremental-latency", "incremental-speed-up", "cache-bytes")
    )
    rows = []
    for inputs in INCREMENTAL:
        sizes = views(inputs)
        lvsm, full, cached = (
            efficiency.call(LVSM, sizes),
            efficiency.call(OURS, sizes),
            efficiency.call(OURS, sizes, "add"),
        )
        published_lvsm = milliseconds[f"{LVSM} {inputs}"]
        count = tflop(efficiency, LVSM, sizes)
        rows.append(
            {
                "views": inputs,
                "lvsm_readme": published_lvsm,
                "lvsm_tflop_per_s": None if count is None else count / published_lvsm * 1e3,
                "cached_readme": milliseconds[f"{OURS} {inputs}"],
                "speed_up_readme": speed_up[str(inputs)],
                "speed_up_flops": over(count, tflop(efficiency, OURS, sizes, "add")),
                "lvsm": latency(lvsm),
                "full": latency(full),
                "cached": latency(cached),
                "speed_up": quotient(lvsm, cached),
                "speed_up_flops_here": _flops_quotient(lvsm, cached),
                "cache_saves": quotient(full, cached),
            }
        )
    columns = (
        Column("views", "input views"),
        Column("lvsm_readme", "LVSM ms [README]", as_printed),
        Column("lvsm_tflop_per_s", "that is TFLOP/s", number(3)),
        Column("cached_readme", "with cache ms [README]", as_printed),
        Column("speed_up_readme", "speed-up [README]", as_printed),
        Column("speed_up_flops", "by FLOPs, full size", number(3)),
        Column("lvsm", "LVSM ms here", number(3)),
        Column("full", "without cache ms here", number(3)),
        Column("cached", "with cache ms here", number(3)),
        Column("speed_up", "speed-up here", number(3)),
        Column("speed_up_flops_here", "by FLOPs, this size", number(3)),
        Column("cache_saves", "without / with cache here", number(3)),
    )
    call = efficiency.call(OURS, views(INCREMENTAL[0]), "add")
    held = "" if call is None else f", {text.size(call.held_bytes / (INCREMENTAL[0] - 1))} here"
    differ = [other.deviation for group in efficiency.groups for other in group.calls if other.deviation is not None]
    notes = (
        "A view is added and 8 targets are rendered; the number of input views includes the added one, and all poses are in the "
        "frame of the first two views. Speed-ups are quotients within a round.",
        f"The cache takes {size[OURS]} {size.unit} a view at full size [{size.status}]{held}. Images from a cache or latents "
        f"and those of a full pass differ by at most {max(differ, default=0.0):.2g} (of a range of 1).",
        *_skipped(efficiency, "input_views"),
        here(efficiency),
    )
    title = "Adding a view: latency"
    return PaperTable("incremental-latency", title, columns, tuple(rows), notes, sources(milliseconds, speed_up))


def _skipped(efficiency: Efficiency, vary: str) -> list[str]:
    """A sentence on each kind of call that was not timed everywhere in a sweep."""
    left_out: dict[tuple[str, str], dict[int, str]] = {}
    for count, calls in sweep(efficiency, vary).items():
        for key, call in calls.items():
            if call.skipped:
                left_out.setdefault(key, {})[count] = call.skipped
    return [
        f"Not timed: {CALLS[key]}, {', '.join(map(str, reasons))} {vary.replace('_', ' ')}: {next(iter(reasons.values()))}"
        f"{' for the first of them' if len(reasons) > 1 else ''}."
        for key, reasons in left_out.items()
    ]


def _sweeps(efficiency: Efficiency) -> list[PaperTable]:
    made = []
    for vary, heading, fixed in (
        ("input_views", "input views", f"{TARGETS} targets"),
        ("target_views", "target views", f"{INPUTS} inputs"),
    ):
        series = sweep(efficiency, vary)
        stem = vary.replace("_", "-")
        made.append(
            _pivot(
                f"latency-{stem}",
                f"Milliseconds over {heading}, {fixed}",
                heading,
                series,
                latency,
                number(3),
                (*_skipped(efficiency, vary), here(efficiency)),
            )
        )
        made.append(
            _pivot(
                f"memory-{stem}",
                f"MiB beyond the weights over {heading}, {fixed}",
                heading,
                series,
                lambda call: None if (taken := memory(call)) is None else taken / 2**20,
                number(3),
                (
                    "The most bytes of tensors that a call holds at once, its outputs and the cache or latents that it reads "
                    "included, inputs and weights not; what a kernel takes inside itself is not seen. The same on every "
                    "device, and exact. (One view added: the old cache and the new one are both there.)",
                    here(efficiency),
                ),
            )
        )
    return made


def _pivot(
    name: str,
    title: str,
    heading: str,
    series: Mapping[int, Mapping[tuple[str, str], Call]],
    value: Callable[[Call | None], Any],
    show: Callable[[Any], str],
    notes: tuple[str, ...],
) -> PaperTable:
    keys = {key: f"{key[0]}_{key[1]}".replace("-", "_") for key in CALLS}
    rows = tuple(
        {"views": count, **{keys[key]: value(calls.get(key)) for key in CALLS}} for count, calls in series.items()
    )
    columns = (Column("views", heading), *(Column(keys[key], CALLS[key], show) for key in CALLS))
    return PaperTable(name, title, columns, rows, notes)


def _exponents(efficiency: Efficiency) -> PaperTable:
    rows = []
    for key, name in CALLS.items():
        row: dict[str, Any] = {"call": name}
        for vary in ("input_views", "target_views"):
            timed = {
                count: calls[key]
                for count, calls in sweep(efficiency, vary).items()
                if count >= (ASYMPTOTIC_FROM if vary == "input_views" else 1) and key in calls and calls[key].times_ms
            }
            row[f"{vary}_latency"] = exponent({count: call.times_ms for count, call in timed.items()})
            flops = exponent({count: [call.flops] for count, call in timed.items()})
            row[f"{vary}_flops"] = None if flops is None else flops.value
        label, mode = key
        full = {
            inputs: [counted]
            for inputs in INCREMENTAL
            if inputs >= ASYMPTOTIC_FROM and (counted := tflop(efficiency, label, views(inputs), mode)) is not None
        }
        asymptotic = exponent(full)
        row["full_size"] = None if asymptotic is None else asymptotic.value
        rows.append(row)

    def show(value: Any) -> str:
        if not isinstance(value, Estimate):
            return text.fixed(value, 2)
        return text.with_interval(text.fixed(value.value, 2), text.ends(value.interval, 2))

    columns = (
        Column("call", "call"),
        Column("input_views_latency", "latency over inputs", show),
        Column("input_views_flops", "FLOPs over inputs", show),
        Column("full_size", "FLOPs over inputs, full size", show),
        Column("target_views_latency", "latency over targets", show),
        Column("target_views_flops", "FLOPs over targets", show),
    )
    notes = (
        f"Slope of log cost over log views: 1 is linear, 2 quadratic. Over inputs: from {ASYMPTOTIC_FROM} views up, "
        f"{TARGETS} targets; over targets: from 1 up, {INPUTS} inputs. Latency: a fit through each round, the median of the "
        "slopes with its 95 % interval. A slope below 1 is no sign of constant cost: what does not depend on the views hides "
        "the rest until there are many. Calls on one number of views are timed in turn, numbers of views one after the other: a "
        "load that changes in between moves the slope.",
        here(efficiency),
    )
    return PaperTable("exponents", "How cost grows with the views", columns, tuple(rows), notes)
