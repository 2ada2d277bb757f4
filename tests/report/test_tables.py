import csv
import io
import itertools
import json
import math
import statistics

import numpy as np
import pytest

from bench.errors import UserError
from bench.report import plots, tables
from bench.report.sections import Section
from bench.report.summary import summarise
from bench.report.text import escape_latex, escape_markdown, fixed, probability, significant
from bench.store.read import open_comparison
from tests.report.fake_store import ARMS, METRICS, FakeArm, FakeStore


def section(table: tables.Table, title: str) -> Section:
    return next(section for section in table.sections if section.title.startswith(title))


def column(table: tables.Table, title: str, heading: str) -> list[str]:
    found = section(table, title)
    index = next(i for i, name in enumerate(found.headings) if name.startswith(heading))
    return [row[index].text for row in found.rows]


def test_quality_is_recomputed_from_the_records_not_from_stored_means(full):
    table = tables.build(full)
    runs = [run for run in full.runs if run.arm.name == "efficient-lvsm.knee"]
    means = [np.mean([record["psnr"] for record in run.result.records]) for run in runs]
    row = next(row for row in table.rows if (row["label"], row["policy"]) == ("efficient-lvsm", "knee"))
    assert row["psnr"] == pytest.approx(np.mean(means))
    half = 4.302652729911275 * np.std(means, ddof=1) / math.sqrt(3)
    assert (row["psnr_low"], row["psnr_high"]) == pytest.approx((np.mean(means) - half, np.mean(means) + half))
    assert all(run.facts.final == {} for run in runs)


def test_the_best_arm_is_bold_and_the_worse_ones_are_not(full):
    quality = section(tables.build(full), "Quality")
    psnr = quality.headings.index("PSNR (dB) ↑")
    assert [row[psnr].bold for row in quality.rows] == [False, False, False, True, False, False, False]


def test_a_metric_may_be_a_median_over_the_samples(make_store):
    task = {"name": "nvs", "options": {}, "metrics": [METRICS[0], {**METRICS[1], "aggregate": "median"}]}
    comparison = make_store(comparison={"task": task})
    finished = next(run for run in comparison.runs if run.finished)
    values = sorted(record["ssim"] for record in finished.result.records)
    table = tables.build(comparison)
    arm = next(arm for arm in summarise(comparison).arms if arm.arm.name == finished.arm.name)
    assert (
        arm.finals["ssim"][finished.seed]
        == pytest.approx((values[7] + values[8]) / 2)
        != pytest.approx(sum(values) / 16)
    )
    nearest = comparison.learn_nothing[0]
    assert nearest.value(comparison.metrics[1]) == pytest.approx(statistics.median(r["ssim"] for r in nearest.records))
    assert tables.to_markdown(table)


def test_a_metric_without_a_better_side_is_never_bold_and_never_better(make_store):
    metrics = [METRICS[0], {**METRICS[1], "higher_is_better": None}]
    comparison = make_store(comparison={"task": {"name": "nvs", "options": {}, "metrics": metrics}})
    table = tables.build(comparison)
    quality = section(table, "Quality")
    assert quality.headings[2:] == ("PSNR (dB) ↑", "SSIM", "seeds finished")
    assert any(row[2].bold for row in quality.rows)
    assert not any(row[3].bold for row in quality.rows)
    paired = section(table, "Paired")
    assert {row[4].text for row in paired.rows if row[2].text == "SSIM"} == {"–"}
    with pytest.raises(UserError, match="has no better side"):
        make_store(comparison={"task": {"name": "nvs", "options": {}, "metrics": metrics[::-1]}})


def test_metrics_of_a_group_stand_in_a_table_of_their_own(make_store):
    metrics = [METRICS[0], *({**metric, "group": "perception"} for metric in METRICS[1:])]
    table = tables.build(make_store(comparison={"task": {"name": "nvs", "options": {}, "metrics": metrics}}))
    first, second, *others = table.sections
    assert (first.title, second.title) == (
        "Quality at the end of the budget",
        "Quality at the end of the budget: perception",
    )
    assert first.headings[2:] == ("PSNR (dB) ↑", "seeds finished")
    assert second.headings[2:] == ("SSIM ↑", "ST-LPIPS ↓", "seeds finished")
    assert len(first.rows) == len(second.rows)
    assert not any(section.title.startswith("Quality") for section in others)


