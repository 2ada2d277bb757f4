import sys

import pytest

from bench.engine.ledger import CATEGORIES, CHARGED
from bench.report import plots
from bench.report.summary import summarise
from bench.store.read import open_comparison
from bench.store.write import FIGURES
from tests.report.fake_store import ARMS


@pytest.fixture(scope="module")
def drawn(full, tmp_path_factory):
    return plots.write(full, tmp_path_factory.mktemp("figures"))


def test_files_of_the_right_kind(drawn):
    assert [path.name for path in drawn] == [f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")]
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
        assert path.stat().st_size > 5_000


def test_the_same_folder_gives_the_same_bytes(drawn, full, tmp_path):
    again = plots.write(open_comparison(full.folder), tmp_path)
    assert [path.read_bytes() for path in drawn] == [path.read_bytes() for path in again]


def test_four_panels_of_the_headline_metric(full):
    with plots.style():
        figure = plots.draw_curves(summarise(full))
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "charged time (s)",
        "optimizer steps",
        "training samples",
        "training TFLOPs (1 MAC = 2 FLOPs)",
    ]
    assert figure.axes[0].get_ylabel() == "PSNR (dB)"
    ends = [line.get_xdata()[-1] for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    assert ends == pytest.approx([25.0] * 4)  # every arm ends at the budget
    markers = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert sum(line.get_markerfacecolor() != "white" for line in markers) == 4  # annealed ends only
    references = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(references) == 3


def test_one_colour_an_arm_and_one_line_style_a_policy(full):
    with plots.style():
        looks = [plots._look(summarise(full), arm) for arm in summarise(full).arms]
    assert looks[0][:2] == looks[2][:2] != looks[1][:2] == looks[3][:2]
    assert looks[0][2] == looks[1][2] != looks[2][2] == looks[3][2]


def test_names_of_near_baselines_do_not_overlap(full):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_ylim(0, 10)
    plots._name_references(ax, [("a", 5.0), ("b", 5.01), ("c", 5.02)])
    heights = sorted(text.xy[1] for text in ax.texts)
    assert heights[1] - heights[0] > 0.6
    assert heights[2] - heights[1] > 0.6


def test_the_ledger_draws_every_category_of_the_engine():
    assert tuple(plots.CHARGED) == CHARGED
    assert set(plots.CHARGED) | set(plots.UNCHARGED) == {*CATEGORIES, "unaccounted"}


def test_ledger_bars_sum_to_the_wall_time(full):
    with plots.style():
        figure = plots.draw_ledger(summarise(full))
    widths = dict.fromkeys(range(4), 0.0)
    for bar in figure.axes[0].patches:
        widths[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    for row, arm in enumerate(summarise(full).arms):
        walls = [run.ledger.wall for run in arm.finished]
        assert widths[row] == pytest.approx(sum(walls) / len(walls))


def test_one_seed_draws_no_band(single, full):
    with plots.style():
        bands = [len(plots.draw_curves(summarise(comparison)).axes[0].collections) for comparison in (single, full)]
    assert bands == [0, 4]


def test_runs_that_did_not_finish_are_left_out_and_counted(trouble):
    with plots.style():
        title = plots.draw_curves(summarise(trouble)).get_suptitle()
    assert title.endswith("left out: 2 of 12 runs, not finished")


def test_a_comparison_without_any_result_still_draws(make_store, tmp_path):
    nothing = make_store(statuses={(arm.name, seed): "failed" for arm in ARMS for seed in (0, 1, 2)})
    assert len(plots.write(nothing, tmp_path / "nothing")) == 2 * len(FIGURES)


def test_no_figure_state_is_left_behind(drawn):
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
