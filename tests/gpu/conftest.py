"""What the tests on a CUDA device share. They need no rendered data: the pixels are random.

Run them alone with ``python -m pytest -m gpu tests/gpu``; without a device each is skipped with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the command does, before CUDA starts

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.lvsm import LVSMDecoderOnly, LVSMDecoderOnlyConfig
from bench.data.arrays import ArraySplit
from bench.engine.clock import SystemClock
from bench.engine.progress import Budget, learning_rate_curve
from bench.engine.step import StepSettings
from bench.engine.trainer import RunSettings, Trainer
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lvsm-decoder-only": lambda: LVSMDecoderOnly(LVSMDecoderOnlyConfig(width=128, layers=2)),
    "efficient-lvsm": lambda: EfficientLVSM(EfficientLVSMConfig(width=128, layers=2)),
}


def random_scenes(split: str, scenes: int = 64, size: int = 64) -> ArraySplit:
    """Random pixels, cameras at random places."""
    generator = np.random.default_rng(len(split))
    c2w = np.tile(np.eye(4, dtype=np.float32), (scenes, 6, 1, 1))
    c2w[..., :3, 3] = generator.normal(size=(scenes, 6, 3))
    rgb = generator.integers(0, 255, (scenes, 6, size, size, 3), dtype=np.uint8)
    return ArraySplit(rgb=rgb, c2w=c2w, intrinsics=np.full((scenes, 6, 4), size, np.float32))


class Memory:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.state: tuple[dict[str, Tensor], dict[str, Any]] = ({}, {})
        self.weights: dict[str, Tensor] = {}
        self.ledger: dict[str, Any] = {}

    def event(self, record: Mapping[str, Any]) -> None:
        self.events.append(dict(record))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        pass

    def save_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.state = (dict(tensors), dict(meta))

    def finish(self, summary: Mapping[str, Any], ledger: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        self.ledger, self.weights = dict(ledger), dict(weights)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda")


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Deterministic kernels, as under ``deterministic: true``."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> NovelViewSynthesis:
    return NovelViewSynthesis(NVSConfig(perceptual="none"), tmp_path_factory.mktemp("unused"), random_scenes)


@pytest.fixture
def make_trainer(task: NovelViewSynthesis, device: torch.device) -> Callable[..., tuple[Trainer, Memory]]:
    """`make_trainer(arm, budget, unit=..., precision=..., build=..., batch=..., total=...)`, set up and parked."""

    def make(
        arm: str,
        budget: Budget,
        *,
        unit: str = "steps",
        precision: str = "fp32",
        build: Callable[[], nn.Module] | None = None,
        batch: int = 16,
        half_life: float | None = None,
    ) -> tuple[Trainer, Memory]:
        recorder = Memory()
        settings = RunSettings(
            arm=arm,
            seed=0,
            batch=batch,
            step=StepSettings(learning_rate=1e-3, precision=precision, ema_half_life=half_life),
            curve=learning_rate_curve("cosine", 0.05),
            eval_fractions=(),
            unit=unit,
        )
        trainer = Trainer(
            build=build or partial(BUILDERS[arm]),
            task=task,
            settings=settings,
            budget=budget,
            device=device,
            clock=SystemClock(),
            recorder=recorder,
        )
        trainer.set_up()
        return trainer, recorder

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
