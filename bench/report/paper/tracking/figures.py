"""The figure of MixFormer: computation and time of a frame by attention, templates kept or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper.quantities import Theirs, latency
from bench.report.paper.tracking.quantities import LABELS, MODES, call, count, name
from bench.store.efficiency import Efficiency

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(efficiency: Efficiency, published: Theirs, out: Path) -> list[Path]:
    """Write ``ratios`` as PNG and PDF into `out` and return their paths."""
    with plots.style():
        figure = draw(efficiency)
        return plots.save(figure, out / "ratios")


def draw(efficiency: Efficiency) -> Figure:
    """Bars by model and call: GFLOP counted, ms measured with their interval."""
    import seaborn
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    computation, time = figure.subplots(1, 2, sharey=True)
    colours = seaborn.color_palette("colorblind", len(MODES))
    for index, (mode, heading) in enumerate(MODES.items()):
        places = [row + 0.26 * (index - 1) for row in range(len(LABELS))]
        rows = [count(efficiency, label, mode) for label in LABELS]
        computation.barh(
            places, [row.flops / 1e9 if row else 0 for row in rows], 0.24, color=colours[index], label=heading
        )
        for place, label in zip(places, LABELS, strict=True):
            took = latency(call(efficiency, label, mode))
            if took is not None:
                value, interval, _ = took
                reach = None if interval is None else [[value - interval.low], [interval.high - value]]
                time.barh([place], [value], 0.24, xerr=reach, color=colours[index], error_kw={"linewidth": 0.8})
    computation.set_yticks(range(len(LABELS)), [name(label) for label in LABELS], fontsize=7.5)
    computation.invert_yaxis()
    for ax, heading in ((computation, "GFLOP of a call (log)"), (time, "ms of a call (log)")):
        if ax.patches and any(bar.get_width() > 0 for bar in ax.patches):
            ax.set_xscale("log")
        ax.set_xlabel(heading, fontsize=8.5)
        ax.tick_params(axis="x", labelsize=8)
    handles, labels = computation.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    record = efficiency.record
    figure.suptitle(
        f"MixFormer on CvT and ViT, one target; times on {record.device.name}, {record.precision}", fontsize=9
    )
    return figure
