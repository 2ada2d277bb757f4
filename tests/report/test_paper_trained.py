"""Published tables beside trained comparisons: from made-up results whose truth is known, what is set and what is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import stats
from bench.errors import UserError
from bench.report.claims.folders import Trial
from bench.report.paper.layout import to_latex, to_markdown
from bench.report.paper.trained.lines import (
    NO_INTERVAL,
    NO_RANKING,
    OPEN,
    OPPOSITE,
    SAME,
    TIE,
    UNCLEAR,
    make_lines,
)
from bench.report.paper.trained.tables import agreement_counts
from bench.store.read import open_comparison
from tests.report.fake_store import SAMPLES, FakeArm, FakeStore
from tests.report.published_tables import DUAL, LVSM, ROWS, a_table, a_trial, line_of, rows_of, the_table


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
