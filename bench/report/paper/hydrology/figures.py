"""The figure of the notes' cost claims: what CrossMAE saves over what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper import panels
from bench.report.paper.hydrology.quantities import CROSS, DAYS, HIDDEN, MAE, THIRD, WIDTH, count, pairs, timed, tokens
from bench.report.paper.hydrology.tables import HIDDEN_BY_RATIO, SHARES, WIDTHS
from bench.report.paper.quantities import Theirs, quotient
from bench.report.paper.ratios import counted_ratio
from bench.store.efficiency import Efficiency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ("attention only", "decoder", "step")
THIRDS = ("decoder, a third predicted", "step, a third predicted")


def write(efficiency: Efficiency, published: Theirs, out: Path) -> list[Path]:
    """Write ``ratios`` as PNG and PDF into `out` and return their paths."""
    with plots.style():
        figure = draw(efficiency, published)
        return plots.save(figure, out / "ratios")


def draw(efficiency: Efficiency, published: Theirs) -> Figure:
    """MAE over CrossMAE by days, mask ratio, width and predicted share; points with intervals are measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    days, masks, widths, shares = figure.subplots(2, 2).flat
    over_days = [({"days": length}, float(length)) for length in DAYS]
    panels.draw(days, _lines(efficiency, over_days) | _lines(efficiency, over_days, THIRD, THIRDS), "days (log)",
                "MAE / CrossMAE")  # fmt: skip
    for names, label in ((("decoder", "step"), CROSS), (THIRDS, THIRD)):
        for name, mode in zip(names, ("decoder", "step"), strict=True):
            measured = {
                float(length): ratio
                for length in DAYS
                if (ratio := quotient(*(timed(efficiency, mode, length, one) for one in (MAE, label)))) is not None
            }
            panels.points(days, name, measured)
    days.set_xscale("log")
    days.xaxis.set_major_locator(FixedLocator(list(DAYS)))
    days.xaxis.set_minor_locator(NullLocator())
    days.xaxis.set_major_formatter(ScalarFormatter())
    panels.draw(masks, _lines(efficiency, [({"hidden": hidden}, share) for share, hidden in HIDDEN_BY_RATIO.items()]),
                "mask ratio")  # fmt: skip
    panels.draw(widths, _lines(efficiency, [({"width": width}, float(width)) for width in WIDTHS]),
                "width of the decoder, half the encoder's", "MAE / CrossMAE")  # fmt: skip
    by_share: dict[str, dict[float, float]] = {name: {} for name in LINES}
    for label in SHARES.values():
        everything, predicted, _ = tokens(label)
        for name, series in _lines(efficiency, [({}, predicted / everything)], label).items():
            by_share[name] |= series
    panels.draw(shares, by_share, "share of the tokens that is predicted, γ")
    panels.legend(figure, (*LINES, *THIRDS), ("decoder", "step", *THIRDS))
    record = efficiency.record
    figure.suptitle(
        f"MAE over CrossMAE on daily fields, {HIDDEN} of 94 patches masked, decoder {WIDTH} wide, 90 days where not said\n"
        f"measured on {record.device.name}, {record.precision}, forward and backward, 95 % interval",
        fontsize=9,
    )
    return figure


def _lines(
    efficiency: Efficiency,
    settings: list[tuple[dict[str, int], float]],
    label: str = CROSS,
    names: tuple[str, ...] = LINES,
) -> dict[str, dict[float, float]]:
    """Counted series by name over settings: (what differs from the notes, place on the axis)."""
    made: dict[str, dict[float, float]] = {name: {} for name in names}
    for changed, place in settings:
        mae, row = (count(efficiency, one, **changed) for one in (MAE, label))
        reach = {name: value for name, value in changed.items() if name in ("days", "hidden")}
        ratios = {
            "attention only": pairs(MAE, **{k: v for k, v in reach.items() if k == "days"}) / pairs(label, **reach),
            "decoder": counted_ratio(mae, row, "decoder"),
            "step": counted_ratio(mae, row),
        }
        for name in names:
            value = ratios[name.split(",")[0]]
            if value is not None:
                made[name][place] = value
    return made
