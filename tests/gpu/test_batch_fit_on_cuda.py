"""The batch that fills a CUDA device, found by real probes in fresh processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import config
from bench.console import Console
from bench.experiment.survey import survey

pytestmark = pytest.mark.gpu


def test_both_arms_fill_the_device_to_between_90_and_95_percent(cache: Path, repo_root: Path) -> None:
    overrides = {"device": "cuda", "task": {"perceptual": "none", "train_scenes": 100_000}, "batch": ["fill"]}
    comparison = config.load("nvs", preset="small", overrides=overrides)
    found = survey(comparison, console=Console(quiet=True), cache_dir=cache)
    total = torch.cuda.get_device_properties(0).total_memory
    for label, fit in found.items():
        chosen = next(point for point in fit["curve"] if point["batch"] == fit["max_fit"])
        assert chosen["fits"], label
        assert 0.90 <= chosen["peak_bytes"] / total <= 0.95, (label, chosen["peak_bytes"] / total)
        assert len(fit["curve"]) <= 6, label
    assert set(found) == {"lvsm-decoder-only", "efficient-lvsm"}
