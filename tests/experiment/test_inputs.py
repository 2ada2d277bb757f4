"""What architectures read and what the task gives are compared before anything is built or any data made."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import config
from bench.config import ArmConfig
from bench.errors import UserError
from bench.experiment import resolve
from bench.experiment.check import check_architecture
from models.catseg import PRESETS


def expand(architecture: str, data: str, **more: Any) -> None:
    arms = [{"name": "one", "architecture": architecture}]
    content = {"name": "inputs", "task": {"name": "openvocab", "data": data}, "arms": arms, "budget": "1s", **more}
    resolve.expand(config.validate(content, "test"))


@pytest.mark.parametrize(
    ("architecture", "data", "reads", "gives", "mend"),
    [
        ("catseg", "aligned", "image, names", "image_features, text_features, ", "set task.data: embedded"),
        ("catseg-aggregator", "embedded", "image_features, text_features, ", "image, names", "set task.data: aligned"),
        ("catseg-aggregator", "voc-20", "image_features, text_features, ", "image, names", "set task.data: aligned"),
        ("mae", "embedded", "images, noise", "image, names", "take another architecture"),
    ],
)
def test_an_architecture_for_other_data_is_one_line(
    architecture: str, data: str, reads: str, gives: str, mend: str
) -> None:
    with pytest.raises(UserError) as error:
        expand(architecture, data)
    line = str(error.value)
    assert line.startswith(f"arms.one: {architecture} reads {reads}")
    assert f"but the task gives {gives}" in line
    assert f"; {mend}" in line
    assert line.endswith("take another architecture")


def test_pretraining_is_refused_by_its_own_data() -> None:
    arm = {"name": "start", "architecture": "catseg"}
    expand("catseg", "embedded", pretraining={"arm": arm, "steps": 1, "batch": 1})
    with pytest.raises(UserError, match=r"pretraining\.arm: catseg reads image, names, but the task gives image_feat"):
        expand("catseg", "embedded", pretraining={"arm": arm, "steps": 1, "batch": 1, "task": {"data": "aligned"}})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("nonsense=1", "options.nonsense: unknown option of CATSeg"),
        ("inference=none", "options: inference must be one of"),
    ],
)
def test_check_refuses_a_wrong_option_before_it_checks(change: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        check_architecture("catseg", "openvocab", "tiny", [change], tmp_path, "cpu")


def test_what_a_design_says_of_an_option_when_it_is_built_names_the_arm() -> None:
    arm = ArmConfig(name="a", architecture="catseg", options={**asdict(PRESETS["paper"]), "clip_weights": "nowhere.pt"})
    with pytest.raises(UserError, match=r"arms\.a\.options: clip_weights must be a file or"):
        resolve.build(arm)


class Task:
    input_fields = ("x", "y")


class Open:
    def forward(self, x: Any, **others: Any) -> None: ...


class Closed:
    def forward(self, x: Any, y: Any = None, z: Any = None) -> None: ...


class Short:
    def forward(self, x: Any) -> None: ...


def make() -> Short:
    return Short()


@pytest.mark.parametrize("name", ["Open", "Closed", "make"])
def test_who_takes_all_fields_or_may_take_them_is_let_through(name: str) -> None:
    resolve.require_data(ArmConfig(name="a", factory=f"{__name__}:{name}"), "arms.a", Task, {})


def test_fields_of_the_task_are_asked_for_where_they_do_not_follow_from_its_data() -> None:
    arm = ArmConfig(name="a", factory=f"{__name__}:Short")
    with pytest.raises(UserError, match=r"arms\.a: .*:Short reads x, but the task gives x, y with these options; take"):
        resolve.require_data(arm, "arms.a", Task, {"data": "any"})
