"""The figures of a comparison: quality against four kinds of cost, and at inference, and where the seconds went.

Drawn through Matplotlib's objects (Agg, no pyplot state). One colour and marker an arm, one line style a batch policy, so
that a figure also reads in grey. The same folder gives the same bytes: no dates go into the files.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import stats
from bench.report import text
from bench.report.summary import VIEWS, ArmSummary, Summary, View, summarise
from bench.store.read import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""Solid, dashed, dotted, dash-dotted: one a batch policy."""

CHARGED = {
    "data_wait": ("data wait", "#0173b2", ""),
    "h2d": ("host to device", "#56b4e9", ""),
    "forward": ("forward", "#029e73", ""),
    "backward": ("backward", "#de8f05", ""),
    "optimizer": ("optimizer", "#cc78bc", ""),
    "ema": ("EMA", "#ca9161", ""),
    "log": ("log", "#d55e00", ""),
}
UNCHARGED = {
    "setup": ("set-up", "#4d4d4d", ""),
    "probe": ("probe", "#8c8c8c", ""),
    "compile": ("compile", "#bdbdbd", ""),
    "warmup": ("warm-up", "#d9d9d9", ""),
    "eval": ("evaluation", "#efefef", "///"),
    "checkpoint": ("checkpoint", "#efefef", "..."),
    "sentinel": ("sentinel", "#efefef", "xxx"),
    "switch": ("slice switch", "#efefef", "---"),
    "idle": ("idle", "#ffffff", "|||"),
    "lost": ("lost", "#ffffff", "+++"),
    "unaccounted": ("unaccounted", "#ffffff", ""),
}
"""Ledger category -> name, colour, hatch. Charged ones are coloured, the others grey: the eye sees what was paid for."""

NAMED_SHARE = 0.045
"""A ledger segment wider than this share of the axis carries its seconds."""


def write(comparison: Comparison, out_dir: str | Path) -> list[Path]:
    """Write ``curves``, ``front`` and ``ledger`` as PNG and PDF into `out_dir` and return their paths."""
    summary = summarise(comparison)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    with style():
        for name, draw in (("curves", draw_curves), ("front", draw_front), ("ledger", draw_ledger)):
            figure = draw(summary)
            paths += save(figure, out_dir / name)
    return paths


def draw_curves(summary: Summary) -> Figure:
    """2 x 2 panels: the headline metric against charged seconds, steps, samples and training FLOPs."""
    from matplotlib.figure import Figure

    metric = summary.comparison.headline
    rows = len(_legend_entries(summary))
    figure = Figure(figsize=(7.2, 5.4 + 0.11 * rows), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for ax, view in zip(axes.flat, VIEWS, strict=True):
        scale, label = _axis(summary, view)
        for arm in summary.arms:
            _draw_arm(ax, summary, arm, view, scale)
        ax.set_xlabel(label)
        ax.set_xlim(left=0)
        ax.margins(x=0.03)
        ax.grid(axis="y", linewidth=0.5, color="0.9")
        for reference in _learn_nothing(summary):
            ax.axhline(reference[1], color="0.45", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for ax in axes[:, 0]:
        ax.set_ylabel(metric.label)
    _name_references(axes[0, 0], _learn_nothing(summary))
    handles = _legend_entries(summary)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False, handlelength=3.2, columnspacing=2.5
    )
    several = any(len(arm.finished) > 1 for arm in summary.arms)
    _title(figure, summary, "lines: mean over seeds, band: lowest to highest seed" if several else "1 seed: no band")
    return figure


def _draw_arm(ax: Axes, summary: Summary, arm: ArmSummary, view: View, scale: float) -> None:
    curves = list(summary.curves[arm.arm.name].values())
    shared = min((len(curve.quality) for curve in curves), default=0)
    if not shared:
        return
    x = np.mean([curve.positions[view][-shared:] for curve in curves], axis=0) * scale
    quality = np.array([curve.quality[-shared:] for curve in curves])
    colour, marker, line = _look(summary, arm)
    mean = quality.mean(axis=0)
    ax.plot(x, mean, color=colour, linestyle=line, linewidth=1.5, zorder=3)
    if len(curves) > 1:
        ax.fill_between(x, quality.min(axis=0), quality.max(axis=0), color=colour, alpha=0.16, linewidth=0, zorder=2)
    for position, value, annealed in zip(x, mean, curves[0].annealed[-shared:], strict=True):
        face = colour if annealed else "white"
        ax.plot(position, value, marker, color=colour, markerfacecolor=face, markersize=5, clip_on=False, zorder=4)


def draw_front(summary: Summary) -> Figure:
    """The final headline metric against latency at inference; a line joins the arms that no other beats in both."""
    from matplotlib.figure import Figure

    metric = summary.comparison.headline
    figure = Figure(figsize=(7.2, 3.6 + 0.11 * len(summary.arms)), layout="constrained")
    ax, points, unit = figure.subplots(), [], "sample"
    for arm in summary.arms:
        inference = arm.measured.inference
        latency = inference.unit_latency_ms if inference else None
        if inference is None or latency is None or not arm.finals[metric.name]:
            continue
        unit = inference.unit.removesuffix("s")
        value = stats.mean_interval(list(arm.finals[metric.name].values()))
        colour, marker, _ = _look(summary, arm)
        spread = value.interval or (value.value, value.value)
        sideways = (latency.low or latency.median, latency.high or latency.median)
        ax.plot(sideways, (value.value, value.value), color=colour, linewidth=1.0)
        ax.plot((latency.median, latency.median), spread, color=colour, linewidth=1.0)
        ax.plot(latency.median, value.value, marker, color=colour, markersize=6, label=arm.title)
        points.append((latency.median, value.value))
    best = front(points, higher_is_better=bool(metric.higher_is_better)) if summary.conclusive else []
    dashed = "dashed: not beaten in both" if summary.conclusive else "inconclusive: no ranking"
    ax.plot([points[index][0] for index in best], [points[index][1] for index in best], color="0.5", linewidth=0.9,
            linestyle=(0, (4, 2)), zorder=1)  # fmt: skip
    ax.set_xlabel(f"latency at inference (ms a {unit})")
    ax.set_ylabel(metric.label)
    ax.grid(linewidth=0.5, color="0.9")
    if points:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _title(figure, summary, f"quality against latency; crosses: 95 % intervals (seeds, calls); {dashed}")
    return figure


def front(points: Sequence[tuple[float, float]], *, higher_is_better: bool) -> list[int]:
    """Indices of the (cost, quality) points for which no other is at least as good in both and better in one, by cost."""
    sign = 1 if higher_is_better else -1
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -sign * points[index][1])):
        if not kept or sign * points[index][1] > sign * points[kept[-1]][1]:
            kept.append(index)
    return kept


