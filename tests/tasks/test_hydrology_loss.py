"""The loss of the task ``hydrology``: its definition, what counts, and what it takes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tasks.hydrology_data import CPU, Guess, small_task, some


@pytest.fixture
def make_task(tmp_path: Path):
    return partial(small_task, tmp_path)


class Third(nn.Module):
    """Predicts the first third of the tokens in training, all if it is asked to."""

    def forward(self, predict_all=False, **inputs):
        whole = Guess()(**inputs)
        return whole if predict_all else {name: value[:, :, : value.shape[2] // 3] for name, value in whole.items()}


def test_the_loss_is_the_sum_of_the_modalities_mean_errors_over_their_targets(make_task) -> None:
    task = make_task(window_jitter=0.25, missing_modality=0.3)
    batch = task.collate(*some(task, 12))
    loss = task.loss(Guess(0.5)(**batch), batch)
    expected = 0.0
    for role, count in (("image", 3), ("series", 2)):
        for place in range(count):
            mask = batch[f"{role}_target_mask"][:, place]
            expected += float((batch[f"{role}_targets"][:, place][mask] - 0.5).square().mean())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_sea_and_padding_do_not_reach_the_loss(make_task) -> None:
    task = make_task(missing_modality=0.3)
    batch = task.collate(*some(task))
    outputs = Guess(0.5)(**batch)
    spoiled = {
        name: torch.where(batch[name.replace("prediction", "target_mask")], value, torch.tensor(1e6))
        for name, value in outputs.items()
    }
    assert task.loss(spoiled, batch) == task.loss(outputs, batch)


def test_a_batch_without_targets_has_no_loss_and_finite_gradients(make_task) -> None:
    task = make_task(missing_modality=0.3)
    batch = task.edge_cases(2)["all visible"]
    prediction = {name: value.requires_grad_() for name, value in Guess(0.5)(**batch).items()}
    loss = task.loss(prediction, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not prediction["image_prediction"].grad.any()


def test_training_may_predict_the_first_tokens_alone_but_evaluation_wants_all(make_task) -> None:
    task = make_task()
    batch = task.collate(*some(task))
    outputs = Third()(**batch)
    few = outputs["image_prediction"].shape[2]
    mask = batch["image_target_mask"][:, :, :few]
    target = batch["image_targets"][:, :, :few]
    images = sum(float(target[:, place][mask[:, place]].square().mean()) for place in range(3))
    series = float(batch["series_targets"][:, :, :2].square().mean(dim=(0, 2)).sum())
    assert float(task.loss(outputs, batch)) == pytest.approx(images + series, rel=1e-5)
    assert task.evaluate(Third(), CPU) == task.evaluate(Guess(), CPU)

    class Never(nn.Module):
        def forward(self, **inputs):
            return Third()(**inputs)

    with pytest.raises(ValueError, match=r"image_prediction must be \[B, K, M, P\] = .* all predicted tokens"):
        task.evaluate(Never(), CPU)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda outputs: {}, "forward must return the key 'image_prediction', got nothing"),
        (
            lambda outputs: {**outputs, "image_prediction": outputs["image_prediction"][..., :3]},
            "image_prediction must be",
        ),
        (
            lambda outputs: {**outputs, "series_prediction": outputs["series_prediction"][0]},
            "series_prediction must be",
        ),
    ],
)
def test_outputs_of_another_form_are_refused(make_task, spoil, line) -> None:
    task = make_task()
    batch = task.collate(*some(task))
    with pytest.raises(ValueError, match=re.escape(line)):
        task.loss(spoil(Guess()(**batch)), batch)
