"""Comparisons on data from disk, through the command: every layout trains, is scored, and verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data import test_objects, test_transforms
from tests.data.re10k_data import clip, write_evaluation, write_split
from tests.experiment.helpers import PLAIN, TASK, isochron, lines, write_yaml

pytestmark = pytest.mark.slow

VIEWS = {"input_views": 2, "target_views": 2, "eval_targets": 2, "validation_scenes": 1, "train_scenes": None}
SHAPE = (360, 640)


@pytest.fixture(scope="module")
def re10k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips to train on, in two chunks, and two to test, as pixelSplat's chunks, with an evaluation index."""
    root = tmp_path_factory.mktemp("re10k")
    train = [clip(f"train{number}", 30, SHAPE, number) for number in range(2)]
    write_split(root / "train", train[:1], train[1:])
    write_split(root / "test", [clip("first", 30, SHAPE, 2), clip("second", 30, SHAPE, 3)])
    write_evaluation(root / "index.json", first=([0, 29], [5, 10]), second=([0, 29], [0, 20]), third=None)
    return root


def train(tmp_path: Path, **task: Any) -> Path:
    """One arm: what it trains on is in question, and every arm is measured anew on other data."""
    source = write_yaml(tmp_path / "real.yaml", [PLAIN], budget="3 steps", task={**TASK, **VIEWS, **task})
    outcome = isochron("run", source, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert isochron("verify", tmp_path / "out").code == 0
    return tmp_path / "out"


def samples(folder: Path) -> set[str]:
    return {record["sample"] for record in lines(folder / "runs/plain/seed-0/evals.jsonl")[-1]["records"]}


def test_real_estate_in_both_layouts_gives_the_same_result(re10k: Path, tmp_path: Path) -> None:
    assert isochron("convert-re10k", re10k, tmp_path / "tree").code == 0
    options = {"data": "re10k", "evaluation_index": str(re10k / "index.json"), "extra_input_views": [3]}
    results = []
    for place in (re10k, tmp_path / "tree"):
        (tmp_path / place.name).mkdir(exist_ok=True)
        folder = train(tmp_path / place.name, data_path=str(place), **options)
        assert samples(folder) == {"test/first/00005", "test/first/00010", "test/second/00000", "test/second/00020"}
        results.append([event["loss"] for event in lines(folder / "runs/plain/seed-0/events.jsonl")])
        table = " ".join((folder / "table.md").read_text().split())
        assert "PSNR, 3 inputs (dB)" in table
        assert "25.0 % of the targets are input views (1 of 2 scenes) at 2 inputs" in table, (
            "a target of the second scene is one of its inputs"
        )
    assert results[0] == results[1]


def test_scenes_that_leak_are_left_out_on_request(re10k: Path, tmp_path: Path) -> None:
    index = str(re10k / "index.json")
    folder = train(tmp_path, data="re10k", data_path=str(re10k), evaluation_index=index, clean_evaluation=True)
    assert samples(folder) == {"test/first/00005", "test/first/00010"}


def test_rendered_objects(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        uids = [f"object{number}{letter}" for letter in "ab"]
        for uid in uids:
            test_objects.write_object(tmp_path / "data" / uid, views=32)
        (tmp_path / f"data/{split}.json").write_text(json.dumps({uid: uid for uid in uids}))
    folder = train(tmp_path, data="objects", data_path=str(tmp_path / "data"))
    assert len(samples(folder)) == 4


def test_a_scene_with_a_transforms_file(tmp_path: Path) -> None:
    test_transforms.write_scene(tmp_path / "data", count=24)
    folder = train(tmp_path, data="transforms", data_path=str(tmp_path / "data"), neighbours=6)
    assert len(samples(folder)) == 2, "two of the three held-out frames: TASK asks for two scenes"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"data": "re10k"}, "task.data_path is not set"),
        ({"data": "objects", "data_path": "nowhere"}, "task.data_path: nowhere is no folder"),
        ({"data": "transforms", "data_path": ".", "evaluation_index": "a.json"}, "only re10k has it"),
        ({"clean_evaluation": True}, "task.clean_evaluation needs task.evaluation_index"),
        ({"neighbours": 3}, "task.neighbours: only transforms has it"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, task: dict[str, Any], says: str) -> None:
    source = write_yaml(tmp_path / "real.yaml", task={**TASK, **task})
    assert says in isochron("run", source, "--out", tmp_path / "out").line


def test_a_relative_path_means_the_same_folder_from_everywhere(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_transforms.write_scene(tmp_path / "data", count=24)
    monkeypatch.syspath_prepend(repo_root)
    monkeypatch.chdir(tmp_path)
    folder = train(tmp_path, data="transforms", data_path="data")
    monkeypatch.chdir(repo_root)
    outcome = isochron("replay", folder / "runs/plain/seed-0")
    assert outcome.code == 0, outcome.err


def test_nothing_to_convert_is_one_line(tmp_path: Path) -> None:
    assert "holds neither train nor test" in isochron("convert-re10k", tmp_path, tmp_path / "tree").line
