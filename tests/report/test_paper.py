"""Tables and figures beside the published numbers, from a small folder of measurements."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import PROTOCOL
from bench.errors import UserError
from bench.report import paper, verify
from bench.report.paper.layout import Column, PaperTable, number, to_csv, to_latex, to_markdown
from bench.report.paper.nvs import counted, figures, quantities, timed
from bench.report.paper.published import FOLDER, read_published
from bench.report.paper.quantities import Theirs
from bench.report.plots import style
from bench.stats import Estimate, Interval
from bench.store.efficiency import Efficiency, open_efficiency

LVSM, LATENTS, OURS = quantities.FAMILIES
ROUNDS = 6


def a_count(label: str, views: tuple[int, int], flops: float, mode: str = "full", **other: int) -> dict[str, Any]:
    numbers = {"parameters": 1_000_000, "training_flops": int(3 * flops), "linear_macs": int(flops / 4), "norm_ops": 5}
    return {
        "label": label,
        "mode": mode,
        "sizes": {"input_views": views[0], "target_views": views[1], "image_size": 256},
        "counters": dict.fromkeys(("torch", "fvcore", "closed_form"), int(flops)),
        **numbers,
        **other,
    }


def a_call(label: str, mode: str, milliseconds: float, flops: float) -> dict[str, Any]:
    """Rounds that differ by 1 % steps, the same for every call, so that quotients within a round are exact."""
    times = [milliseconds * (1 + 0.01 * step) for step in range(ROUNDS)]
    held = 0 if mode == "full" else 3 * 2**18
    call = {
        "label": label,
        "mode": mode,
        "flops": int(flops),
        "times_ms": times,
        "live_bytes": 2**20,
        "held_bytes": held,
    }
    return call if mode == "full" else {**call, "deviation": 0.0}


def a_group(inputs: int, targets: int) -> dict[str, Any]:
    """LVSM is quadratic in the inputs, Efficient-LVSM linear, adding a view half of it."""
    cost = {
        (LVSM, "full"): inputs**2,
        (LATENTS, "full"): inputs,
        (LATENTS, "render"): 1,
        (OURS, "full"): 2 * inputs,
        (OURS, "render"): inputs,
        (OURS, "add"): inputs,
    }
    calls = [a_call(label, mode, targets * value, targets * value * 1e9) for (label, mode), value in cost.items()]
    if inputs == 64:
        calls[0] = {"label": LVSM, "mode": "full", "flops": 10**12, "skipped": "about 7 s a call foreseen, above 5 s"}
    return {"sizes": {"input_views": inputs, "target_views": targets}, "load": 0.25 * inputs, "calls": calls}


def write_folder(folder: Path, *, empty: bool = False, **changes: Any) -> Path:
    """A finished folder; `changes` go into its record, `empty` leaves out everything measured."""
    record = {
        "schema": 1,
        "protocol": PROTOCOL,
        "name": "efficiency-nvs",
        "task": "nvs",
        "preset": "tiny",
        "status": "finished",
        "device": {"kind": "cpu", "name": "Some CPU_1", "cores": 2, "threads": 1, "torch": "2.15"},
        "precision": "fp32",
        "timed_by": "processor time",
        "rounds": ROUNDS,
        "seed": 0,
        "limit_seconds": 5.0,
        "limit_bytes": 2**30,
        "image_size": 64,
        "architectures": [
            {"label": label, "parameters": 10, "options": {"width": 128}} for label in quantities.FAMILIES
        ],
        "code_sha256": "0",
        **changes,
    }
    counts = [a_count(LVSM, (2, 6), 10.4e12, parameters=170_795_520), a_count(OURS, (2, 6), 2.4e12)]
    for views in quantities.INCREMENTAL:
        counts += [a_count(LVSM, (views, 8), views**2 * 1e12), a_count(OURS, (views, 8), 2 * views * 1e12)]
        counts.append(a_count(OURS, (views, 8), views * 1e12, "add"))
    groups = [a_group(views, 8) for views in (64, 48, 32, 16, 8, 4, 2)] + [a_group(4, views) for views in (1, 2, 4)]
    folder.mkdir(parents=True)
    (folder / "efficiency.json").write_text(json.dumps(record))
    for name, lines in (("counts", counts), ("timings", groups)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if not empty))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("efficiency") / "made")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Efficiency:
    return open_efficiency(folder)


@pytest.fixture(scope="module")
def published() -> Theirs:
    return read_published("nvs")


def rows_of(tables: list[PaperTable], name: str) -> list[dict[str, str]]:
    (table,) = [table for table in tables if table.name == name]
    return list(csv.DictReader(io.StringIO(to_csv(table))))


# ---------------------------------------------------------------------------------------------------- published numbers


@pytest.mark.parametrize("task", sorted(paper.TABLES))
def test_every_published_number_says_where_it_comes_from_and_what_it_counts(task: str) -> None:
    for entry in read_published(task).values():
        assert entry.status in ("README", "note", "run", "inferred")
        sentence = entry.sentence()
        for part in (f"[{entry.status}]", entry.quantity, entry.source, entry.setting, entry.convention):
            assert part in sentence
        assert all(value > 0 for value in entry.values.values())


@pytest.mark.parametrize("field", ["unit", "status", "source", "setting", "convention", "values"])
def test_an_entry_without_its_field_is_refused(tmp_path: Path, field: str) -> None:
    entries = yaml.safe_load((FOLDER / "nvs.yaml").read_text())
    del entries[1][field]
    (tmp_path / "nvs.yaml").write_text(yaml.safe_dump(entries))
    with pytest.raises(UserError, match=rf"nvs\.yaml: entry 2: {field}: is missing"):
        read_published("nvs", tmp_path)


def test_two_entries_of_one_name_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    entries = yaml.safe_load((FOLDER / "nvs.yaml").read_text())
    (tmp_path / "nvs.yaml").write_text(yaml.safe_dump([entries[0], entries[0]]))
    with pytest.raises(UserError, match="entry 2: the name 'parameters-readme' is taken"):
        read_published("nvs", tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_published("other", tmp_path)


# --------------------------------------------------------------------------------------------------------------- tables


def test_our_number_stands_beside_the_published_one(opened: Efficiency, published: Theirs) -> None:
    first = rows_of(counted.tables(opened, published), "parameters")[0]
    assert (first["parameters"], first["run"], first["over_run"]) == ("170795520", "170795520.0", "1.0")
    assert float(first["over_readme"]) == pytest.approx(0.9649, abs=1e-4)
    training = {row["model"]: row for row in rows_of(counted.tables(opened, published), "training")}
    lvsm = training["LVSM decoder-only"]
    assert float(lvsm["over_ours"]) == pytest.approx(10.4 / 2.4)
    assert float(lvsm["zflop"]) == pytest.approx(3 * 10.4e12 * 512 * 1e5 / 1e21)
    assert float(lvsm["note"]) == 1.6


def test_what_was_not_counted_is_a_dash_and_an_empty_cell(opened: Efficiency, published: Theirs) -> None:
    (table,) = [table for table in counted.tables(opened, published) if table.name == "variants"]
    assert table.cells()[0][1:] == ["–", "1.98", "–", "1.149", "–"]
    assert rows_of([table], "variants")[0]["gflop"] == ""


def test_adding_a_view(opened: Efficiency, published: Theirs) -> None:
    computation = rows_of(counted.tables(opened, published), "incremental-computation")
    assert [float(row["lvsm_over_cached"]) for row in computation] == list(quantities.INCREMENTAL)
    assert {float(row["full_over_cached"]) for row in computation} == {2.0}
    latency = rows_of(timed.tables(opened, published), "incremental-latency")
    for key in ("speed_up", "speed_up_low", "speed_up_high"):  # the rounds differ, the quotients within a round do not
        assert [float(row[key]) for row in latency[:-1]] == pytest.approx(quantities.INCREMENTAL[:-1])
    assert latency[-1]["speed_up"] == latency[-1]["lvsm"] == ""
    assert float(latency[0]["lvsm_tflop_per_s"]) == pytest.approx(16 / 0.1231)
    assert float(latency[0]["cached"]) == pytest.approx(32 * 1.025)


def test_what_was_not_timed_says_why(opened: Efficiency, published: Theirs) -> None:
    text = {table.name: to_markdown(table) for table in timed.tables(opened, published)}
    reason = "Not timed: LVSM decoder-only, 64 input views: about 7 s a call foreseen, above 5 s."
    assert reason in text["latency-input-views"]
    assert reason in text["incremental-latency"]
    assert reason not in text["latency-target-views"]
    assert "| 64 | – |" in text["latency-input-views"]


def test_where_and_under_which_load_it_was_measured(opened: Efficiency, published: Theirs) -> None:
    note = to_markdown(timed.tables(opened, published)[0])
    assert "Here: Some CPU_1, 1 thread on 2 cores, preset tiny (64 px), fp32" in note
    assert "processor time, median of 6 interleaved rounds" in note
    assert "load average 0.5 to 16.0" in note


def test_memory_counts_what_is_kept(opened: Efficiency, published: Theirs) -> None:
    row = rows_of(timed.tables(opened, published), "memory-input-views")[0]
    assert float(row["lvsm_decoder_only_full"]) == 1.0
    assert float(row["efficient_lvsm_render"]) == 1.75


def test_exponents_tell_quadratic_from_linear(opened: Efficiency, published: Theirs) -> None:
    rows = {row["call"]: row for row in rows_of(timed.tables(opened, published), "exponents")}
    assert float(rows["LVSM decoder-only"]["input_views_latency"]) == pytest.approx(2)
    assert float(rows["LVSM decoder-only"]["full_size"]) == pytest.approx(2)
    assert float(rows["Efficient-LVSM, no cache"]["input_views_flops"]) == pytest.approx(1)
    assert float(rows["LVSM encoder-decoder, from latents"]["input_views_latency"]) == pytest.approx(0, abs=1e-9)
    assert rows["LVSM encoder-decoder, from latents"]["full_size"] == ""


def test_the_layout_escapes_and_keeps_full_precision() -> None:
    table = PaperTable(
        "t",
        "50 % of A_B",
        (Column("name", "name"), Column("x", "ms | s", number(3))),
        ({"name": "a&b", "x": Estimate(1 / 3, Interval(0.25, 0.5), 7)}, {"name": "c", "x": None}),
        ("a note",),
        ("a source",),
    )
    assert "| a&b | 0.333 [0.250, 0.500] |" in to_markdown(table)
    assert r"ms \| s" in to_markdown(table)
    latex = to_latex(table)
    assert r"\caption{50 \% of A\_B. a note}" in latex
    assert r"a\&b & 0.333 [0.250, 0.500] \\" in latex
    assert "% a source\n" in latex
    assert to_csv(table) == f"name,x,x_low,x_high\na&b,{1 / 3!r},0.25,0.5\nc,,,\n"


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (paper.write([folder], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    names = {path.name for path in first}
    assert {"tables.md", "views.png", "views.pdf", "incremental.png", "incremental.pdf"} <= names
    stems = {name.removesuffix(".tex") for name in names if name.endswith(".tex")}
    assert {f"{stem}.csv" for stem in stems} <= names
    text = (tmp_path / "one" / "tables.md").read_text()
    assert text.count("\n## ") == len(stems) == 13


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(paper.FIGURES, "nvs", lambda *_: [])


@pytest.mark.usefixtures("without_figures")
def test_a_changed_table_is_found(folder: Path) -> None:
    def wrong() -> list[str]:
        return [line for line in verify.verify(folder).problems if line.startswith("paper: ")]

    assert "tables.md: absent" in wrong()[0]
    paper.write([folder])
    assert wrong() == []
    path = folder / "paper" / "parameters.csv"
    path.write_text(path.read_text().replace("170795520", "170795521"))
    assert wrong()[0].startswith(
        "paper: every table follows from the records: parameters.csv differ; parameters.csv: line "
    )


@pytest.mark.usefixtures("without_figures")
def test_several_folders_go_to_folders_of_their_own(folder: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other")
    written = paper.write([folder, other], tmp_path / "out")
    assert {path.parent.name for path in written} == {"made", "other"}


def test_folders_that_hold_nothing_to_show_are_refused(tmp_path: Path) -> None:
    running = write_folder(tmp_path / "running", status="running")
    with pytest.raises(UserError, match="is running, not finished; go on with `isochron measure-efficiency nvs --out"):
        paper.write([running])
    with pytest.raises(UserError, match=r"holds no efficiency\.json"):
        paper.write([tmp_path])
    with pytest.raises(
        UserError, match="task 'weather' has no tables; known: hydrology, masked-image, nvs, openvocab, tracking, vos"
    ):
        paper.write([write_folder(tmp_path / "weather", task="weather")])
    with pytest.raises(UserError, match="schema is 2, this version reads 1"):
        paper.write([write_folder(tmp_path / "later", schema=2)])
    with pytest.raises(UserError, match=r"protocol is 99\.0"):
        paper.write([write_folder(tmp_path / "foreign", protocol="99.0")])
    with pytest.raises(UserError, match=r"device\.kind: is missing; restore the file"):
        paper.write([write_folder(tmp_path / "damaged", device={})])


def test_a_folder_without_a_single_measurement_still_renders(tmp_path: Path) -> None:
    written = paper.write([write_folder(tmp_path / "empty", empty=True)])
    assert {path.suffix for path in written} == {".md", ".tex", ".csv", ".png", ".pdf"}
    text = (tmp_path / "empty" / "paper" / "parameters.csv").read_text()
    assert '"LVSM decoder-only, 24 layers",,170795520.0,,177000000.0,' in text


def test_published_results_come_before_the_newest_run(tmp_path: Path) -> None:
    results, runs = tmp_path / "results", tmp_path / "runs"
    with pytest.raises(UserError, match="make measure-efficiency"):
        paper.find(results, runs)
    write_folder(runs / "unfinished", status="running")
    made = write_folder(runs / "made")
    assert paper.find(results, runs) == [made]
    kept = write_folder(results / "cpu-2core" / "efficiency-nvs-tiny")
    assert paper.find(results, runs) == [kept]


def test_the_figures_show_every_call_on_logarithmic_axes(opened: Efficiency, published: Theirs) -> None:
    with style():
        views, incremental = figures.draw_views(opened), figures.draw_incremental(opened, published)
    assert [ax.get_ylabel() for ax in views.axes] == ["latency (ms)", "memory (MiB)", "GFLOP"] * 2
    assert {ax.get_xscale() + ax.get_yscale() for ax in (*views.axes, *incremental.axes)} == {"loglog"}
    assert [len(ax.lines) for ax in views.axes] == [len(quantities.CALLS)] * 6
    lvsm = views.axes[0].lines[0]
    assert list(lvsm.get_xdata()) == [2, 4, 8, 16, 32, 48]  # the one of 64 was not timed
    assert "not timed: 1 calls" in views.get_suptitle()
    looks = [figures._look(key) for key in quantities.CALLS]
    assert len({(marker, str(line)) for _, marker, line in looks}) == len(looks)  # without colour too
    assert [line.get_label() for line in incremental.axes[1].lines] == [
        "by FLOPs, full size", "published latency [README]", "by FLOPs, tiny", "latency here, tiny",
    ]  # fmt: skip