def test_baselines_that_learn_nothing_stand_apart(full):
    table = tables.build(full)
    quality = section(table, "Quality")
    assert quality.rule_before == 4
    assert [row[0].text for row in quality.rows[4:]] == [
        "mean colour (learns nothing)",
        "nearest view (learns nothing)",
        "depth warp (learns nothing)",
    ]
    assert len(section(table, "Cost").rows) == 4


def test_inference_may_be_told_in_frames_of_a_sample(make_store):
    comparison = make_store()
    for path in comparison.folder.glob("arms/*.json"):
        record = json.loads(path.read_text())
        record["inference"] |= {"unit": "frames", "units_per_sample": 10}
        path.write_text(json.dumps(record))
    table = tables.build(open_comparison(comparison.folder))
    assert column(table, "Cost", "frames/s inference")[0] == "5,125 [4,980, 5,302]"
    assert column(table, "Cost", "ms/frame")[0] == "1.56 [1.51, 1.62]"
    assert (table.rows[0]["inference_unit"], table.rows[0]["inference_units_per_sample"]) == ("frames", 10)
    with plots.style():
        (axes,) = plots.draw_front(summarise(open_comparison(comparison.folder))).axes
    assert axes.get_xlabel() == "latency at inference (ms a frame)"


def test_cost_cells(full):
    table = tables.build(full)
    assert column(table, "Cost", "parameters")[0] == "1,062,656"
    assert column(table, "Cost", "GFLOP/sample (fwd)") == ["2.00", "1.60", "2.00", "1.60"]
    assert column(table, "Cost", "memory") == ["93.0 %", "93.0 %", "21.0 %", "21.0 %"]
    assert column(table, "Cost", "samples/s inference")[0] == "512 [498, 530]"
    assert column(table, "Cost", "learning rate") == ["0.00098", "0.00113", "0.0004", "0.0004"]
    assert column(table, "Cost", "latency")[0] == "15.6 [15.1, 16.2]"
    assert column(table, "Cost", "memory at inference")[0] == "28.6 MiB"
    assert (table.rows[0]["learning_rate_peak"], table.rows[2]["learning_rate_peak"]) == (4e-4 * math.sqrt(6), 4e-4)
    assert (table.rows[0]["latency_ms"], table.rows[0]["latency_ms_low"]) == (15.6, 15.1)
    assert table.rows[0]["inference_peak_bytes"] == 3e7
    assert column(table, "Cost", "steps") [1] == "119 (118, 119, 120)"  # fmt: skip
    assert float(column(table, "Cost", "samples/s training")[1].split()[0]) == pytest.approx(64 * 118 / 25, rel=0.03)


def test_a_folder_that_says_less_shows_dashes(make_store):
    comparison = make_store()
    for arm in comparison.arms:
        path = comparison.folder / "arms" / f"{arm.name}.json"
        content = json.loads(path.read_text())
        del content["learning_rate"], content["inference"]["latency_ms"]
        content["inference"]["peak_bytes"] = None
        path.write_text(json.dumps(content))
    table = tables.build(comparison)
    assert column(table, "Cost", "learning rate") == column(table, "Cost", "latency") == ["–"] * 4
    assert "memory at inference" not in section(table, "Cost").headings


def test_the_caption_says_how_the_arms_were_set(make_store):
    other = {"gradient_clip": 0.5, "ema_half_life": 0.1}
    caption = tables.build(make_store(training={"efficient-lvsm": other})).caption
    assert [line for line in caption if line.startswith(("Peak", "Training", "Options"))] == [
        "Peak learning rate, all arms: 0.0004 at batch 8, times the square root of optimizer batch / 8.",
        "Training, all arms: optimizer adamw, betas (0.9, 0.95), weight decay 0.05, precision fp32, compile off, "
        "charge compilation off.",
        "Training, lvsm-decoder-only: gradient clip 1, ema half life not set.",
        "Training, efficient-lvsm: gradient clip 0.5, ema half life 0.1.",
        "Options, lvsm-decoder-only: width 128, gradient checkpointing off.",
        "Options, efficient-lvsm: width 128, gradient checkpointing off.",
    ]


