"""Published tables beside trained comparisons: from made-up results whose truth is known, what is set and what is said."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench import config, stats
from bench.errors import UserError
from bench.report import plots
from bench.report.claims import Claim, read_claims
from bench.report.claims.commands import understand
from bench.report.claims.folders import Trial
from bench.report.claims.measures import Paired
from bench.report.paper.layout import PaperTable, to_csv, to_latex, to_markdown
from bench.report.paper.published import read_published
from bench.report.paper.results import find_results, write_all
from bench.report.paper.trained import render_trained, write_trained
from bench.report.paper.trained.figures import comparable_lines, draw, write_figures
from bench.report.paper.trained.lines import (
    NO_INTERVAL,
    NO_RANKING,
    OPEN,
    OPPOSITE,
    SAME,
    TIE,
    UNCLEAR,
    Line,
    make_lines,
)
from bench.report.paper.trained.published import FAMILIES, FOLDER, NOT_SET, PublishedTable, read_not_set, read_tables
from bench.report.paper.trained.tables import agreement_counts, paper_table
from bench.report.verify import verify
from bench.store.read import open_comparison
from tests.report.fake_store import SAMPLES, FakeArm, FakeStore

LVSM, DUAL = "lvsm-decoder-only", "efficient-lvsm"
ROWS = [
    {"label": "theirs alone", "source": "[README] another", "values": {"PSNR": 30.5}},
    {"label": "LVSM", "arm": LVSM, "values": {"PSNR": 29.67, "LPIPS": 0.098}},
    {"label": "dual", "arm": DUAL, "values": {"PSNR": 28.93, "LPIPS": 0.102}},
]
PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "cpu-2core"


def a_table(rows: list[dict[str, Any]] | None = None, **changes: Any) -> PublishedTable:
    return PublishedTable.model_validate({
        "name": "a-table",
        "title": "A title",
        "source": "[note] a paper",
        "data": "RealEstate10K",
        "budget": "three days",
        "comparison": "nvs",
        "reference": "LVSM",
        "measures": [
            {"column": "PSNR", "unit": "dB", "digits": 2, "ours": "psnr"},
            {"column": "LPIPS", "digits": 3, "ours": "st_lpips"},
        ],
        "rows": ROWS if rows is None else rows,
        **changes,
    })  # fmt: skip


def a_trial(folder: Path, first: float = 17.0, second: float = 18.0, **options: Any) -> Trial:
    """LVSM and the dual stream that end at these PSNRs."""
    arms = (FakeArm(LVSM, "fill", first, 1.0, 20, 8), FakeArm(DUAL, "fill", second, 1.0, 20, 8))
    return Trial(open_comparison(FakeStore(**{"arms": arms, "noise": 0.05, **options}).write(folder)))


def line_of(lines: tuple[Line, ...], label: str, column: str = "PSNR") -> Line:
    (found,) = [line for line in lines if (line.row.label, line.measure.column) == (label, column)]
    return found


def the_table(table: PublishedTable, trial: Trial | None, *others: Trial) -> PaperTable:
    return paper_table(table, make_lines(table, trial), trial, others)


def rows_of(made: PaperTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(made))))


def test_values_and_differences_are_those_of_the_records(tmp_path):
    trial = a_trial(tmp_path)
    line = line_of(make_lines(a_table(), trial), "dual")
    dual, lvsm = (trial.summary.arms[index].finals["psnr"] for index in (1, 0))
    expected = stats.paired_difference(dual, lvsm)
    assert line.published_difference == -0.74
    assert line.ours == stats.mean_interval(list(dual.values()))
    assert line.difference is not None
    assert (line.difference.value, line.difference.interval) == (expected.mean, expected.interval)
    assert line.difference.number == 3


@pytest.mark.parametrize(
    ("second", "published", "agreement"),
    [
        (15.0, 28.93, SAME),
        (19.0, 28.93, OPPOSITE),
        (19.0, 30.5, SAME),
        (17.0, 28.93, OPEN),
        (19.0, 29.67, TIE),
        (17.0, 29.67, OPEN),
    ],
)
def test_agreement_is_by_sign_where_the_interval_excludes_none(tmp_path, second, published, agreement):
    rows = [ROWS[1], {"label": "dual", "arm": DUAL, "values": {"PSNR": published}}]
    line = line_of(make_lines(a_table(rows), a_trial(tmp_path, second=second, noise=0.2)), "dual")
    assert line.difference is not None
    assert line.difference.interval is not None
    assert line.difference.interval.contains(0.0) == (agreement == OPEN)
    assert line.agreement == agreement


@pytest.mark.parametrize(("uncertainty", "agreement"), [(0.73, SAME), (0.74, UNCLEAR), (2.0, UNCLEAR)])
def test_a_published_difference_within_its_uncertainty_is_unclear(tmp_path, uncertainty, agreement):
    table = a_table([ROWS[1], {**ROWS[2], "uncertainty": {"PSNR": uncertainty}}])
    trial = a_trial(tmp_path, second=15.0)
    assert line_of(make_lines(table, trial), "dual").agreement == agreement
    assert f"| -0.74 ± {uncertainty:.2f} |" in to_markdown(the_table(table, trial))
    measures = [{**table.measures[0].model_dump(), "uncertainty": uncertainty}, table.measures[1].model_dump()]
    assert line_of(make_lines(a_table(measures=measures), trial), "dual").agreement == agreement


def test_the_counts_say_how_many_differences_of_ours_there_are(tmp_path):
    measures = [{"column": name, "unit": "dB", "digits": 2, "ours": "psnr"} for name in ("PSNR, one", "PSNR, two")]
    rows = [{**row, "values": {"PSNR, one": 1.0 + at, "PSNR, two": 2.0 + at}} for at, row in enumerate(ROWS[1:])]
    lines = make_lines(a_table(rows, measures=measures), a_trial(tmp_path))
    told = agreement_counts(lines)
    assert told.startswith("2 published differences stand beside one of ours: 2 same direction. ")
    assert "Distinct differences of ours behind them: 1," in told


@pytest.mark.parametrize(("reached", "better"), [(9.0, True), (15.0, False)])
def test_a_dagger_stands_where_a_predictor_that_learns_nothing_is_better(tmp_path, reached, better):
    """The nearest view has 12.2; the warp by true depth, which has 16.3, is an oracle."""
    rows = [*ROWS, {"label": "nearest", "baseline": "nearest-view", "values": {"PSNR": 12.0}}]
    trial = a_trial(tmp_path, first=reached - 1, second=reached)
    made = the_table(a_table(rows), trial)
    daggers = {row["row"]: row["dagger"] for row in rows_of(made) if row["measure"] == "PSNR (dB)"}
    told = str(int(better))
    assert daggers == {"theirs alone": "", "LVSM": told, "dual": told, "nearest": "0"}
    (latex,) = [line for line in to_latex(made).splitlines() if line.startswith("dual & PSNR")]
    assert ("†" in latex or "dagger" in latex) == better
    named = "A predictor that learns nothing is better than the best trained arm: PSNR (dB), "
    assert (named in " ".join(made.notes)) == better


def test_masks_of_ours_are_told_and_printed_digits_are_kept(tmp_path):
    trial = a_trial(tmp_path)
    record = json.loads((tmp_path / "comparison.json").read_text())
    record["task"]["options"] |= {"mask_ratio": 0.75, "image_mask": ["tube", "block"], "days": 14, "patch_cells": 8}
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    trial = Trial(open_comparison(tmp_path))
    rows = [
        {**ROWS[1], "values": {"PSNR": 29.5}, "digits": {"PSNR": 3}, "sources": {"PSNR": "[note] an abstract"}},
        ROWS[2],
    ]
    made = the_table(a_table(rows), trial)
    assert (
        "Ours, masks: 75 % masked, masks of grids tube, block, windows of 14 days, patches of 8 x 8 cells."
        in made.notes
    )
    assert "| 29.500 |" in to_markdown(made)
    assert rows_of(made)[0]["source"] == "[note] an abstract"


def test_a_lower_measure_is_compared_as_it_is_printed(tmp_path):
    """A higher PSNR is a lower ST-LPIPS in the made-up results; theirs is 0.004 higher."""
    lines = make_lines(a_table(), a_trial(tmp_path, second=19.0))
    assert line_of(lines, "dual", "LPIPS").agreement == OPPOSITE
    assert line_of(lines, "dual", "LPIPS").bold
    assert not line_of(lines, "LVSM", "LPIPS").bold


def test_one_seed_settles_nothing_and_is_never_bold(tmp_path):
    line = line_of(make_lines(a_table(), a_trial(tmp_path, second=25.0, seeds=(0,))), "dual")
    assert (line.agreement, line.bold) == (NO_INTERVAL, False)


def test_arms_that_may_not_be_ranked_agree_with_nothing(tmp_path):
    gate = {"metric": "psnr", "reference": "depth-warp", "margin": 20.0}
    trial = a_trial(tmp_path, second=25.0)
    record = json.loads((tmp_path / "comparison.json").read_text())
    record["task"]["gate"] = gate
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    trial = Trial(open_comparison(tmp_path))
    lines = make_lines(a_table(), trial)
    assert line_of(lines, "dual").agreement == NO_RANKING
    assert not any(line.bold for line in lines)
    assert "Inconclusive, no ranking" in to_markdown(the_table(a_table(), trial))


def test_bold_is_by_significance_among_the_arms_of_the_table_alone(tmp_path):
    arms = [FakeArm(LVSM, "fill", 17, 1.0, 20, 8), FakeArm(DUAL, "fill", 18, 1.0, 20, 8)]
    arms.append(FakeArm("best", "fill", 25, 1.0, 20, 8))
    trial = Trial(open_comparison(FakeStore(arms=tuple(arms), noise=0.05).write(tmp_path)))
    made = the_table(a_table(), trial)
    shown = {row["row"]: row["bold"] for row in rows_of(made) if row["measure"] == "PSNR (dB)"}
    assert shown == {"theirs alone": "", "LVSM": "0", "dual": "1"}
    (markdown,) = [line for line in to_markdown(made).splitlines() if line.startswith("| dual | PSNR")]
    assert "| **" in markdown
    (latex,) = [line for line in to_latex(made).splitlines() if line.startswith("dual & PSNR")]
    assert r" & \textbf{" in latex
    assert r"\textbf" not in "".join(line for line in to_latex(made).splitlines() if line.startswith("LVSM & PSNR"))


def test_latex_has_a_rule_between_measures_and_hides_what_is_for_the_csv(tmp_path):
    made = the_table(a_table(), a_trial(tmp_path))
    body = to_latex(made).split(r"\midrule")
    assert len(body) == 3  # below the headings, and between PSNR and LPIPS
    assert "[README] another" not in body[1]
    assert "[README] another" in rows_of(made)[0]["source"]
    assert "llllrrrrrrr}" in body[0]


def test_a_row_without_an_arm_of_ours_stands_there_with_a_dash(tmp_path):
    line = line_of(make_lines(a_table(), a_trial(tmp_path)), "theirs alone")
    assert (line.published, line.published_difference, line.ours, line.agreement) == (30.5, 0.83, None, "")


def test_an_arm_that_the_result_lacks_is_a_dash_and_is_named(tmp_path):
    table = a_table([*ROWS, {"label": "more", "arm": "not-there", "values": {"PSNR": 31.0}}])
    made = the_table(table, a_trial(tmp_path))
    (row,) = [row for row in rows_of(made) if row["row"] == "more"]
    assert (row["published"], row["ours"], row["agreement"]) == ("31.0", "", "")
    assert "Arms that this result lacks: not-there." in to_markdown(made)


def test_without_a_comparison_what_is_published_stands_alone_with_the_command():
    made = the_table(a_table(), None)
    assert [row["published"] for row in rows_of(made)] == ["30.5", "29.67", "28.93", "0.098", "0.102"]
    assert not any(row["ours"] for row in rows_of(made))
    assert "`isochron run nvs` makes one" in " ".join(made.notes)


def test_a_difference_alone_and_a_reference_of_its_own(tmp_path):
    rows = [ROWS[1], {"label": "plain", "arm": LVSM}, {"label": "dual", "arm": DUAL, "against": "plain", "differences": {"PSNR": 0.16}}]  # fmt: skip
    lines = make_lines(a_table(rows), a_trial(tmp_path))
    line = line_of(lines, "dual")
    assert (line.published, line.published_difference, line.agreement) == (None, 0.16, SAME)
    assert line_of(lines, "plain").published is None  # ours alone stands there, as it was published without a number


def test_predictors_that_learn_nothing_have_no_interval_over_seeds(tmp_path):
    rows = [
        {"label": "LVSM", "baseline": "nearest-view", "values": {"PSNR": 12.0}},
        {"label": "mean", "baseline": "mean-colour", "values": {"PSNR": 10.0}},
        {"label": "dual", "arm": DUAL, "values": {"PSNR": 20.0}},
    ]
    lines = make_lines(a_table(rows), a_trial(tmp_path))
    mean, dual = line_of(lines, "mean"), line_of(lines, "dual")
    around = 0.8 * np.mean([np.sin(index) for index in range(len(SAMPLES))])
    assert mean.ours is not None
    assert mean.ours.interval is None
    assert mean.ours.value == pytest.approx(10.4 + around)
    assert mean.difference is not None
    assert mean.difference.interval is None
    assert mean.agreement == NO_INTERVAL
    assert dual.difference is not None
    assert dual.difference.interval is not None
    assert dual.agreement == SAME


def test_several_published_runs_count_by_their_mean_and_are_shown(tmp_path):
    rows = [{**ROWS[1], "values": {"PSNR": [78.6, 77.3]}}, {**ROWS[2], "values": {"PSNR": [39.2, 32.4]}}]
    made = the_table(a_table(rows), a_trial(tmp_path))
    assert rows_of(made)[1]["published_difference"] == "-42.15"
    assert "| 39.20, 32.40 | -42.15 |" in to_markdown(made)


def test_ours_is_told_in_the_published_unit(tmp_path):
    measures = [{"column": "accuracy", "unit": "%", "digits": 1, "ours": "ssim", "factor": 100}]
    rows = [{**ROWS[1], "values": {"accuracy": 83.0}}, {**ROWS[2], "values": {"accuracy": 83.3}}]
    trial = a_trial(tmp_path)
    line = line_of(make_lines(a_table(rows, measures=measures), trial), "dual", "accuracy")
    assert line.ours is not None
    assert line.ours.value == pytest.approx(100 * np.mean(list(trial.summary.arms[1].finals["ssim"].values())))
    assert line.digits == 1


def test_flagged_and_lost_runs_and_failed_checks_are_told(tmp_path):
    trial = a_trial(
        tmp_path,
        flags={(f"{DUAL}.fill", 2): ["sentinel drift 7.1 %"]},
        statuses={(f"{DUAL}.fill", 1): "diverged"},
    )
    made = the_table(a_table(), trial)
    (row,) = [row for row in rows_of(made) if (row["row"], row["measure"]) == ("dual", "PSNR (dB)")]
    assert (row["seeds"], row["flagged"]) == ("2/3", "2")
    notes = " ".join(made.notes)
    assert f"Runs that contribute no number: {DUAL}, seed 1: diverged." in notes
    (tmp_path / "sentinel.jsonl").write_text(
        "".join(json.dumps({"time": i, "block": 0, "when": "start", "rate": rate}) + "\n" for i, rate in enumerate((100, 60)))
    )  # fmt: skip
    notes = " ".join(the_table(a_table(), Trial(open_comparison(tmp_path))).notes)
    assert "Fairness checks that failed: sentinel drift" in notes


def test_the_caption_states_the_conventions_of_both(tmp_path):
    notes = " ".join(the_table(a_table(), a_trial(tmp_path)).notes)
    for told in (
        "Theirs, data: RealEstate10K. Training: three days.",
        "Ours, PSNR (dB): per image, range [0, 1].",
        "Absolute numbers are not comparable",
        "nvs (preset tiny) on rendered scenes, batch policy fill; 25 s charged a run, 3 seeds",
        "cpu: Fake 2-core CPU, 2 cores, 1 thread",
    ):
        assert told in notes


def test_an_unknown_metric_is_named(tmp_path):
    measures = [{"column": "PSNR", "unit": "dB", "digits": 2, "ours": "psrn"}]
    with pytest.raises(UserError, match=r"a-table: measures: 'psrn' is no metric of .*; it has: psnr, ssim, st_lpips"):
        make_lines(a_table([{**row, "values": {}} for row in ROWS], measures=measures), a_trial(tmp_path))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """`nvs` at two presets and with more seeds, an unfinished one, and another comparison: what a folder of results holds."""
    folder = tmp_path_factory.mktemp("results") / "results"
    arms = (FakeArm(LVSM, "fill", 17.0, 1.0, 20, 8), FakeArm(DUAL, "fill", 18.0, 1.0, 20, 8))
    for where, changes in {
        "cpu-2core/nvs-tiny": {},
        "cpu-2core/nvs-small": {"comparison": {"preset": "small"}, "budget_s": 60.0},
        "h200/nvs-small": {"comparison": {"preset": "small"}, "seeds": (0, 1, 2, 3)},
        "h200/nvs-paper": {"comparison": {"preset": "paper"}, "status": "running"},
    }.items():
        FakeStore(**{"arms": arms, **changes}).write(folder / where)
    return folder


def test_the_largest_preset_counts_then_most_seeds_and_the_rest_is_named(results):
    tables = render_trained([results])
    told = tables["tables.md"].split("## RealEstate10K, 512 px")[1].split("\n## ")[0]
    assert "nvs (preset small)" in told
    assert "4 seeds, on cpu: Fake 2-core CPU, 2 cores, 1 thread; h200/nvs-small." in told
    assert "Left out: cpu-2core/nvs-small (small, 60 s, 3 seeds), cpu-2core/nvs-tiny (tiny, 25 s, 3 seeds)." in told
    assert "paper" not in told.split("Left out")[1].splitlines()[0]
    row = next(csv.DictReader(io.StringIO(tables["nvs-re10k-512.csv"])))
    assert (row["arm"], row["published"], row["seeds"]) == (LVSM, "29.53", "4/4")
    assert float(row["ours_low"]) < float(row["ours"]) < float(row["ours_high"])


def test_what_is_written_is_the_same_twice_follows_from_the_results_and_says_from_which(results, tmp_path):
    first, second = (write_trained([results], tmp_path / name) for name in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.suffix for path in first} == {".md", ".tex", ".csv", ".png", ".pdf"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert verify(tmp_path / "first").problems == []
    (tmp_path / "first" / "nvs-re10k-512.csv").write_text("changed")
    (tmp_path / "first" / "not-set.tex").unlink()
    problems = " ".join(map(str, verify(tmp_path / "first").problems))
    assert "nvs-re10k-512.csv" in problems
    assert "not-set.tex" in problems


def test_figures_show_what_has_both_differences_in_one_unit_and_carry_no_date(tmp_path):
    table, trial = a_table(), a_trial(tmp_path / "store")
    lines = make_lines(table, trial)
    assert [(line.row.label, line.measure.column) for line in comparable_lines(lines)] == [("dual", "PSNR")]
    assert write_figures({"empty": [(table, make_lines(table, None))]}, tmp_path) == []
    with plots.style():
        (ax,) = draw([(table, comparable_lines(lines))]).axes
    assert ax.get_xlabel() == "PSNR, difference (dB)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dual"]
    drawn = sorted(float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() in ("o", "D"))
    (line,) = comparable_lines(lines)
    assert line.difference is not None
    assert drawn == pytest.approx(sorted([-0.74, line.difference.value]))
    pdf = next(path for path in write_figures({"nvs": [(table, lines)]}, tmp_path) if path.suffix == ".pdf")
    assert b"CreationDate" not in pdf.read_bytes()


def test_no_comparison_among_the_folders_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        render_trained([tmp_path])
    with pytest.raises(UserError, match="holds no"):
        find_results([tmp_path])
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "efficiency.json").write_text("{}")
    with pytest.raises(UserError, match=r"hold no comparison\.json; give comparisons"):
        render_trained([tmp_path])


def test_results_are_told_apart_and_points_of_curves_are_part_of_them(results, tmp_path):
    for name in ("scaling.json", "points/a/comparison.json", "costs/efficiency.json"):
        (tmp_path / "curves" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "curves" / name).write_text("{}")
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "efficiency.json").write_text("{}")
    found = find_results([results, tmp_path])
    assert found.scaling == (tmp_path / "curves",)
    assert found.efficiency == (tmp_path / "measured",)
    assert {folder.relative_to(results).as_posix() for folder in found.comparisons} == {
        "cpu-2core/nvs-small", "cpu-2core/nvs-tiny", "h200/nvs-paper", "h200/nvs-small",
    }  # fmt: skip


def test_all_tables_of_given_results_go_where_they_are_asked_to(results, tmp_path):
    assert write_all([results / "cpu-2core" / "nvs-tiny"], tmp_path / "out") == [tmp_path / "out"]
    assert (tmp_path / "out" / "derived.json").is_file()
    assert (tmp_path / "out" / "tables.md").is_file()


# ------------------------------------------------------------------------------------------------------ what is shipped

TABLES = [table for tables in read_tables().values() for table in tables]


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return {claim.id: claim for claim in read_claims()}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_shipped_tables_name_arms_metrics_and_baselines_that_exist(table):
    shipped = {preset: config.load(table.comparison, preset=preset) for preset in ("tiny", "small", "paper")}
    arms = {preset: {arm.name for arm in made.arms} for preset, made in shipped.items()}
    for row in table.rows:
        assert not row.arm or any(row.arm in names for names in arms.values()), row.label
    reference = next((row for row in table.rows if row.label == table.reference), None)
    assert reference is None or not reference.arm or all(reference.arm in names for names in arms.values())
    assert not table.policy or table.policy in shipped["tiny"].batch
    result = open_comparison(PUBLISHED / f"{table.comparison}-tiny")
    metrics = {metric.name for metric in result.metrics}
    assert {measure.ours for measure in table.measures if measure.ours} <= metrics
    assert {row.baseline for row in table.rows if row.baseline} <= {entry.name for entry in result.learn_nothing}


QUOTED_BY_CLAIMS = {
    "nvs-re10k-lvsm": ("nvs-re10k-256", "LVSM decoder-only", "PSNR"),
    "nvs-re10k-encoder-decoder": ("nvs-re10k-256", "LVSM encoder-decoder", "PSNR"),
    "nvs-re10k-efficient": ("nvs-re10k-256", "Efficient-LVSM", "PSNR"),
    "nvs-re10k-512": ("nvs-re10k-512", "Efficient-LVSM", "PSNR"),
    "nvs-objects": ("nvs-objects", "Efficient-LVSM", "ABO, 512 px"),
    "nvs-self-cross": ("nvs-blocks", "cross-attention alone (12)", "PSNR"),
    "nvs-co-refinement": ("nvs-input-update", "all first, the last layer read", "PSNR"),
    "nvs-repa-efficient": ("nvs-repa", "Efficient-LVSM with REPA", "PSNR"),
    "nvs-repa-lvsm": ("nvs-repa", "LVSM with REPA", "PSNR"),
    "mae-linear-probe": ("mae-linear-probe", "CrossMAE", "linear probe, ViT-B"),
    "mae-psnr-all": ("mae-reconstruction", "CrossMAE, all masked patches predicted", "masked PSNR"),
    "vos-topk-quality": ("vos-topk", "top-K", "J&F at 60 s"),
    "tracking-accuracy": ("tracking-benchmarks", "MixCvT(-L)", "AO, GOT-10k"),
    "openvocab-unseen": ("ovseg-seen-unseen", "feature, CLIP tuned", "mIoU, unseen"),
    "openvocab-decoder": ("ovseg-decoder", "without it", "mIoU, A-847"),
}
QUOTED_BY_EFFICIENCY = {
    ("openvocab", "volume-accuracy"): ("ovseg-volume", {
        "feature A-847": ("feature aggregation", "mIoU, A-847"), "feature PC-459": ("feature aggregation", "mIoU, PC-459"),
        "cost A-847": ("cost aggregation", "mIoU, A-847"), "cost PC-459": ("cost aggregation", "mIoU, PC-459"),
    }),
    ("openvocab", "seen-unseen"): ("ovseg-seen-unseen", {
        f"{volume} {classes} {clip}": (f"{volume}, CLIP {clip}", f"mIoU, {classes}")
        for volume in ("cost", "feature") for classes in ("seen", "unseen") for clip in ("tuned", "frozen")
    }),
    ("openvocab", "decoder-accuracy"): ("ovseg-decoder", {
        "without A-847": ("without it", "mIoU, A-847"), "without PC-459": ("without it", "mIoU, PC-459"),
        "with A-847": ("with the decoder", "mIoU, A-847"), "with PC-459": ("with the decoder", "mIoU, PC-459"),
    }),
    ("openvocab", "parts-accuracy"): ("ovseg-parts", {
        "none A-847": ("none of them", "mIoU, A-847"), "none PC-459": ("none of them", "mIoU, PC-459"),
        "all A-847": ("space, classes and guidance", "mIoU, A-847"),
        "all PC-459": ("space, classes and guidance", "mIoU, PC-459"),
    }),
    ("openvocab", "metric-versions"): ("ovseg-definitions", {
        "miou-gt": ("CAT-Seg", "mIoU, classes in the ground truth"), "miou-union": ("CAT-Seg", "mIoU, classes in either"),
    }),
    ("vos", "mivos-topk"): ("vos-topk", {
        "AUC, dense": ("dense", "AUC"), "AUC, top-K": ("top-K", "AUC"),
        "J&F@60s, dense": ("dense", "J&F at 60 s"), "J&F@60s, top-K": ("top-K", "J&F at 60 s"),
    }),
    ("masked-image", "accuracy"): ("mae-decoder", {
        "vit-b/mae-8": ("MAE (self-attention)", "fine-tuned accuracy"),
        "vit-b/crossmae-12": ("CrossMAE, cross-attention alone", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps": ("CrossMAE, 12 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps-p25": ("CrossMAE, 25 % of the patches predicted", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps-p15": ("CrossMAE, 15 % of the patches predicted", "fine-tuned accuracy"),
        "vit-b/crossmae-8-maps": ("CrossMAE, 8 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-4-maps": ("CrossMAE, 4 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-1-maps": ("CrossMAE, 1 block", "fine-tuned accuracy"),
    }),
    ("tracking", "accuracy"): ("tracking-benchmarks", {
        f"{tracker} {theirs}": (row, column)
        for tracker, row in (("MixCvT(-L)", "MixCvT(-L)"), ("MixViT-L", "MixViT-L"))
        for theirs, column in (("VOT2020", "EAO, VOT2020"), ("LaSOT", "norm. precision, LaSOT"),
                               ("GOT-10k", "AO, GOT-10k"), ("TrackingNet", "norm. precision, TrackingNet"))
    }),
}  # fmt: skip


def quoted(name: str, label: str, column: str) -> tuple[float | None, float | None, float]:
    """Published value, published difference, and the factor of ours, of a shipped table."""
    (table,) = [table for table in TABLES if table.name == name]
    (row,) = [row for row in table.rows if row.label == label]
    (measure,) = [measure for measure in table.measures if measure.column == column]
    return row.value(measure), table.published_difference(row, measure), measure.factor


@pytest.mark.parametrize("claim_id", QUOTED_BY_CLAIMS)
def test_numbers_that_claims_quote_too_are_the_same(claims, claim_id):
    claim = claims[claim_id]
    value, difference, factor = quoted(*QUOTED_BY_CLAIMS[claim_id])
    theirs = difference if isinstance(claim.measure, Paired) else value
    assert claim.value is not None
    assert theirs == pytest.approx(claim.value * factor, abs=1e-9)


@pytest.mark.parametrize(("task", "entry"), QUOTED_BY_EFFICIENCY)
def test_numbers_that_efficiency_tables_quote_too_are_the_same(task, entry):
    name, keys = QUOTED_BY_EFFICIENCY[task, entry]
    values = read_published(task)[entry].values
    for key, (label, column) in keys.items():
        assert quoted(name, label, column)[0] == values[key], key


def test_what_is_not_set_names_claims_and_commands_that_are_understood(claims):
    for entry in read_not_set():
        assert not entry.claim or entry.claim in claims, entry.table
        assert not (entry.claim and entry.commands), entry.table
        for command in entry.commands:
            assert understand(command).comparison is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "a blog"}, "source"),
        ({"reference": "nobody"}, "reference: 'nobody' is no row"),
        ({"rows": [*ROWS, ROWS[0]]}, "two have the same label"),
        ({"rows": [{**ROWS[1], "values": {"SSIM": 0.9}}]}, "'SSIM' is no column"),
        ({"rows": [{**ROWS[1], "uncertainty": {"SSIM": 0.9}}]}, "'SSIM' is no column"),
        ({"rows": [{**ROWS[1], "against": "nobody"}]}, "'nobody' is no row"),
        ({"rows": [{**ROWS[1], "baseline": "nearest-view"}]}, "an arm or a baseline, not both"),
        ({"rows": [{"label": "LVSM", "values": {"PSNR": 1.0}}]}, "none has an arm of ours"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_table_is_one_line_that_names_file_entry_and_field(tmp_path, change, said):
    for family in FAMILIES:
        (tmp_path / f"{family}.yaml").write_text("[]")
    entry = {**a_table().model_dump(mode="json"), **change}
    (tmp_path / "vos.yaml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(UserError, match=r"vos\.yaml: entry 1: ") as caught:
        read_tables(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_documentation_is_a_table():
    page = (FOLDER.parents[2] / "docs" / "paper-tables.md").read_text(encoding="utf-8")
    (entry,) = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    table = PublishedTable.model_validate(entry)
    assert table.published_difference(table.rows[1], table.measures[0]) == -2.07


def test_a_name_that_is_taken_and_a_file_that_is_gone_are_told(tmp_path):
    for family in FAMILIES:
        (tmp_path / f"{family}.yaml").write_text("[]")
    (tmp_path / "vos.yaml").write_text(yaml.safe_dump([a_table().model_dump(mode="json")] * 2))
    with pytest.raises(UserError, match="the name 'a-table' is taken twice"):
        read_tables(tmp_path)
    with pytest.raises(UserError, match=rf"{NOT_SET}: cannot be read"):
        read_not_set(tmp_path)
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*FAMILIES, Path(NOT_SET).stem}