def draw_ledger(summary: Summary) -> Figure:
    """Stacked seconds of each arm, mean over its finished runs: charged categories first, then the others."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    arms = [arm for arm in summary.arms if arm.finished]
    names = {**CHARGED, **UNCHARGED}
    seconds = {arm.arm.name: _mean_seconds(arm) for arm in arms}
    shown = [key for key in names if any(seconds[arm.arm.name].get(key, 0.0) > 0 for arm in arms)]
    figure = Figure(figsize=(7.2, 1.7 + 0.42 * max(1, len(arms))), layout="constrained")
    ax = figure.subplots()
    width = max((sum(seconds[arm.arm.name].values()) for arm in arms), default=1.0)
    for row, arm in enumerate(arms):
        left = 0.0
        for key in shown:
            value = seconds[arm.arm.name].get(key, 0.0)
            _, colour, hatch = names[key]
            ax.barh(row, value, left=left, color=colour, hatch=hatch, height=0.68, edgecolor="0.35", linewidth=0.4)
            if value > NAMED_SHARE * width:
                box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
                centre = left + value / 2
                ax.text(centre, row, text.significant(value, 3), ha="center", va="center", fontsize=7, bbox=box)
            left += value
    budget = summary.comparison.record.budget_s
    if budget is not None:
        ax.axvline(budget, color="black", linewidth=1.0, linestyle=(0, (4, 2)))
        ax.annotate("budget", (budget, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
                    ha="center", va="bottom", fontsize=8)  # fmt: skip
    ax.set_yticks(range(len(arms)), [arm.title for arm in arms])
    ax.set_ylim(max(1, len(arms)) - 0.5, -0.5)
    ax.set_xlim(0, max(width, budget or 0.0) * 1.02)
    ax.set_xlabel("seconds a run (mean over seeds; coloured: charged, grey: not charged)", fontsize=9)
    ax.tick_params(axis="y", length=0)
    handles = [
        Patch(facecolor=names[key][1], hatch=names[key][2], edgecolor="0.35", linewidth=0.4, label=names[key][0])
        for key in shown
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, handlelength=1.4, fontsize=8)
    _title(figure, summary, "where the seconds went")
    return figure


def _mean_seconds(arm: ArmSummary) -> dict[str, float]:
    ledgers = [run.ledger for run in arm.finished]
    seconds = {
        key: float(np.mean([ledger.categories.get(key, 0.0) for ledger in ledgers])) for key in {**CHARGED, **UNCHARGED}
    }
    return seconds | {"unaccounted": max(0.0, float(np.mean([ledger.unaccounted for ledger in ledgers])))}


def _axis(summary: Summary, view: View) -> tuple[float, str]:
    """Factor and label of a panel's axis."""
    if view == "time":
        time = text.TimeScale(summary.comparison.span_s)
        return 1 / time.divisor, f"charged time ({time.unit})"
    if view == "flops":
        ends = [curve.positions["flops"][-1] for curves in summary.curves.values() for curve in curves.values()]
        power = int(np.clip(np.log10(max(filter(None, ends), default=1e12)) // 3 * 3, 9, 21))
        return (
            10.0**-power,
            f"training {dict(zip(range(9, 22, 3), 'GTPEZ', strict=True))[power]}FLOPs (1 MAC = 2 FLOPs)",
        )
    return 1.0, f"training {view}" if view == "samples" else "optimizer steps"


def _look(summary: Summary, arm: ArmSummary) -> tuple[Any, str, Any]:
    """Colour, marker and line of an arm: the first two tell the label, the last the policy."""
    import seaborn

    labels = list(dict.fromkeys(other.arm.label for other in summary.arms))
    index = labels.index(arm.arm.label)
    colours = seaborn.color_palette("colorblind", max(len(labels), 3))
    policy = summary.comparison.policies.index(arm.arm.policy)
    return colours[index], MARKERS[index % len(MARKERS)], LINES[policy % len(LINES)]


def _legend_entries(summary: Summary) -> list[Any]:
    from matplotlib.lines import Line2D

    entries = []
    for arm in summary.arms:
        colour, marker, line = _look(summary, arm)
        count = len(arm.finished)
        seeds = f"{count} seed{'' if count == 1 else 's'}"
        entries.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=f"{arm.title}, {seeds}"))
    grey: dict[str, Any] = {"color": "0.3", "marker": "o", "linestyle": "none"}
    entries.append(Line2D([], [], markerfacecolor="white", label="not annealed", **grey))
    entries.append(Line2D([], [], label="annealed: the result", **grey))
    return entries