def test_other_base_rates_are_told_arm_by_arm(make_store):
    comparison = make_store()
    path = comparison.folder / "arms" / f"{ARMS[1].name}.json"
    path.write_text(
        path.read_text().replace('"base": 0.0004', '"base": 0.002').replace('"rule": "sqrt"', '"rule": "none"')
    )
    caption = tables.build(comparison).caption
    assert "Peak learning rate, efficient-lvsm (fill): 0.002 at batch 8, whatever the batch." in caption
    assert sum(line.startswith("Peak learning rate") for line in caption) == 3  # the other arm's policies agree


def test_many_weights_of_an_arms_own_are_told_by_the_modules_they_belong_to(make_store):
    def arm(fake, fresh):
        part = {"name": "pretraining of towers", "sha256": "a", "seconds": 151.0, "fresh": fresh}
        return {
            "name": fake.name,
            "label": fake.label,
            "policy": fake.policy,
            "pretrained": True,
            "pretrained_parts": [part],
        }

    many = [*(f"aggregator.layers.{number}.weight" for number in range(97)), "head.bias"]
    arms = [arm(ARMS[0], ["a.scale", "b.scale"]), arm(ARMS[1], many)]
    text = tables.to_markdown(tables.build(make_store(arms=ARMS[:2], comparison={"arms": arms})))
    assert "(151 s, charged to none): lvsm-decoder-only (of its own: a.scale, b.scale), " in text
    assert "efficient-lvsm (of its own: 97 in aggregator, 1 in head)." in text


def test_allocator_retries_need_a_word(make_store):
    comparison = make_store(flags={(ARMS[0].name, 1): ["sentinel drift 7.1 %"]})
    for seed, retries in ((0, 0), (1, 1), (2, 3)):
        path = comparison.folder / "runs" / ARMS[0].name / f"seed-{seed}" / "run.json"
        content = json.loads(path.read_text()) | {"peak_bytes": 2**30, "alloc_retries": retries}
        path.write_text(json.dumps(content))
    assert tables.build(open_comparison(comparison.folder)).run_notes == (
        "lvsm-decoder-only (fill), seed 1: flagged: sentinel drift 7.1 %; the memory allocator flushed and retried once, "
        "which slows steps down.",
        "lvsm-decoder-only (fill), seed 2: the memory allocator flushed and retried 3 times, which slows steps down.",
    )


def test_who_won_stands_first(full):
    table = tables.build(full)
    fill, knee = table.verdicts
    assert fill.startswith("At fill: ")
    assert knee.startswith("At knee: efficient-lvsm is better by 0.")
    assert knee.endswith("] than lvsm-decoder-only (3 seeds).")
    lines = [line for line in tables.to_markdown(table).splitlines() if line]
    assert lines[:2] == ["# nvs (tiny)", "PSNR (dB) at the end of the budget, paired by seed:"]
    assert [line[:10] for line in lines[2:4]] == ["- At fill:", "- At knee:"]
    assert lines[4] == "## Quality at the end of the budget"
    assert "At knee: efficient-lvsm is better" in tables.to_latex(table)


def test_without_two_arms_there_is_no_verdict(make_store):
    table = tables.build(make_store(arms=ARMS[:1]))
    assert table.verdicts == ()
    assert tables.to_markdown(table).startswith("# nvs (tiny)\n\n## Quality")


def test_few_steps_are_said(make_store):
    slow = FakeArm("slow", "fill", 15.0, 0.05, steps=30, batch=64)
    table = tables.build(make_store(arms=(ARMS[0], slow)))
    assert column(table, "Cost", "steps")[1] == "31 (30, 31, 32), fewer than 50 in seed 0, 1, 2"


