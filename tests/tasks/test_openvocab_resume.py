"""A run whose model keeps what it read comes to the same bits when it is killed and goes on, and when it is done again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.engine.progress import ReplayedBudget
from bench.engine.step import StepSettings
from bench.engine.trainer import Trainer
from bench.tasks.openvocab import OpenVocabulary, OpenVocabularyConfig
from models.catseg import PRESETS, CATSeg
from tests.engine.fakes import MemoryRecorder, make_trainer, same, weights_of
from tests.tasks.openvocab_data import Tiles

SIZE = 32
STEPS = 6


def trainer(**changes: Any) -> Trainer:
    """Of `CATSeg` with frozen text of one layer, on tiles; lists of four names of six, so that names are met over several steps."""
    config = replace(PRESETS["tiny"], text_training="cached", text_layers=1, crop_size=SIZE, resolution=(4, 4))
    of_task = OpenVocabularyConfig(crop_size=SIZE, classes_per_list=4, text_length=8, words_images=0)
    return make_trainer(
        build=partial(CATSeg, config),
        task=OpenVocabulary(of_task, Path("nowhere"), partial(Tiles, sizes=((SIZE, SIZE),))),
        **{"batch": 1, "unit": "steps", "budget": STEPS, "step": StepSettings(learning_rate=1e-3), **changes},
    )


def records(of: Trainer) -> MemoryRecorder:
    assert isinstance(of._recorder, MemoryRecorder)
    return of._recorder


def finished(made: Trainer) -> Trainer:
    made.advance(1.0)
    made.finish("finished")
    return made


@pytest.mark.slow
def test_cached_text_leaves_no_trace_in_a_run_that_is_killed_or_replayed() -> None:
    whole, killed, resumed = trainer(), trainer(), trainer()
    for made in (whole, killed, resumed):
        made.set_up()
    killed.advance(1 / 2)
    killed.save()
    killed.advance(5 / 6)  # lost, but read
    torch.manual_seed(7)
    resumed.restore(*records(killed).states[-1], lost_seconds=0.0)
    finished(whole)
    finished(resumed)
    assert len(records(whole).events) == STEPS
    assert same(weights_of(resumed), weights_of(whole))
    assert records(resumed).evaluations == records(whole).evaluations[-1:]
    trace = [event["p"] for event in records(killed).events[: STEPS // 2] + records(resumed).events]
    again = trainer(budget=ReplayedBudget(trace), eval_fractions=(1.0,))
    again.set_up()
    assert same(weights_of(finished(again)), weights_of(whole))