def _learn_nothing(summary: Summary) -> list[tuple[str, float]]:
    """Baselines that learn nothing, on the samples of the curves where their records allow it; best last."""
    metric = summary.comparison.headline
    found = []
    for entry in summary.comparison.learn_nothing:
        value = entry.value(metric, summary.curve_samples or None)
        if value is not None:
            found.append((entry.label, value))
    return sorted(found, key=lambda item: item[1])


def _name_references(ax: Axes, references: Sequence[tuple[str, float]]) -> None:
    """Write each dotted line's name on it, at the right end, pushed apart where two would overlap."""
    if not references:
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 0.062
    heights = [value for _, value in references]
    for _ in range(50):
        for index, (below, above) in enumerate(itertools.pairwise(heights)):
            overlap = gap - (above - below)
            if overlap > 1e-9:
                heights[index], heights[index + 1] = below - overlap / 2, above + overlap / 2
    for (label, _), height in zip(references, heights, strict=True):
        ax.annotate(label, (1, height), xycoords=("axes fraction", "data"), xytext=(0, 1.5), textcoords="offset points",
                    va="bottom", ha="right", fontsize=6, color="0.35", annotation_clip=False)  # fmt: skip


def _title(figure: Figure, summary: Summary, what: str) -> None:
    record = summary.comparison.record
    pending = sum(not run.finished for run in summary.comparison.runs)
    missing = f"; left out: {pending} of {len(summary.comparison.runs)} runs, not finished" if pending else ""
    figure.suptitle(f"{record.name} ({record.preset}) on {record.device.name}\n{what}{missing}", fontsize=9)


def load() -> None:
    """Load the libraries that draw, which every other function here does when it needs them: that takes a second."""
    for library in ("seaborn", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"):
        importlib.import_module(library)


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure."""
    import matplotlib
    import seaborn

    settings = {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper"),
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # ships with Matplotlib: the same bytes on every machine
        "axes.spines.top": False,
        "axes.spines.right": False,
        "pdf.fonttype": 42,
        "hatch.linewidth": 0.5,
    }
    with matplotlib.rc_context(settings):
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``STEM.png`` and ``STEM.pdf`` and return both; the same figure gives the same bytes.

    It is laid out once, for the PNG: that takes as long as drawing, and both look the same.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    png, pdf = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf"))
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(200)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)
    canvas.print_figure(png, dpi=200, metadata={"Software": None})
    FigureCanvasPdf(figure).print_figure(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return [png, pdf]
