"""Every shipped comparison under every preset: all arms can be built, and take what the task gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from bench.config import comparison_names, dump, load
from bench.errors import UserError
from bench.experiment import resolve


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("name", sorted(comparison_names()))
def test_every_arm_fits_its_task(name: str, preset: str, tmp_path: Path) -> None:
    comparison = resolve.expand(load(name, preset=preset))
    # Weights, such as those of the published perceptual loss, are not needed to say what would run.
    task = resolve.make_task(comparison, tmp_path)
    for arm in resolve.expand_arms(comparison):
        with torch.device("meta"):
            model = resolve.build(arm.config)
        resolve.require_inputs(model, task, arm)
        parts = resolve.pretrained_parts(model)
        named = {key for key in ("encoder", "repa") if isinstance(arm.config.options.get(key), Mapping)}
        assert len(parts) == len(named), "what was trained elsewhere is on record"


@pytest.mark.parametrize("name", sorted(comparison_names()))
def test_the_configuration_that_a_run_writes_out_can_be_run_itself(name: str, tmp_path: Path) -> None:
    written = tmp_path / "comparison.yaml"
    first = resolve.expand(load(name))
    written.write_text(dump(first))
    again = resolve.expand(load(written))
    assert dump(again) == dump(first)


def test_real_data_that_is_missing_is_one_line(tmp_path: Path) -> None:
    comparison = resolve.expand(load("nvs", preset="paper", overrides={"task": {"perceptual_loss": "none"}}))
    with pytest.raises(UserError, match=r"task\.data_path.*task\.data: scenes"):
        resolve.make_task(comparison, tmp_path).prepare()
