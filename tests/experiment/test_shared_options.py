"""Options that an architecture shares with its task: said once, for all arms alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from bench.errors import UserError
from bench.experiment import resolve


@dataclass(frozen=True)
class TaskConfig:
    patch_size: int = 8
    crops: int = 2

    def shared_options(self) -> Mapping[str, Any]:
        return {"patch_size": self.patch_size, "mask_ratio": 0.75}


@dataclass(frozen=True)
class ModelConfig:
    patch_size: int = 16
    width: int = 32


class Task:
    config_class = TaskConfig


class Model:
    config_class = ModelConfig


def test_an_arm_takes_over_what_its_configuration_knows() -> None:
    shared = resolve.shared_options(Task, {"name": "fake", "patch_size": 4})
    assert resolve.with_shared(Model, {"width": 64}, shared, "arms.a.options") == {"width": 64, "patch_size": 4}
    assert resolve.with_shared(Model, {"patch_size": 4}, shared, "arms.a.options") == {"patch_size": 4}


def test_another_value_than_the_tasks_is_refused() -> None:
    shared = resolve.shared_options(Task, {"name": "fake"})
    with pytest.raises(
        UserError, match=r"arms\.a\.options\.patch_size: is 16, but the task's options make it 8; leave it out"
    ):
        resolve.with_shared(Model, {"patch_size": 16}, shared, "arms.a.options")


def test_a_factory_and_a_task_without_any_are_left_alone() -> None:
    assert resolve.with_shared(lambda: None, {"mask_ratio": 0.5}, {"mask_ratio": 0.75}, "options") == {
        "mask_ratio": 0.5
    }
    assert resolve.shared_options(Model, {}) == {}
