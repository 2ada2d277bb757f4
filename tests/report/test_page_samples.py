import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import UserError
from bench.report import page
from bench.report.page import comparison, pictures, samples
from bench.report.summary import summarise
from bench.store.read import open_comparison
from tests.report import fake_page
from tests.report.fake_store import ARMS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_page.write(tmp_path_factory.mktemp("page") / "cpu-2core" / "nvs-tiny")


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
    column = unpack(found, 0)[found["arms"].index(arm.title)]
    for place, name in enumerate(found["names"]):
        values = [r["psnr"] for run in arm.finished for r in run.result.records if r["sample"] == name]
        assert len(values) == 2
        assert column[place] == round(sum(values) / 2, 3)


def test_what_learns_nothing_can_be_chosen_too(full):
    found = samples.gather(summarise(full))
    assert found["compared"] == len(ARMS)
    assert found["arms"][-1] == "depth warp (learns nothing)"
    assert [metric["label"] for metric in found["metrics"]] == ["PSNR (dB)", "SSIM", "ST-LPIPS"]
    assert all(len(column) == len(found["names"]) == 16 for index in range(3) for column in unpack(found, index))


def unpack(found, index):
    """What the page's script makes of packed values: [arms][samples]."""
    packed, count = found["values"][index], len(found["names"])
    codes = np.frombuffer(base64.b64decode(packed["codes"]), "<u4" if packed["wide"] else "<u2").tolist()
    unit = 10.0 ** found["metrics"][index]["digits"]
    values = [(packed["least"] + code - 1) / unit if code else None for code in codes]
    return [values[start : start + count] for start in range(0, len(values), count)]


NUMBERS = st.one_of(st.none(), st.integers(-(10**7), 10**7).map(lambda number: number / 1000))


@given(st.integers(1, 5).flatmap(lambda count: st.lists(st.lists(NUMBERS, min_size=count, max_size=count), min_size=1)))
def test_packed_numbers_come_back_as_they_were_shown(columns):
    found = {
        "values": [samples.pack(columns, 3)],
        "names": columns[0],
        "metrics": [{"digits": 3}],
    }
    assert unpack(found, 0) == columns


def test_a_sample_says_whose_runs_are_behind_it(folder):
    data = comparison.gather(open_comparison(folder), "x").data
    for arm, source in zip(data["samples"]["arms"], data["samples"]["sources"], strict=True):
        runs = data["sources"][source]["runs"]
        label = arm.partition(" (")[0]
        assert runs == ("learns nothing: no run",) if "learns nothing" in arm else runs[0].startswith(label)


def test_a_pooled_metric_of_one_sample_is_its_own_quotient():
    from bench.contracts import Metric

    pooled = Metric("miou", "mIoU (%)", True, digits=1, aggregate="pooled")
    assert samples._alone({"sky": [1, 4], "sea": [3, 4]}, pooled) == 50.0
    assert samples._mean([], pooled) is None
    assert samples._mean([{"sky": [0, 0]}], pooled) is None
