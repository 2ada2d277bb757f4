import base64
import hashlib
import itertools
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import UserError
from bench.report import page, tables
from bench.report.page import comparison, curves, ledger, pictures, samples
from bench.report.page.provenance import of_rows
from bench.report.summary import VIEWS, summarise
from bench.store.read import open_comparison
from tests.report import fake_page
from tests.report.fake_page import HOSTILE
from tests.report.fake_store import ARMS, FakeArm

ROOT = Path(__file__).resolve().parents[2]


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, tables by section, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.bold: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.style, self.text = "", ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append((dict(attributes), ""))
        elif tag == "b":
            self.bold.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif inside == "style":
            self.style += data
        else:
            self.text += data
            if any(cell in self._open for cell in ("td", "th")):
                self.rows[-1][-1] += data
            if "b" in self._open:
                self.bold[-1] += data

    @property
    def data(self) -> list[dict]:
        return [json.loads(content) for attributes, content in self.scripts if attributes.get("type")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_page.write(tmp_path_factory.mktemp("page") / "cpu-2core" / "nvs-tiny")


@pytest.fixture(scope="module")
def text(folder):
    return page.render([folder], [fake_page.verdict(number) for number in range(4)])


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(folder, text, tmp_path):
    elsewhere = shutil.copytree(folder, tmp_path / "deep" / "cpu-2core" / "nvs-tiny")
    made = page.write([elsewhere], tmp_path / "report.html", [fake_page.verdict(number) for number in range(4)])
    assert made == tmp_path / "report.html"
    assert made.read_text(encoding="utf-8") == text
    assert str(tmp_path) not in text


def test_every_cell_of_the_table_stands_in_the_page(folder, read):
    for section in tables.build(open_comparison(folder)).sections:
        assert list(section.headings) in read.rows
        for row in section.rows:
            assert [cell.text for cell in row] in read.rows
            assert all(cell.text in read.bold for cell in row if cell.bold)


def test_every_sentence_of_the_table_stands_in_the_page(folder, read):
    table = tables.build(open_comparison(folder))
    for sentence in (*table.verdicts, *table.caption, *(check.name for check in table.checks)):
        assert sentence in read.text


def test_nothing_is_loaded_and_only_the_own_script_may_run(read):
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "connect-src" not in rules
    scripts = [content for attributes, content in read.scripts if not attributes.get("type")]
    assert len(scripts) == 1
    for rule, content in (("script-src", scripts[0]), ("style-src", read.style)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    for _, attributes in read.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_on_every_ground(theme):
    style = (page.ASSETS / "page.css").read_text(encoding="utf-8")
    colours = {name: pair[theme] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}
    pairs = [(text, ground) for text in ("text", "quiet", "link") for ground in ("ground", "raised", "sunk")]
    pairs += [(name, f"{name}-ground") for name in ("good", "bad", "none")] + [("raised", "c0"), ("ground", "text")]
    for text, ground in pairs:
        low, high = sorted(_luminance(colours[name]) for name in (text, ground))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"
    for number in range(curves.COLOURS):  # lines and marks
        low, high = sorted(_luminance(colours[name]) for name in (f"c{number}", "raised"))
        assert (high + 0.05) / (low + 0.05) >= 3, f"c{number}"


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_names_from_outside_are_text_and_nothing_else(tmp_path):
    bad = FakeArm(HOSTILE, "fill", ceiling=18.0, rate=0.1, steps=96, batch=8)
    store = fake_page.FakeStore(arms=(ARMS[0], bad), comparison={"description": HOSTILE, "name": HOSTILE})
    bad_name = type("Named", (FakeArm,), {"name": "bad.fill"})
    store.arms = (ARMS[0], bad_name(**vars(bad)))
    folder = store.write(tmp_path / "store")
    said = fake_page.verdict(reason=HOSTILE, folders=(HOSTILE,), status=HOSTILE)
    read = Reader(page.render([folder], [said]))
    assert HOSTILE in read.text
    assert len([tag for tag, _ in read.elements if tag == "script"]) == len(read.scripts) == 2
    assert not any(attributes.get("src") == "x" for _, attributes in read.elements)
    assert not any("onerror" in attributes for _, attributes in read.elements)
    assert f"{HOSTILE} (fill)" in read.data[0]["samples"]["arms"]


@given(st.text())
def test_data_in_a_script_element_comes_back_and_cannot_end_it(value):
    made = str(page._data({"text": value}))
    assert json.loads(made) == {"text": value}
    assert "<" not in made


def test_verdicts_with_their_status_source_and_command(text, read):
    for number in range(4):
        assert f"claim number {number} of a paper" in read.text
    assert "2 reproduced" in read.text
    assert "1 not testable here" in read.text
    assert "isochron run nvs" in read.text
    assert 'id="claims"' in text


def test_a_verdict_leads_to_the_results_behind_it(folder):
    read = Reader(page.render([folder], [fake_page.verdict(folders=("cpu-2core/nvs-tiny", "h200/nvs-small"))]))
    assert any(attributes.get("href") == "#nvs-tiny" for _, attributes in read.elements)
    assert "h200/nvs-small" in read.text


def test_what_was_decided_comes_first(folder):
    text = page.render([folder], [fake_page.verdict(number) for number in (2, 1, 0)])
    places = [text.index(f"claim number {number} of a paper") for number in range(3)]
    assert places == sorted(places), "reproduced, not reproduced, not testable here"


def test_without_verdicts_there_is_no_such_part(folder):
    text = page.render([folder])
    assert 'id="claims"' not in text
    assert 'id="by-status"' not in text


def test_two_folders_of_one_name_have_addresses_of_their_own(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "h200" / "nvs-tiny")
    read = Reader(page.render([folder, other]))
    ids = [attributes["id"] for _, attributes in read.elements if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    assert {"nvs-tiny", "nvs-tiny-2"} <= set(ids)


def test_addresses_within_the_page_all_lead_somewhere(read):
    ids = {attributes.get("id") for _, attributes in read.elements}
    targets = {a["href"][1:] for _, a in read.elements if (a.get("href") or "").startswith("#")}
    assert targets - {"all"} <= ids


def test_an_unfinished_comparison_says_so(tmp_path):
    folder = fake_page.write(tmp_path / "store", status="running", statuses={("efficient-lvsm.fill", 1): "not started"})
    text = page.render([folder])
    assert "incomplete: 11 of 12 runs finished" in text


def test_a_comparison_without_any_finished_run_has_no_curves_and_no_numbers(tmp_path):
    statuses = {(arm.name, seed): "diverged" for arm in ARMS for seed in range(3)}
    made = comparison.gather(open_comparison(fake_page.write(tmp_path / "store", statuses=statuses)), "x")
    assert (made.charts, made.ledger, made.grid, made.data["samples"]) == ((), None, None, None)
    assert "diverged" in page.render([tmp_path / "store"])


def test_mistakes_are_named_and_nothing_is_written(folder, tmp_path):
    out = tmp_path / "report.html"
    with pytest.raises(UserError, match="none is given"):
        page.write([], out)
    with pytest.raises(UserError, match=r"holds neither comparison\.json nor efficiency\.json"):
        page.write([folder, tmp_path], out)
    with pytest.raises(UserError, match="name a file"):
        page.write([folder], tmp_path)
    with pytest.raises(UserError, match="run `make bench-time-budget` first"):
        page.find(tmp_path / "results", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_published_folders_are_meant_before_runs(folder, tmp_path):
    published = shutil.copytree(folder, tmp_path / "results" / "cpu-2core" / "nvs-tiny")
    run = shutil.copytree(folder, tmp_path / "runs" / "nvs-tiny-1")
    assert page.find(tmp_path / "results", tmp_path / "runs") == [published]
    assert page.find(tmp_path / "nothing", tmp_path / "runs") == [run]


# ------------------------------------------------------------------------------------------------------ provenance


def test_every_row_names_files_that_are_there(folder):
    summary = summarise(open_comparison(folder))
    for section in tables.build(summary.comparison).sections:
        for row, source in zip(section.rows, of_rows(summary, section), strict=True):
            for file in source.files:
                assert list(folder.glob(file.split(":")[0])), file
            if row[1].text == "–":
                assert source.files == ("references.json",)


def test_a_paired_row_names_the_runs_of_both_arms(full):
    summary = summarise(full)
    section = next(section for section in tables.build(full).sections if section.title.startswith("Paired"))
    assert section.rows[0][1].text == "fill"
    assert of_rows(summary, section)[0].runs == (
        "efficient-lvsm.fill: seeds 0, 1, 2",
        "lvsm-decoder-only.fill: seeds 0, 1, 2",
    )


def test_runs_that_did_not_finish_stand_behind_no_number(trouble):
    section = tables.build(trouble).sections[0]
    assert of_rows(summarise(trouble), section)[1].runs == ("efficient-lvsm.fill: seeds 0, 2",)


def test_commit_and_device(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "x")
    assert "not recorded" in page.render([copy])
    (copy / "provenance").mkdir()
    (copy / "provenance" / "git.json").write_text('{"commit": "abc123", "dirty": true}')
    origin = Reader(page.render([copy])).data[0]["origin"]
    assert origin["commit"] == "abc123, with changes (provenance/git.diff)"
    assert origin["device"] == "Fake 2-core CPU, 1 thread, torch 2.15.0"


# ---------------------------------------------------------------------------------------------------- curves, bars


def test_curves_show_the_mean_over_seeds_in_every_view(full):
    summary = summarise(full)
    charts = curves.charts(summary)
    assert tuple(chart.view for chart in charts) == VIEWS
    for chart in charts:
        for arm, line in zip(summary.arms, chart.lines, strict=True):
            ends = [curve.quality[-1] for curve in summary.curves[arm.arm.name].values()]
            last = line.points[-1]
            assert (last.mean, last.lowest, last.highest) == tuple(
                f"{value:.2f}" for value in (np.mean(ends), min(ends), max(ends))
            )
            assert [point.annealed for point in line.points] == [False, False, False, False, True]
            assert sorted(point.x for point in line.points) == [point.x for point in line.points]


def test_better_is_higher_on_the_page(full):
    chart = curves.charts(summarise(full))[0]
    points = sorted((point for line in chart.lines for point in line.points), key=lambda point: float(point.mean))
    assert points[0].y > points[-1].y
    assert all(0 < point.y < curves.HEIGHT and 0 < point.x < curves.WIDTH for point in points)


def test_a_start_that_would_squash_the_rest_is_cut_off_and_the_page_says_so(folder, tmp_path):
    assert not any(chart.cut for chart in curves.charts(summarise(open_comparison(folder))))
    copy = shutil.copytree(folder, tmp_path / "x")
    for path in copy.glob("runs/*/*/evals.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for record in lines[0]["records"]:
            record["psnr"] = -300.0
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = curves.charts(summarise(open_comparison(copy)))[0]
    assert chart.cut
    assert all(line.points[0].y > curves.HEIGHT > line.points[1].y for line in chart.lines)
    read = Reader(page.render([copy]))
    assert "The untrained start lies outside" in read.text
    assert any("-300.00" in row for row in read.rows)


@given(st.lists(st.floats(curves.TOP, curves.HEIGHT - curves.BOTTOM), max_size=6))
def test_names_of_baselines_do_not_overlap_and_stay_within(heights):
    placed = curves._apart(sorted(heights, reverse=True))
    assert all(before - after >= 15 - 1e-9 for before, after in itertools.pairwise(placed))
    assert all(curves.TOP < height <= curves.HEIGHT for height in placed)


def test_one_seed_has_no_band(single):
    assert {line.band for chart in curves.charts(summarise(single)) for line in chart.lines} == {""}


def test_a_baseline_far_away_is_told_and_not_drawn(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "x")
    found = json.loads((copy / "references.json").read_text())
    for record in found[0]["records"]:
        record["psnr"] = -400.0
    (copy / "references.json").write_text(json.dumps(found))
    chart = curves.charts(summarise(open_comparison(copy)))[0]
    assert chart.beyond == ("mean colour: -400.00",)
    assert [label for _, _, label in chart.references] == ["nearest view", "depth warp"]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
def test_ticks_are_round_even_and_within(low, span):
    found = [value for value, _ in curves.ticks(low, low + span)]
    assert 2 <= len(found) <= 12
    steps = np.diff(found)
    assert np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9)
    assert found[0] >= low - 1e-6 * span
    assert found[-1] <= low + span + 1e-6 * span
    assert re.fullmatch(r"(1|2|2\.5|5)(\.0+)?e[+-]\d+", f"{steps[0]:.1e}") or math.isclose(
        steps[0] % 1, 0, abs_tol=1e-6
    )


def test_ticks_are_written_with_the_digits_that_they_have():
    assert curves.ticks(0.0, 10.0) == [(value, f"{value:.0f}") for value in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)]
    assert [shown for _, shown in curves.ticks(0.0, 0.5)] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]


def test_bars_hold_every_second(full):
    made = ledger.gather(summarise(full).arms, full.record.budget_s)
    for bar in made.bars:
        assert math.isclose(sum(float(part.seconds) for part in bar.parts), float(bar.total), rel_tol=0.01)
        for before, after in itertools.pairwise(bar.parts):
            assert math.isclose(before.left + before.width, after.left, abs_tol=0.02)
        assert bar.parts[-1].left + bar.parts[-1].width <= 100.01
    assert 0 < made.budget < 100


# -------------------------------------------------------------------------------------------------------- pictures


def test_the_layout_is_that_of_the_tasks_grid():
    source = (ROOT / "bench" / "tasks" / "grid.py").read_text()  # read, not imported: it imports torch
    said = tuple(int(re.search(rf"^{name} = (\d+)$", source, re.M)[1]) for name in ("GAP", "HEADER"))
    assert said == (pictures.GAP, pictures.HEADER) == (fake_page.GAP, fake_page.HEADER)


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from((64, 128, 132, 192)))
def test_tiles_are_cut_where_they_were_laid(rows, columns, edge):
    tiles = pictures.cut(fake_page.grid(rows, columns, edge, factor=1))
    assert tiles.shape == (rows, columns, edge, edge, 3)
    for row, column in ((0, 0), (rows - 1, columns - 1)):
        assert (tiles[row, column] == fake_page.tile(row, column, edge)).all()


def test_a_picture_without_gaps_is_no_grid():
    assert pictures.cut(np.zeros((150, 150, 3), np.uint8)).shape[:2] == (1, 1)
    assert pictures.cut(np.zeros((22, 22, 3), np.uint8)) is None


def test_whole_pixel_enlargement_is_undone_without_a_loss(folder):
    grid = comparison.gather(open_comparison(folder), "x").grid
    assert grid.size == (64, 64)
    assert not grid.lossy
    assert grid.columns == ("input 1", "input 2", "ground truth", *(arm.name for arm in ARMS))
    assert grid.first_arm == 3


def test_heavy_pictures_are_reduced_and_the_page_says_so(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "x")
    noise = np.random.default_rng(0).integers(0, 250, (20 + 304 + 300, 7 * 304 - 4, 3), np.uint8)
    for gap in range(1, 7):
        noise[:, gap * 304 - 4 : gap * 304] = 255
    noise[320:324] = 255
    Image.fromarray(noise).save(copy / "pictures" / "grid.png")
    grid = comparison.gather(open_comparison(copy), "x").grid
    assert grid.size == (pictures.LARGEST, pictures.LARGEST)
    assert grid.lossy
    assert "pictures/grid.png is the original" in page.render([copy])


def test_rows_know_their_samples(folder):
    grid = comparison.gather(open_comparison(folder), "x").grid
    assert grid.samples == {f"scene-000{row // 2}/target-{row % 2}": (row,) for row in range(4)}
    assert grid.rows[3] == "scene-0001/target-1"


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        ("nvs", ["test/0000/03", "test/0000/05", "test/0001/13"], {"test/0000/03": (0,), "test/0001/13": (1,)}),
        ("vos", ["t/clip-0/object-1", "t/clip-0/object-2"], {"t/clip-0/object-1": (0, 1, 2), "t/clip-0/object-2": (0, 1, 2)}),
        ("openvocab", ["a", "b"], {"a": (0,), "b": (1,)}),
        ("tracking", ["q", "b"], {"q": (0, 1, 2)}),
        ("hydrology", ["q", "b"], {"q": (0, 1, 2, 3, 4, 5)}),
        ("someone-elses", ["a", "b"], {}),
    ],
)  # fmt: skip
def test_rows_of_each_task(task, names, expected):
    assert pictures._shown(task, 6, names, ["q"]) == expected


