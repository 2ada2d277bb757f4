import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.report import page, tables
from bench.report.page import comparison, curves
from bench.report.page.provenance import of_rows
from bench.report.summary import summarise
from bench.store.read import open_comparison
from tests.report import fake_page
from tests.report.fake_page import HOSTILE, Reader
from tests.report.fake_store import ARMS, FakeArm

ROOT = Path(__file__).resolve().parents[2]


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
    assert len([tag for tag, _ in read.elements if tag == "script"]) == len(read.scripts) == 3
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
    with pytest.raises(UserError, match=r"holds no comparison\.json, efficiency\.json or scaling\.json"):
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
