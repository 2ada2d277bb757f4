"""The figure of token norms: median, 99 % quantile and maximum behind each block, one panel an arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.report.plots import LINES, MARKERS, save, style
from bench.store.files import read_json


def write(folder: Path) -> list[Path]:
    """Draw ``tokens/norms.json`` of a result folder as ``tokens/norms.png`` and ``.pdf``."""
    arms = read_json(folder / "tokens" / "norms.json")
    with style():
        figure = draw(arms)
        return save(figure, folder / "tokens" / "norms")


def draw(arms: dict[str, dict[str, list[dict[str, float]]]]) -> Any:
    """One panel an arm on one logarithmic scale: a median far below its maximum is a spike."""
    import seaborn
    from matplotlib.figure import Figure

    shown = {name: stacks for name, stacks in arms.items() if stacks}
    figure = Figure(figsize=(3.2 * len(shown) + 0.6, 3.9), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    palette = seaborn.color_palette("colorblind")
    for ax, (name, stacks) in zip(panels, shown.items(), strict=True):
        for number, (stack, blocks) in enumerate(stacks.items()):
            positions = [block["block"] for block in blocks]
            for line, key in zip(LINES, ("median", "p99", "maximum"), strict=False):
                ax.plot(
                    positions,
                    [block[key] for block in blocks],
                    color=palette[number % len(palette)],
                    linestyle=line,
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=3.5,
                    linewidth=1.2,
                    label=f"{stack}: {key}",
                )
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("block")
        ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=6, frameon=False, handlelength=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0].set_ylabel("L2 norm of a token")
    return figure