def test_a_damaged_picture_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "x")
    (copy / "pictures" / "grid.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"grid\.png: cannot be read"):
        page.render([copy])


def test_without_pictures_there_is_no_such_part(tmp_path):
    assert comparison.gather(open_comparison(fake_page.write(tmp_path / "x", pictures=False)), "x").grid is None


# --------------------------------------------------------------------------------------------------------- samples


def test_a_sample_has_the_mean_over_the_finished_seeds(trouble):
    summary = summarise(trouble)
    found = samples.gather(summary)
    arm = summary.arms[1]
    column = found["values"][0][found["arms"].index(arm.title)]
    for place, name in enumerate(found["names"]):
        values = [r["psnr"] for run in arm.finished for r in run.result.records if r["sample"] == name]
        assert len(values) == 2
        assert column[place] == round(sum(values) / 2, 3)


def test_what_learns_nothing_can_be_chosen_too(full):
    found = samples.gather(summarise(full))
    assert found["compared"] == len(ARMS)
    assert found["arms"][-1] == "depth warp (learns nothing)"
    assert [metric["label"] for metric in found["metrics"]] == ["PSNR (dB)", "SSIM", "ST-LPIPS"]
    assert all(len(column) == len(found["names"]) == 16 for columns in found["values"] for column in columns)


def test_a_pooled_metric_of_one_sample_is_its_own_quotient():
    from bench.contracts import Metric

    pooled = Metric("miou", "mIoU (%)", True, digits=1, aggregate="pooled")
    assert samples._alone({"sky": [1, 4], "sea": [3, 4]}, pooled) == 50.0
    assert samples._mean([], pooled) is None
    assert samples._mean([{"sky": [0, 0]}], pooled) is None


# ------------------------------------------------------------------------------------------------------ efficiency


def test_a_measurement_without_training_shows_its_tables_and_figures():
    folder = ROOT / "results" / "cpu-2core" / "efficiency-tracking-tiny"
    read = Reader(page.render([folder]))
    stored = (folder / "paper" / "tables.md").read_text(encoding="utf-8")
    for title in re.findall(r"^## (.+)$", stored, re.M):
        assert title.replace("\\", "") in read.text
    assert any((a.get("src") or "").startswith("data:image/png") for tag, a in read.elements if tag == "img")
    assert read.data[0]["sources"][0]["files"][0] == "counts.jsonl"
