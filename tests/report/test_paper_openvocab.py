"""The tables and the figure of CAT-Seg: claims, counts and ratios with their explanations, from small folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.report import paper
from bench.report.paper import openvocab
from bench.report.paper.layout import PaperTable
from bench.report.paper.openvocab import claims, figures
from bench.report.paper.openvocab import quantities as parts
from bench.report.paper.published import read_published
from bench.report.plots import style
from bench.store.efficiency import Efficiency
from tests.report.test_paper_masked import a_call, a_count, rows_of, text_of, write_folder


def a_row(label: str, mode: str, sizes: dict[str, int], gflop: float, millions: float = 1.0) -> dict[str, Any]:
    made = a_count(label, sizes, gflop * 1e9, 0) | {"mode": mode, "parameters": round(millions * 1e6)}
    return made


def counts() -> list[dict[str, Any]]:
    """Published figures as if executed, projecting guidance once a tenth less; texts cached spare what they cost."""
    published = read_published("openvocab")
    made = []
    for key, gflop in published["aggregator"].values.items():
        label, classes, pooling = key.split()
        sizes = {"classes": int(classes), "pooling": int(pooling)}
        millions = published["aggregator-parameters"].get(label) or 1.0
        made.append(a_row(label, "published", sizes, gflop, millions))
        made.append(a_row(label, "full", sizes, 0.9 * gflop, millions))
    for key, gflop in published["towers"].values.items():
        label, mode = key.split()
        sizes = {"pixels": 384} if mode == "image" else {"classes": 171, "length": 77}
        made.append(a_row(label, mode, sizes, gflop, published["tower-parameters"].get(key) or 123.6))
    pieces = {"decoder1": 70.0, "decoder2": 70.0, "spatial": 160.0, "classes": 65.0, "embedding": 87.0}
    made += [a_row("2023", part, {"classes": 150, "pooling": 1}, gflop) for part, gflop in pieces.items()]
    made.append(a_row("2024", "embedding", {"classes": 150, "pooling": 1}, 1.1))
    made += [a_row("2024-l", "step", parts.STEP, 3000.0, 70.3), a_row("2024-l-cached", "step", parts.STEP, 750.0)]
    made.append(a_row("2024-l", "whole", parts.STEP, 3000.0, 500.0))
    for label, gflop in (("2024-l", 4100.0), ("2024-l-unpadded", 3900.0)):
        made += [a_row(label, "picture", {"classes": 150, "windows": n}, gflop * n / 5) for n in (5, 1)]
    made += [a_row("step-graph", "step", parts.SMALL_STEP, 40.0), a_row("step-cached", "step", parts.SMALL_STEP, 10.0)]
    return made


def groups() -> list[dict[str, Any]]:
    """Padding takes five times as long, by three times the FLOPs; full attention twice as long from 256 classes on."""
    calls = [
        a_call("unpadded", "full", 50e9, 1.0), a_call("2024", "full", 150e9, 5.0),
        a_call("2024", "folded", 50e9, 1.0) | {"deviation": 1e-6}, a_call("2024-full-attention", "full", 180e9, 4.0),
        a_call("unpadded-feature", "published", 280e9, 3.0), a_call("unpadded-feature", "full", 55e9, 1.1),
    ]  # fmt: skip
    skipped = {"label": "2024", "mode": "full", "flops": 1, "skipped": "about 20 s a call foreseen, above the limit"}
    made = [
        (calls, {"classes": 20, "grid": 24}),
        ([skipped, a_call("unpadded", "full", 1e9, 3.2)], {"classes": 64, "grid": 24}),
    ]
    for classes in (20, 256):
        slow = 2.0 if classes > 100 else 1.0
        pair = [
            a_call(f"class {kind}", mode, classes * 1e6, 0.1 * (slow if kind == "full" else 1.0))
            for kind in ("linear", "full")
            for mode in ("attention", "block")
        ]
        made.append((pair, {"classes": classes, "places": 144, "width": 128}))
    made.append(([a_call("sliding", "picture", 50e9, 1.2), a_call("single", "picture", 10e9, 0.2)], parts.PICTURE))
    made.append(([a_call("step-graph", "step", 40e9, 1.5), a_call("step-cached", "step", 10e9, 0.5)], parts.SMALL_STEP))
    return [{"sizes": sizes, "load": 0.5, "calls": calls} for calls, sizes in made]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Efficiency:
    return write_folder(tmp_path_factory.mktemp("openvocab") / "made", "openvocab", counts(), groups())


@pytest.fixture(scope="module")
def made(measured: Efficiency) -> list[PaperTable]:
    return openvocab.make_tables(measured, read_published("openvocab"))


def verdicts(tables: list[PaperTable]) -> dict[str, str]:
    rows = rows_of(tables, "claims")
    return dict(zip(read_published("openvocab"), (row["tested"] for row in rows), strict=True))


def test_every_published_entry_has_a_verdict_and_every_verdict_an_entry() -> None:
    assert set(claims.RULES) == set(read_published("openvocab"))


def test_a_claim_is_measured_counted_or_said_why_not(made: list[PaperTable], tmp_path: Path) -> None:
    said = verdicts(made)
    empty = openvocab.make_tables(write_folder(tmp_path / "empty", "openvocab", [], []), read_published("openvocab"))
    for each in (said, verdicts(empty)):
        assert all(text.startswith(("measured: ", "counted: ", "not testable here: ")) for text in each.values()), each
    assert said["aggregator"].startswith("counted: 17 of 17 agree executed as published; ")
    assert said["parameters"] == "counted: 0 of 1 agree (2024-l: 500.0, not 433.7)"
    assert said["towers"].startswith("counted: 5 of 5 agree")
    assert said["speed"].startswith("not testable here: the seconds are of an RTX 3090")
    assert "0.20 [0.20, 0.20]" in said["padding-cost"]
    assert said["text-speed"].startswith("counted: 4.00 forward, 4.00 with backward")
    assert "3.00 [3.00, 3.00]" in said["text-speed"]
    assert said["windows-cost"] == "counted: 1 of 1 agree; measured: five over one, small towers 6.00 [6.00, 6.00]"
    assert "1.00 [1.00, 1.00] at 20, 2.00 [2.00, 2.00] at 256 classes" in said["attention-time"]
    for name in ("accuracy-2024", "volume-accuracy", "early-rejection", "tuning-memory", "seen-unseen"):
        assert said[name].startswith("not testable here: "), name


def test_published_gflops_are_multiply_adds(made: list[PaperTable]) -> None:
    # five windows of aggregators that project guidance anew: 3900 + 5 x 43.4 and 4100 + 5 x 48.8 GFLOP
    assert verdicts(made)["picture-macs"] == (
        "counted: 2,059 GMAC without class padding and 2,172 with it, guidance projected as published: theirs lies between; they "
        "are multiply-adds, FLOPs are twice as many (4.12 to 4.34 T)"
    )
    rows = {row["network"]: row for row in rows_of(made, "networks")}
    padded = rows["2024, ViT-L/14, queries and values"]
    assert [float(padded[name]) for name in ("five", "five_macs", "macs_run", "macs_note", "windows")] == [
        4100.0, 2050.0, 2189.0, 2121.1, 5.0,
    ]  # fmt: skip
    assert (float(padded["trainable"]), float(padded["learnable"])) == (70.3, 70.3)


def test_ours_stands_beside_the_published_way(made: list[PaperTable]) -> None:
    rows = {(row["design"], row["classes"]): row for row in rows_of(made, "aggregators")}
    feature = rows["2023, feature volume", "150"]
    assert [float(feature[name]) for name in ("published", "run", "agree", "saving")] == pytest.approx(
        [2097.3, 2097.3, 1.0, 1 / 0.9]
    )
    modules = {row["module"]: row for row in rows_of(made, "modules")}
    assert modules["CLIP ViT-L/14, 171 texts of 16 tokens"]["gflop"] == ""
    assert float(modules["aggregator 2023: windowed blocks, both layers"]["share"]) == pytest.approx(
        100 * 160 / (0.9 * 529.9)
    )


def test_a_ratio_that_flops_do_not_give_is_explained(made: list[PaperTable]) -> None:
    rows = {(row["classes"], row["design"]): row for row in rows_of(made, "designs")}
    padded = rows["20", "2024, classes padded to 256"]
    assert [float(padded[name]) for name in ("here", "flops")] == [5.0, 3.0]
    assert float(rows["20", "2024, classes padded to 256, fillers computed once"]["deviation"]) == 1e-6
    note = text_of(made, "designs")
    assert "2024, classes padded to 256: 5.00 [5.00, 5.00] measured, above the 3.00 by FLOPs" in note
    assert "Not timed: 2024, classes padded to 256, full, 64 classes: about 20 s a call foreseen" in note
    whole = {row["what"]: row for row in rows_of(made, "pictures-and-steps")}
    text = whole["a step: text tower in the graph / cached"]
    assert [float(text[name]) for name in ("here", "flops")] == pytest.approx([3.0, 4.0])


def test_the_figure_has_points_where_there_are_measurements(measured: Efficiency) -> None:
    with style():
        by_classes, designs = figures.draw(measured).axes
    assert len(by_classes.containers) == 2 * 2  # attention and block, 20 and 256 classes
    assert len(designs.containers) == len(designs.get_yticks()) == 5


def test_the_same_folder_gives_the_same_bytes_and_no_measurement_is_no_error(
    measured: Efficiency, tmp_path: Path
) -> None:
    first, second = (paper.write([measured.folder], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {"tables.md", "claims.csv", "ratios.png", "ratios.pdf"} <= {path.name for path in first}
    empty = write_folder(tmp_path / "empty", "openvocab", [], [])
    assert len(paper.write([empty.folder])) == len(first)


def test_the_report_asks_for_what_is_counted_and_timed() -> None:
    from bench.experiment.efficiency.openvocab import DESIGNS, POOLED, RUN, WIDTHS, OpenVocabulary

    task = OpenVocabulary()
    rows = {(row.label, row.mode, *sorted(row.sizes.items())) for row in task.rows}
    groups = [dict(group) for group in task.groups("paper")]
    published = read_published("openvocab")
    for key in published["aggregator"].values:
        label, classes, pooling = key.split()
        sizes = sorted({"classes": int(classes), "pooling": int(pooling)}.items())
        assert label in RUN
        assert {(label, mode, *sizes) for mode in ("full", "published")} <= rows
    for version in ("2023", "2024"):
        assert {(version, part, ("classes", 150), ("pooling", 1)) for part in parts.PIECES} <= rows
    assert {(label, "step", *sorted(parts.STEP.items())) for label in parts.MODELS} <= rows
    assert {("2024", mode, ("classes", 171), ("pooling", 2)) for mode in ("full", "published")} <= rows
    assert {("step-graph", "step", *sorted(parts.SMALL_STEP.items()))} <= rows
    assert {
        (label, "text", ("classes", 171), ("length", n)) for label in ("clip-l", "clip-b") for n in parts.LENGTHS
    } <= rows
    assert set(parts.DESIGNS) == {*DESIGNS, POOLED}
    assert parts.CLASSES == WIDTHS
    assert all({"classes": classes, "grid": 24} in groups for classes in parts.TIMED_AT)
    assert parts.PICTURE in groups
    assert parts.SMALL_STEP in groups
