"""The tables and figures of masked autoencoders: claimed, counted and measured ratios, from small folders."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import PROTOCOL
from bench.report import paper
from bench.report.paper import hydrology, masked_image, ratios
from bench.report.paper.hydrology import figures as hydrology_figures
from bench.report.paper.hydrology import quantities as days
from bench.report.paper.hydrology import tables as hydrology_tables
from bench.report.paper.layout import PaperTable, to_csv, to_markdown
from bench.report.paper.masked_image import figures as image_figures
from bench.report.paper.masked_image import quantities as images
from bench.report.paper.masked_image import tables as image_tables
from bench.report.paper.published import read_published
from bench.report.plots import style
from bench.stats import Estimate, Interval
from bench.store.efficiency import Call, Efficiency, Group, open_efficiency

ROUNDS = 6
LINEAR, ATTENTION = 50.0, 20.0
"""GFLOP/s of the machine that is made up."""


def a_count(label: str, sizes: dict[str, int], encoder: float, decoder: float) -> dict[str, Any]:
    parts = {"encoder": int(encoder), "decoder": int(decoder)}
    total = sum(parts.values())
    return {
        "label": label,
        "mode": "full",
        "sizes": sizes,
        "parameters": 1_000_000,
        "counters": dict.fromkeys(("torch", "fvcore", "closed_form"), total),
        "parts": parts,
        "training_flops": 3 * total,
        "linear_macs": 1,
        "norm_ops": 1,
    }


def a_call(label: str, mode: str, flops: float, seconds: float) -> dict[str, Any]:
    """Rounds that differ by 1 % steps, the same for every call: quotients within a round are exact."""
    times = [1e3 * seconds * (1 + 0.01 * step) for step in range(ROUNDS)]
    return {"label": label, "mode": mode, "flops": int(flops), "times_ms": times, "live_bytes": int(flops / 1e3)}


def write_folder(
    folder: Path, task: str, counts: list[dict[str, Any]], groups: list[dict[str, Any]], **changes: Any
) -> Efficiency:
    record = {
        "schema": 1,
        "protocol": PROTOCOL,
        "name": f"efficiency-{task}",
        "task": task,
        "preset": "tiny",
        "status": "finished",
        "device": {"kind": "cpu", "name": "Some CPU", "cores": 2, "threads": 1, "torch": "2.15"},
        "precision": "fp32",
        "timed_by": "processor time",
        "rounds": ROUNDS,
        "seed": 0,
        "limit_seconds": 90.0,
        "limit_bytes": 2**30,
        "architectures": [],
        "code_sha256": "0",
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "efficiency.json").write_text(json.dumps(record))
    for name, lines in (("counts", counts), ("timings", groups)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_efficiency(folder)


def flops_of(label: str, length: int) -> tuple[float, float]:
    """Linear and attention FLOPs of a made-up decoder of one layer, forward and backward of one sample."""
    everything, predicted, _ = days.tokens(label, length)
    tokens = everything if label == days.MAE else predicted
    return 3e6 * tokens, 12 * days.pairs(label, length) * days.WIDTH


def a_decoder(label: str, length: int, batch: int) -> dict[str, Any]:
    linear, attention = (batch * flops for flops in flops_of(label, length))
    return a_call(label, "decoder", linear + attention, linear / LINEAR / 1e9 + attention / ATTENTION / 1e9)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Efficiency:
    """Counts whose decoders differ by a factor of 4 and whose encoder is as large as the smaller decoder."""
    cost = {days.MAE: 4e9, days.CROSS: 1e9, days.SELF: 3e9, days.THIRD: 5e8, "cross-p10": 2e8, "cross-p50": 7e8}
    counts = [a_count(label, days.sizes(length), length * 1e9, length * cost[label])
              for length in days.DAYS for label in cost]  # fmt: skip
    counts.append(a_count(days.MAE, days.sizes(patches=522, hidden=521), 1e9, 100 * 90e9))
    groups = []
    for length, batch in ((2, 8), (90, 8)):
        labels = (days.MAE, days.CROSS, days.SELF) if length == 2 else (days.MAE, days.CROSS)
        sizes = {**days.sizes(length), "batch": batch, "encoder_layers": 0, "decoder_layers": 1}
        calls = [a_decoder(label, length, batch) for label in labels]
        groups.append({"sizes": sizes, "load": 0.5, "calls": calls})
    sizes = {**days.sizes(90), "batch": 1, "encoder_layers": 6, "decoder_layers": 4}
    steps = [a_call(days.MAE, "step", 2.5e12, 20.0), a_call(days.CROSS, "step", 1e12, 10.0)]
    skipped = {"label": days.THIRD, "mode": "step", "flops": 1, "skipped": "took 100 s, above the limit of 90 s"}
    groups.append({"sizes": sizes, "load": 3.5, "calls": [*steps, skipped]})
    return write_folder(tmp_path_factory.mktemp("notes") / "made", "hydrology", counts, groups)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Efficiency:
    """MAE's blocks cost 1 GFLOP, CrossMAE's a half, those that predict a third a quarter; the encoder 8."""
    counts = []
    for depth in images.DEPTHS:
        counts.append(a_count(f"vit-b/mae-{depth}", images.sizes(), 8e9, depth * 1e9))
    for design in images.NAMES:
        if design.startswith("crossmae"):
            block = 0.25e9 if design.endswith("p25") else 0.5e9
            counts.append(a_count(f"vit-b/{design}", images.sizes(), 8e9, int(design.split("-")[1]) * block))
    calls = [
        a_call(f"vit-b/{images.MAE}", "step", 48e9, 2.0),
        a_call(f"vit-b/{images.CROSS}", "step", 42e9, 2.0),
        a_call(f"vit-b/{images.THIRD}", "step", 33e9, 33 / 24),
    ]
    groups = [{"sizes": {**images.sizes(), "batch": 1}, "load": 0.25, "calls": calls}]
    folder = tmp_path_factory.mktemp("vit") / "made"
    return write_folder(folder, "masked-image", counts, groups, image_size=224)


def rows_of(tables: list[PaperTable], name: str) -> list[dict[str, str]]:
    (table,) = [table for table in tables if table.name == name]
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def text_of(tables: list[PaperTable], name: str) -> str:
    (table,) = [table for table in tables if table.name == name]
    return to_markdown(table)


# ------------------------------------------------------------------------------------------------------------ hydrology


@pytest.fixture(scope="module")
def claim_tables(notes: Efficiency) -> list[PaperTable]:
    return hydrology.make_tables(notes, read_published("hydrology"))


def test_the_notes_count_score_pairs(claim_tables: list[PaperTable]) -> None:
    assert days.tokens(days.CROSS) == (8460, 6300, 2160)
    assert days.tokens(days.THIRD, 1) == (94, 24, 24)
    first = rows_of(claim_tables, "claims")[0]
    assert (first["claimed"], float(first["attention"])) == ("5.3", pytest.approx(5.2596, abs=1e-4))


def test_claimed_counted_and_measured_stand_in_one_row(claim_tables: list[PaperTable]) -> None:
    sample, _, training, saved, standard = rows_of(claim_tables, "claims")
    assert (float(sample["decoder"]), float(sample["step"])) == (4.0, 5 / 2)
    assert (training["claimed"], float(training["step_measured"])) == ("3 to 4", pytest.approx(2.0))
    assert float(saved["decoder"]) == 75.0
    assert [float(saved[f"step_measured{end}"]) for end in ("", "_low", "_high")] == pytest.approx([50.0] * 3)
    assert float(standard["decoder"]) == 100.0
    assert standard["decoder_measured"] == ""
    note = text_of(claim_tables, "claims")
    assert "the decoder is 4.00 times as cheap, not 5.26" in note
    assert "the step is 2.50 times as cheap and saves 60 % of the computation, not 80 %" in note


def test_every_length_and_design_has_its_sizes_and_what_was_timed(claim_tables: list[PaperTable]) -> None:
    rows = {(row["design"], row["days"]): row for row in rows_of(claim_tables, "ratios")}
    assert len(rows) == 3 * len(days.DAYS)
    at_90 = rows["CrossMAE", "90"]
    assert [at_90[name] for name in ("L", "M", "V", "D", "E")] == ["8460", "6300", "2160", "128", "256"]
    assert [at_90[name] for name in ("decoder_batch", "decoder_depth", "decoder_load")] == ["8", "1", "0.5"]
    assert (at_90["step_batch"], at_90["step_load"], at_90["decoder_run"]) == ("1", "3.5", "5.0")
    assert float(at_90["step_here"]) == pytest.approx(2.0)
    assert rows["CrossMAE", "30"]["decoder_here"] == rows["CrossMAE, self-attention", "90"]["decoder_here"] == ""


def test_a_measured_ratio_that_disagrees_is_explained_from_the_times(claim_tables: list[PaperTable]) -> None:
    note = text_of(claim_tables, "ratios")
    assert "Decoder, 90 days, CrossMAE: " in note
    # the median round is 2.5 % slower
    assert "49 GFLOP/s in linear layers and 20 in attention, whose heads are 16 wide, would give both times" in note
    assert "Step, 90 days, CrossMAE: 2.00 [2.00, 2.00] measured, below the 2.50 that FLOPs say, as MAE came to" in note
    assert "what FLOPs leave out (norms, GELU, copies, calls) weighs more in the smaller one" in note
    assert "Not timed: CrossMAE, a third predicted, step, 90 days: took 100 s, above the limit of 90 s." in note


@pytest.mark.parametrize(
    ("measured", "flops", "side"),
    [
        (Estimate(2.0, Interval(1.9, 2.1), 6), 1.5, "above"),
        (Estimate(2.0, Interval(1.9, 2.1), 6), 2.5, "below"),
        (Estimate(2.0, Interval(1.9, 2.1), 6), 2.05, ""),
        (Estimate(2.0, None, 3), 1.0, ""),
        (None, 1.0, ""),
    ],
)
def test_whether_a_measured_ratio_disagrees(measured: Estimate | None, flops: float, side: str) -> None:
    assert ratios.beside(measured, flops) == side


@given(st.floats(1, 500), st.floats(1, 500))
def test_two_speeds_are_found_again_in_two_times(linear: float, attention: float) -> None:
    sizes = {**days.sizes(30), "batch": 1, "encoder_layers": 0, "decoder_layers": 1}
    calls = []
    for label in (days.MAE, days.CROSS):
        flops = flops_of(label, 30)
        made = a_call(label, "decoder", sum(flops), (flops[0] / linear + flops[1] / attention) / 1e9)
        calls.append(Call.model_validate({**made, "times_ms": [made["times_ms"][0]] * 3}))
    found = days.rates(*calls, Group(sizes=sizes, load=0.0, calls=tuple(calls)))
    assert found == (pytest.approx(linear, rel=1e-4), pytest.approx(attention, rel=1e-4))


def test_what_is_saved_is_a_share() -> None:
    assert ratios.fewer(5.0) == 80.0
    assert ratios.fewer(1.0) == 0.0


def test_the_figure_of_the_claims_has_lines_and_points(notes: Efficiency) -> None:
    with style():
        figure = hydrology_figures.draw(notes, read_published("hydrology"))
    over_days, masks, widths, shares = figure.axes
    counted = [line for line in over_days.lines if len(line.get_xdata()) == len(days.DAYS)]
    assert len(counted) == len(hydrology_figures.LINES) + len(hydrology_figures.THIRDS)
    assert len(over_days.containers) == 3  # decoder on 2 and 90 days, step on 90
    assert masks.get_xlabel() == "mask ratio"
    assert sorted(shares.lines[0].get_xdata()) == pytest.approx([0.1, 0.25, 0.5, 6300 / 8460])
    assert widths.get_ylabel() == "MAE / CrossMAE"


# --------------------------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def image_made(vit: Efficiency) -> list[PaperTable]:
    return masked_image.make_tables(vit, read_published("masked-image"))


def test_published_times_stand_beside_flops_and_our_step(image_made: list[PaperTable]) -> None:
    rows = {row["design"]: row for row in rows_of(image_made, "training")}
    third, whole = rows[images.NAMES[images.THIRD]], rows[images.NAMES[images.CROSS]]
    assert [third[name] for name in ("L", "M", "V", "D", "E", "blocks")] == ["196", "49", "49", "512", "768", "12"]
    assert (float(third["epoch_2"]), float(third["epoch_4"])) == (
        pytest.approx(9.35 / 6.32),
        pytest.approx(5.19 / 3.38),
    )
    assert float(third["step"]) == pytest.approx(16 / 11)
    assert float(third["measured"]) == pytest.approx(48 / 33)
    assert (whole["M"], float(whole["measured"]), whole["epoch_4"]) == ("147", pytest.approx(1.0), "")
    assert float(rows["CrossMAE, 12 blocks"]["epoch_2"]) == pytest.approx(9.35 / 7.38)
    note = text_of(image_made, "training")
    assert "1.00 [1.00, 1.00] measured, below the 1.14 by FLOPs: it came to 20 GFLOP/s, MAE to 23." in note
    assert "ViT-B/16 at 224 px (preset tiny), fp32" in note
    assert "forward and backward of 1 image;" in note


def test_every_design_has_the_mae_of_its_depth_and_of_its_cost(image_made: list[PaperTable]) -> None:
    rows = {row["design"]: row for row in rows_of(image_made, "equal")}
    third = rows[images.NAMES[images.THIRD]]
    assert (third["blocks"], float(third["equal_flops"]), third["equal_depth"]) == ("3", 1.0, "")
    eight = rows[images.NAMES["crossmae-8"]]
    assert (eight["blocks"], float(eight["equal_depth"])) == ("4", pytest.approx(16 / 12))


def test_counts_are_exact() -> None:
    assert images.tokens("crossmae-12-maps-p15") == (196, 30, 49)
    assert images.tokens("mae-8", 448) == (784, 588, 196)
    assert images.tokens("crossmae-12-maps-p25", mask=40) == (196, 50, 117)


def test_the_figure_of_images_shows_published_and_measured_points(vit: Efficiency) -> None:
    with style():
        figure = image_figures.draw(vit, read_published("masked-image"))
    shares, _, models, _ = figure.axes
    assert len(shares.containers) == 2 + 2  # two steps here, two published times (MAE is the one that is compared with)
    assert [label.get_text() for label in models.get_xticklabels()] == list(images.MODELS.values())


# ----------------------------------------------------------------------------------------------------------------- both


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hydrology", "masked-image"])
def test_the_same_folder_gives_the_same_bytes_and_no_measurement_is_no_error(
    task: str, notes: Efficiency, vit: Efficiency, tmp_path: Path
) -> None:
    folder = (notes if task == "hydrology" else vit).folder
    first, second = (paper.write([folder], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {"tables.md", "ratios.png", "ratios.pdf"} <= {path.name for path in first}
    empty = write_folder(tmp_path / "empty", task, [], [], **({"image_size": 224} if task == "masked-image" else {}))
    assert len(paper.write([empty.folder])) == len(first)


def test_the_sweeps_hold_what_is_counted() -> None:
    """The report asks for rows by the sizes and labels that the measurement has."""
    from bench.experiment.efficiency.hydrology import Hydrology
    from bench.experiment.efficiency.masked_image import MaskedImage

    def has(rows: Any, label: str, sizes: dict[str, int]) -> bool:
        return any(row.label == label and row.sizes == sizes for row in rows)

    for label in days.NAMES:
        assert all(has(Hydrology.rows, label, days.sizes(length)) for length in days.DAYS)
    for label in (days.MAE, days.CROSS):
        assert all(
            has(Hydrology.rows, label, days.sizes(hidden=one)) for one in hydrology_tables.HIDDEN_BY_RATIO.values()
        )
        assert all(has(Hydrology.rows, label, days.sizes(width=one)) for one in hydrology_tables.WIDTHS)
    assert all(has(Hydrology.rows, label, days.sizes()) for label in hydrology_tables.SHARES.values())
    for design in (*images.NAMES, *(f"mae-{depth}" for depth in images.DEPTHS)):
        assert has(MaskedImage.rows, f"vit-b/{design}", images.sizes())
    for design in (images.MAE, images.CROSS, images.THIRD):
        assert all(has(MaskedImage.rows, f"vit-b/{design}", images.sizes(mask=one)) for one in image_tables.MASKS)
        assert all(has(MaskedImage.rows, f"vit-b/{design}", images.sizes(width=one)) for one in image_tables.WIDTHS)
        assert all(has(MaskedImage.rows, f"{model}/{design}", images.sizes(model)) for model in images.MODELS)