def test_paired_differences_and_verdicts(full):
    paired = section(tables.build(full), "Paired")
    assert len(paired.rows) == 2 * 3  # policies x metrics
    worse, better = paired.sentences
    assert better.startswith("knee: efficient-lvsm overtakes lvsm-decoder-only at 1")
    assert worse.startswith("fill: ")
    row = next(row for row in tables.build(full).rows if (row["label"], row["policy"]) == ("efficient-lvsm", "knee"))
    assert row["st_lpips_difference"] < 0 < row["psnr_difference"]
    assert row["st_lpips_p_better"] == pytest.approx(row["psnr_p_better"])  # a linear function of each other
    assert row["leads_at_end"] == "efficient-lvsm"
    assert row["leads_since_s_low"] <= row["leads_since_s"] <= row["leads_since_s_high"]


def test_no_difference_is_told_as_such(make_store):
    twins = (FakeArm("a", "fill", 17.0, 0.1, 100, 8), FakeArm("b", "fill", 17.0, 0.1, 100, 8))
    (sentence,) = tables.build(make_store(arms=twins, reference="a", noise=0.4)).verdicts
    assert sentence.startswith("At fill: no difference that 3 seeds can show between b and a: ")
    assert "needs at least" in sentence


def test_one_seed_has_no_interval(single):
    table = tables.build(single)
    assert all("(1 seed: no interval)" in text for text in column(table, "Quality", "PSNR")[:4])
    assert column(table, "Paired", "P(better)") == ["–"] * 6
    assert column(table, "Paired", "MDE") == ["–"] * 6
    assert "1 seed has no interval: no verdict" in table.verdicts[0]
    assert all(row["psnr_low"] is None and row["psnr_bold"] in (0, None) for row in table.rows)


def test_runs_in_trouble_are_named_and_contribute_nothing(trouble):
    table = tables.build(trouble)
    assert table.banner == ""  # every run has ended
    assert column(table, "Quality", "seeds")[:4] == [
        "2/3 (seed 2 out-of-memory)",
        "2/3 (seed 1 diverged)",
        "3/3",
        "3/3 (seed 2 flagged)",
    ]
    assert column(table, "Paired", "pairs")[0] == "1"  # only seed 0 finished on both sides
    assert table.run_notes == (
        "lvsm-decoder-only (fill), seed 2: out-of-memory; it contributes no number.",
        "efficient-lvsm (fill), seed 1: diverged (non-finite loss at step 32); it contributes no number.",
        "efficient-lvsm (knee), seed 2: flagged: sentinel drift 7.1 %.",
    )
    row = table.rows[1]
    assert (row["seeds_finished"], row["seeds_total"], row["not_finished"]) == (2, 3, "seed 1: diverged")


def test_an_incomplete_comparison_says_so_first(make_store, tmp_path):
    statuses = {(arm.name, seed): "not started" for arm in ARMS for seed in (1, 2)}
    statuses[(ARMS[0].name, 1)] = "running"
    comparison = make_store(status="running", statuses=statuses)
    markdown = tables.write(comparison, tmp_path / "out")[0].read_text()
    assert markdown.startswith("**incomplete: 4 of 12 runs finished; only those count below**\n")
    assert "1/3 (seed 1 running; seed 2 not started)" in markdown


def test_nothing_finished_is_still_a_table(make_store):
    statuses = {(arm.name, seed): "failed" for arm in ARMS for seed in (0, 1, 2)}
    table = tables.build(make_store(statuses=statuses))
    assert column(table, "Quality", "PSNR")[:4] == ["–"] * 4
    assert "nothing can be compared" in table.verdicts[0]
    assert section(table, "Four views").rows == ()
    assert tables.to_markdown(table)
    assert tables.to_latex(table)


def test_four_views_name_the_winner_and_mark_what_is_not_annealed(full):
    views = section(tables.build(full), "Four views")
    rows = {(row[0].text, row[1].text): [cell.text for cell in row] for row in views.rows}
    assert len(rows) == 8
    assert "†" not in "".join(rows["knee", "equal time"])
    steps = rows["knee", "equal steps"]
    assert "†" not in steps[3]  # the reference made fewer steps: its value is its annealed end
    assert "†" in steps[4]
    assert steps[5].startswith("lvsm-decoder-only by")
    assert rows["knee", "equal time"][5].startswith("efficient-lvsm by")
    assert any("the winner changes with the view" in sentence for sentence in views.sentences)
    assert any("6 test samples that every evaluation scores" in sentence for sentence in views.sentences)


