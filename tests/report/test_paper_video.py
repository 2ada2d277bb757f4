"""The tables and figures of memory reading and of tracking: claims, ratios and their explanations, from small folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.report import paper
from bench.report.paper import tracking, vos
from bench.report.paper.claims_table import counted
from bench.report.paper.layout import PaperTable
from bench.report.paper.published import read_published
from bench.report.paper.tracking import figures as tracking_figures
from bench.report.paper.tracking import quantities as boxes
from bench.report.paper.tracking import tables as tracking_tables
from bench.report.paper.vos import claims
from bench.report.paper.vos import figures as vos_figures
from bench.report.paper.vos import quantities as reads
from bench.report.plots import style
from bench.store.efficiency import Efficiency
from tests.report.test_paper_masked import a_call, a_count, rows_of, text_of, write_folder

SLOWNESS = {"full": 6.0, "mask": 5.0, "gather": 4.0, "bag": 3.0}
"""Times of top-K over those of fused dense attention."""


def a_group(
    tokens: int, frames: int, calls: list[dict[str, Any]], topk: int = reads.TOPK, **other: int
) -> dict[str, Any]:
    sizes = {"tokens": tokens, "frames": frames, "topk": topk, "blocks": 1, "backward": 0, **other}
    return {"sizes": sizes, "load": 0.5, "calls": calls}


def operations(tokens: int, frames: int) -> list[dict[str, Any]]:
    """Fused dense attention takes 10 ms a frame; usage a tenth more, the matrix three times as long."""
    flops, seconds = 1e9 * frames, 0.01 * frames
    made = [a_call("dense", "full", flops, seconds), a_call("dense", "usage", flops, 1.1 * seconds)]
    made.append(a_call("dense", "eager", flops, 3 * seconds))
    made += [a_call("topk-all", mode, flops, slow * seconds) for mode, slow in SLOWNESS.items()]
    made.append(a_call("shared-subset", "full", flops / 2, 0.6 * seconds))
    made += [a_call("parts", "scores", flops / 2, seconds), a_call("parts", "selection", 0, 2 * seconds)]
    return made


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Efficiency:
    """A machine on which top-K is slow; the published read has three times the FLOPs of the cached one, and their speed."""
    published = read_published("vos")
    counts = []
    for tokens in reads.TOKENS:
        where = {"tokens": tokens, "frames": 0}
        counts += [a_count("dense", where, 42e9, 0) | {"mode": mode} for mode in ("query", "write")]
        for frames in reads.FRAMES:
            where = {"tokens": tokens, "frames": frames}
            cached = published["read-cached"].get(f"{tokens} {frames}") or 500.0
            counts += [a_count(label, where, 1e9 * cached, 0) | {"mode": "read"} for label in reads.DESIGNS]
            counts.append(a_count("dense", where, 3e9 * cached, 0) | {"mode": "recompute"})
    groups = [a_group(tokens, frames, operations(tokens, frames)) for tokens in (144, 576) for frames in (2, 4)]
    by_k = [a_call("dense", "full", 1e9, 0.04), a_call("topk-all", "full", 1e9, 0.08)]
    groups.append(a_group(*reads.SWEPT_AT, by_k, topk=8))
    groups.append(a_group(144, 3, operations(144, 3), topk=16, backward=1))
    whole = [
        a_call("frame dense", "full", 6e11, 7.0), a_call("frame dense", "read", 2e11, 2.0) | {"deviation": 2e-6},
        a_call("frame parts", "query", 4e10, 0.5), a_call("frame dense", "recompute", 6e11, 5.5),
        a_call("frame topk-all", "read", 2e11, 5.0),
    ]  # fmt: skip
    groups.append(a_group(576, 4, whole, blocks=11))
    skipped = {
        "label": "frame dense",
        "mode": "full",
        "flops": 1,
        "skipped": "about 13 s a call foreseen, above the limit",
    }
    groups.append(a_group(576, 8, [skipped, a_call("frame dense", "read", 2e11, 3.0)], blocks=11))
    return write_folder(tmp_path_factory.mktemp("vos") / "made", "vos", counts, groups)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Efficiency:
    """A symmetric tracker gains nothing from kept templates; an asymmetric one a fifth."""
    cost = {"full": 46.4e9, "templates": 9e9, "track": 37.8e9}
    counts, calls = [], []
    for label in ("cvt-21", "cvt-21-symmetric"):
        for mode, flops in cost.items():
            flops = 48e9 if mode == "track" and label.endswith("symmetric") else flops
            counts.append(a_count(label, boxes.sizes(label), flops, 0) | {"mode": mode})
            name = f"{label} templates" if mode == "templates" else label
            call = a_call(name, mode, flops, 0.8 if mode == "track" else flops / 46.4e9)
            calls.append(call | ({"deviation": 1e-7} if mode == "track" else {}))
    groups = [{"sizes": boxes.sizes("cvt-21"), "load": 0.5, "calls": calls}]
    return write_folder(tmp_path_factory.mktemp("tracking") / "made", "tracking", counts, groups)


# ---------------------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(("task", "rules"), [("vos", claims.RULES), ("tracking", tracking_tables.RULES)])
def test_every_published_entry_has_a_verdict_and_every_verdict_an_entry(task: str, rules: Any) -> None:
    assert set(rules) == set(read_published(task))


@pytest.fixture(scope="module")
def made(memory: Efficiency) -> list[PaperTable]:
    return vos.make_tables(memory, read_published("vos"))


def verdicts(tables: list[PaperTable], task: str) -> dict[str, str]:
    rows = rows_of(tables, "claims")
    return dict(zip(read_published(task), (row["tested"] for row in rows), strict=True))


def test_a_claim_is_measured_counted_or_said_why_not(made: list[PaperTable]) -> None:
    said = verdicts(made, "vos")
    assert all(text.startswith(("measured: ", "counted: ", "not testable here: ")) for text in said.values())
    assert said["read-cached"] == "counted: 7 of 7 agree"
    assert said["read-official"].startswith("counted: 0 of 7 agree (144 1: 103.2, not 54.9, ")
    assert (
        said["topk-speed"]
        == "measured: faster than fused dense attention in none of 16 places; top-K buys no speed here"
    )
    assert "2.00 [2.00, 2.00] at K 8 and 6.00 [6.00, 6.00] at K 60" in said["topk-default"]
    assert said["selection"] == (
        "measured: over fused dense attention: scores 1.00 [1.00, 1.00] (theirs 0.99), selection 2.00 [2.00, 2.00] "
        "(theirs 2.10)"
    )
    assert said["cache-bytes"] == "counted: 1 of 1 agree"
    assert said["frame-parts"].endswith("a whole write, from picture to keys and values, is 42 GFLOP")
    for name in ("jointformer-s012", "simvos", "mivos-topk", "joint-topk", "gpu-expected", "operation-blocks"):
        assert said[name].startswith("not testable here: "), name
    assert "learned temperature" in said["mivos-topk"]


def test_published_values_stand_in_the_claim(made: list[PaperTable]) -> None:
    rows = {row["claim"]: row for row in rows_of(made, "claims")}
    mivos = rows["MiVOS without and with top-K"]
    assert (mivos["status"], mivos["published"]) == (
        "README", "AUC, dense 86; AUC, top-K 87.2; J&F@60s, dense 86.6; J&F@60s, top-K 87.8 (percent)"
    )  # fmt: skip
    assert rows["one attention, forward"]["published"] == "63 numbers, 20 to 6,734 ms"


def test_rounding_is_no_disagreement() -> None:
    assert (
        counted({"a": (0.064, 0.06), "b": (None, 1.0), "c": (10.6, 10.0)}) == "counted: 1 of 2 agree (c: 10.60, not 10)"
    )
    assert counted({"a": (None, 1.0)}) == "not testable here: it was not counted"


# ----------------------------------------------------------------------------------------------------------- memory reads


def test_counted_and_published_reads_stand_side_by_side(made: list[PaperTable]) -> None:
    rows = {(row["tokens"], row["frames"]): row for row in rows_of(made, "computation")[: 3 * 4]}
    at_two = rows["576", "2"]
    assert [float(at_two[name]) for name in ("read", "read_run", "recompute_run")] == [165.5, 165.5, 329.9]
    assert float(at_two["saving"]) == pytest.approx(3.0)
    assert float(at_two["share"]) == pytest.approx(13.5, abs=0.1)
    assert float(at_two["bound"]) == pytest.approx(1.16, abs=0.005)
    sizes = {(row["tokens"], row["frames"]): row for row in rows_of(made, "designs")}
    assert float(sizes["576", "1"]["cache"]) == pytest.approx(38.9, abs=0.1)
    assert float(sizes["576", "4"]["matrix"]) == pytest.approx(79.6, abs=0.1)


def test_a_ratio_stands_beside_flops_and_the_published_run(made: list[PaperTable]) -> None:
    rows = {(row["tokens"], row["frames"], row["method"]): row for row in rows_of(made, "operation")}
    scatter = rows["576", "4", "top-K of all, scattered"]
    assert [float(scatter[name]) for name in ("here", "here_low", "here_high", "flops")] == pytest.approx([6, 6, 6, 1])
    assert float(scatter["run"]) == pytest.approx(409 / 69)
    assert rows["576", "4", "blocks of keys, FlexAttention"]["here"] == ""
    note = text_of(made, "operation")
    assert (
        "Top-K of all, scattered: 6.00 (144 tokens, 2 frames) to 6.00 (576 tokens, 4 frames) times fused dense attention "
        "measured, above the 1.00 by FLOPs: search, zeros and scatter are no FLOPs." in note
    )
    assert "the search for the largest of them alone 2.00 [2.00, 2.00] times the whole of fused dense attention" in note
    assert "Top-K is faster than fused dense attention in none of 16 places: there is no crossover here." in note
    assert "ratios of the published run that were measured here" in note


def test_a_crossover_that_is_found_is_said(memory: Efficiency, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SLOWNESS, "bag", 0.5)
    fast = write_folder(tmp_path / "fast", "vos", [], [a_group(576, 4, operations(576, 4))])
    tables = vos.make_tables(fast, read_published("vos"))
    place = "top-K of all, embedding bag, 576 tokens, 4 frames: 0.50 [0.50, 0.50]"
    assert f"Faster than fused dense attention is top-K in 1 of 4 places: {place}." in text_of(tables, "operation")
    assert verdicts(tables, "vos")["topk-speed"].startswith(
        "measured: faster than fused dense attention in 1 of 4 places"
    )


def test_caching_is_shown_with_and_without_the_trunk(made: list[PaperTable]) -> None:
    rows = {(row["tokens"], row["frames"]): row for row in rows_of(made, "frames")}
    four = rows["576", "4"]
    assert [float(four[name]) for name in ("here", "flops", "run", "fused")] == pytest.approx(
        [3.5, 3.0, 7968 / 2339, 2.75]
    )
    # less half a second of trunk in both, a round slower by 1 % than the one before
    assert float(four["alone"]) == pytest.approx(5 / 1.5, rel=1e-3)
    assert (float(four["topk-all"]), four["topk-each"], float(four["deviation"])) == (2.5, "", 2e-6)
    assert (rows["576", "8"]["here"], rows["576", "8"]["published_run"]) == ("", "14083.0")
    note = text_of(made, "frames")
    assert "576 tokens, 4 frames: 3.50 [3.50, 3.50] measured, above the 3.00 by FLOPs" in note
    assert "Not timed: the published read, 576 tokens, 8 frames: about 13 s a call foreseen, above the limit." in note


def test_training_and_k_have_tables_of_their_own(made: list[PaperTable]) -> None:
    training = rows_of(made, "training")
    scatter = next(row for row in training if row["method"] == "top-K of all, scattered" and row["tokens"] == "144")
    assert (scatter["k"], float(scatter["here"]), float(scatter["run"])) == ("16", pytest.approx(6.0), 21 / 14)
    by_k = {
        row["k"]: row
        for row in rows_of(made, "by-k")
        if row["method"] == "top-K of all, scattered" and row["tokens"] == "576"
    }
    assert list(by_k) == ["8", "20", "30", "60", "120"]
    assert (float(by_k["8"]["here"]), by_k["20"]["here"], float(by_k["20"]["ms_run"])) == (
        pytest.approx(2.0),
        "",
        339.0,
    )


def test_the_figure_of_reads_has_points_where_there_are_measurements(memory: Efficiency) -> None:
    with style():
        figure = vos_figures.draw(memory, read_published("vos"))
    small, large, by_k, frames = figure.axes
    assert (
        len(small.containers) == len(large.containers) == 2 * 5
    )  # two numbers of frames, five attentions (none of each)
    assert len(by_k.containers) == 2 + 2  # scattering at K 8 and 60, gather and bag at 60
    assert len(frames.containers) == 1
    assert large.get_xlabel() == "frames in memory, 576 tokens each"


# -------------------------------------------------------------------------------------------------------------- tracking


def test_multiply_adds_are_called_flops_in_the_paper(tracker: Efficiency) -> None:
    tables = tracking.make_tables(tracker, read_published("tracking"))
    rows = {row["model"]: row for row in rows_of(tables, "computation")}
    asymmetric, symmetric = rows["MixCvT, CvT-21, asymmetric"], rows["MixCvT, CvT-21, symmetric"]
    assert [float(asymmetric[name]) for name in ("full", "full_run", "macs", "paper")] == [46.4, 46.4, 23.2, 23.0]
    assert float(asymmetric["saving"]) == pytest.approx(46.4 / 37.8)
    assert (float(symmetric["saving"]), symmetric["paper"]) == (pytest.approx(46.4 / 48), "")
    said = verdicts(tables, "tracking")
    assert said["paper-flops"] == "counted: 1 of 1 agree as multiply-adds, half of the FLOPs"
    assert said["forward"].startswith("counted: 3 of 3 agree; ")
    assert "0.98 frames/s all at once and 1.2 with kept templates on Some CPU" in said["speed"]
    assert said["speed-user"].startswith("not testable here: ")
    assert said["cached-exact"].startswith("measured: at most 1e-07")


def test_published_weights_are_counted_with_what_they_carry_along(tmp_path: Path) -> None:
    counts = [
        a_count(label, boxes.sizes(label), flops, 0) | {"parameters": parameters}
        for label, flops, parameters in (("cvt-21", 46.3e9, 35_595_136), ("vit-b", 92.4e9, 97_183_308))
    ]
    made = write_folder(tmp_path / "made", "tracking", counts, [])
    tables = tracking.make_tables(made, read_published("tracking"))
    assert verdicts(tables, "tracking")["parameters"] == "counted: 3 of 3 agree"
    rows = {row["model"]: row for row in rows_of(tables, "computation")}
    vit = rows["MixViT, ViT-B, asymmetric"]
    assert [float(vit[name]) for name in ("parameters_run", "full", "full_run", "track_run")] == [
        98.4,
        92.4,
        92.4,
        69.9,
    ]


def test_times_of_kept_templates_are_explained(tracker: Efficiency) -> None:
    tables = tracking.make_tables(tracker, read_published("tracking"))
    rows = {(row["model"], row["mode"]): row for row in rows_of(tables, "times")}
    kept = rows["MixCvT, CvT-21, asymmetric", "a frame, templates kept"]
    assert (float(kept["ratio"]), float(kept["ratio_run"]), float(kept["run"])) == (
        pytest.approx(1.25), pytest.approx(882 / 700), 700.0
    )  # fmt: skip
    assert rows["MixCvT, CvT-21, asymmetric", "templates, once"]["rate"] == ""
    assert "1.25 [1.25, 1.25] measured, above the 0.97 by FLOPs" in text_of(tables, "times")


def test_the_figure_of_tracking_has_a_bar_for_every_count(tracker: Efficiency) -> None:
    with style():
        computation, time = tracking_figures.draw(tracker).axes
    assert len(computation.patches) == 3 * len(boxes.LABELS)
    assert len(time.patches) == 6


# ------------------------------------------------------------------------------------------------------------------ both


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vos", "tracking"])
def test_the_same_folder_gives_the_same_bytes_and_no_measurement_is_no_error(
    task: str, memory: Efficiency, tracker: Efficiency, tmp_path: Path
) -> None:
    folder = (memory if task == "vos" else tracker).folder
    first, second = (paper.write([folder], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {"tables.md", "claims.csv", "ratios.png", "ratios.pdf"} <= {path.name for path in first}
    empty = write_folder(tmp_path / "empty", task, [], [])
    assert len(paper.write([empty.folder])) == len(first)


def test_the_report_asks_for_what_is_counted_and_timed() -> None:
    from bench.experiment.efficiency.tracking import Tracking
    from bench.experiment.efficiency.vos import OPERATIONS, VideoObjectSegmentation

    def has(rows: Any, label: str, mode: str, sizes: dict[str, int]) -> bool:
        return any((row.label, row.mode, row.sizes) == (label, mode, sizes) for row in rows)

    task = VideoObjectSegmentation()
    groups = [dict(group) for group in task.groups("paper")]
    for tokens in reads.TOKENS:
        assert all(has(task.rows, "dense", mode, {"tokens": tokens, "frames": 0}) for mode in ("query", "write"))
        for frames in reads.FRAMES:
            sizes = {"tokens": tokens, "frames": frames}
            assert all(has(task.rows, label, "read", sizes) for label in reads.DESIGNS)
            assert has(task.rows, "dense", "recompute", sizes)
            for blocks in (1, reads.BLOCKS):
                assert {**sizes, "topk": reads.TOPK, "blocks": blocks, "backward": 0} in groups
    assert has(task.rows, reads.LARGE, "read", {"tokens": 576, "frames": 8})
    assert {method for method in OPERATIONS if method[0] != "parts"} == set(reads.NAMES)
    for label in boxes.LABELS:
        assert all(has(Tracking.rows, label, mode, boxes.sizes(label)) for mode in boxes.MODES)