def test_equal_samples_interpolates_on_the_evaluation_points(make_store):
    fast, slow = FakeArm("fast", "fill", 20.0, 0.1, 200, 8), FakeArm("slow", "fill", 20.0, 0.1, 100, 8)
    comparison = make_store(arms=(slow, fast), reference="slow", noise=0.0, seeds=(0,))
    views = section(tables.build(comparison), "Four views")
    row = next(row for row in views.rows if row[1].text == "equal samples")
    assert row[2].text == "800 samples"
    halfway = next(run for run in comparison.runs if run.arm.label == "fast").evaluations[2]
    assert halfway.samples == 800
    assert row[4].text == f"{np.mean([record['psnr'] for record in halfway.records]):.2f} †"


def test_csv_round_trip_is_exact(full, tmp_path):
    table = tables.build(full)
    path = tmp_path / "table.csv"
    path.write_text(tables.to_csv(table))
    assert tables.read_csv(path) == tables.csv_cells(table)
    row = tables.read_csv(path)[3]
    assert float(row["psnr"]) == table.rows[3]["psnr"]
    assert int(row["parameters"]) == 1_258_240
    assert [line["kind"] for line in csv.DictReader(io.StringIO(tables.to_csv(table)))] == ["arm"] * 4 + [
        "learns nothing"
    ] * 3


def test_the_same_folder_gives_the_same_bytes(full, tmp_path):
    first = [path.read_bytes() for path in tables.write(full, tmp_path / "a")]
    second = [path.read_bytes() for path in tables.write(open_comparison(full.folder), tmp_path / "b")]
    assert first == second
    copy = FakeStore().write(tmp_path / "elsewhere")  # the folder's own name must not matter
    assert first == [path.read_bytes() for path in tables.write(open_comparison(copy), tmp_path / "c")]


def test_every_markdown_table_is_rectangular(trouble):
    widths = set()
    lines = tables.to_markdown(tables.build(trouble)).splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert line.count("|") == before.count("|")
            widths.add(line.count("|"))
    assert len(widths) >= 4


def test_latex_is_balanced_and_escaped(make_store):
    odd = FakeArm("50%_net & {co}", "fixed:16", 17.0, 0.1, 100, 8)
    latex = tables.to_latex(tables.build(make_store(arms=(odd,), reference="50%_net & {co}")))
    assert r"50\%\_net \& \{co\} & fixed:16" in latex
    for environment in ("table", "tabular"):
        assert latex.count(rf"\begin{{{environment}}}") == latex.count(rf"\end{{{environment}}}") > 0
    bare = latex.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert bare.isascii()


def test_a_comparison_in_markdown_survives_odd_names(make_store):
    odd = FakeArm("a|b *c*", "fill", 17.0, 0.1, 100, 8)
    assert r"| a\|b \*c\* | fill |" in tables.to_markdown(tables.build(make_store(arms=(odd,), reference="x")))


def test_escapes():
    assert escape_markdown("a < b\n`c`") == r"a \< b \`c\`"
    assert escape_latex("-0.42 [-0.5, +0.1] x-ray ≤ 3 % ~a^b\\c") == (
        r"$-$0.42 [$-$0.5, +0.1] x-ray $\le$ 3 \% \textasciitilde{}a\textasciicircum{}b\textbackslash{}c"
    )


def test_numbers():
    assert [fixed(-0.001, 2), fixed(0.001, 2, signed=True), fixed(1.5, 1, signed=True)] == ["0.00", "0.00", "+1.5"]
    assert [significant(1234.5), significant(0.01234), significant(99.96), significant(None)] == [
        "1,234",
        "0.0123",
        "100",
        "–",
    ]
    assert [probability(0.999), probability(0.94, equals=True), probability(0.001)] == ["> 0.99", "= 0.94", "< 0.01"]


def test_metric_without_values_in_the_records_is_a_dash(make_store):
    comparison = make_store()
    for run in comparison.runs:
        path = run.folder / "evals.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for record in lines[-1]["records"]:
            del record["ssim"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert column(tables.build(comparison), "Quality", "SSIM")[:4] == ["–"] * 4
