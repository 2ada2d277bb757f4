"""The loss of the task ``vos``: its definition, what counts, and that it stays finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.data.video.clips import VOID
from bench.tasks import vos_loss
from tests.tasks.vos_data import CPU, Copier, Nothing, batch_of, make


def slow_loss(logits: torch.Tensor, masks: torch.Tensor, start: torch.Tensor, share: float) -> float:
    """Sample by sample and frame by frame, as the definition reads."""
    total = 0.0
    for sample in range(len(logits)):
        for frame in range(1, logits.shape[1]):
            slots = [slot for slot, begun in enumerate(start[sample].tolist()) if 0 <= begun < frame]
            valid = masks[sample, frame] != VOID
            if not slots or not valid.any():
                continue
            chances = logits[sample, frame].softmax(0)[:, valid]
            truth = masks[sample, frame][valid]
            errors = -chances.gather(0, truth[None])[0].log()
            kept = errors.sort(descending=True).values[: int(np.ceil(share * len(errors)))]
            dice = []
            for slot in slots:
                p, g = chances[slot + 1], (truth == slot + 1).float()
                dice.append(1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
            total += float(kept.mean() + sum(dice) / len(dice)) / len(logits)
    return total


@pytest.mark.parametrize("share", [1.0, 0.5, 0.15])
def test_loss_is_its_definition(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, 4, 7, 9, generator=generator) * 3
    masks = torch.randint(0, 4, (5, 4, 7, 9), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = VOID
    start = torch.tensor([[0, 0, 0], [0, 2, -1], [-1, 1, 0], [3, 3, 3], [-1, -1, -1]])
    assert vos_loss.loss(logits, masks, start, share).item() == pytest.approx(
        slow_loss(logits, masks, start, share), rel=1e-4
    )


def test_the_given_frame_and_void_pixels_do_not_count() -> None:
    task = make({"void": True})
    batch = task.transfer(batch_of(task), CPU)
    logits = torch.randn(6, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    task.loss({"logits": logits}, batch).backward()
    touched = logits.grad.abs().sum(2) > 0
    void = batch["masks"] == VOID
    assert not touched[:, 0].any()
    assert not touched[void].any()
    assert touched[:, 1:][~void[:, 1:]].all()


def test_as_many_pixels_count_as_progress_says() -> None:
    asked = (None, 0.0, 0.1, 0.25, 0.4, 1.0)
    shares = [vos_loss.hardest_share(progress, 0.1, 0.4, 0.15) for progress in asked]
    assert shares == pytest.approx([1, 1, 1, 0.575, 0.15, 0.15])
    assert vos_loss.hardest_share(0.2, 0.2, 0.2, 0.3) == 0.3
    task = make()
    batch = task.transfer(batch_of(task), CPU)
    outputs = Copier()(**{name: batch[name] for name in task.input_fields})
    plain, warm, late = (task.loss(outputs, batch, progress=progress).item() for progress in (None, 0.05, 0.9))
    assert plain == warm < late


def test_a_right_answer_costs_less_than_a_wrong_one() -> None:
    task = make()
    batch = task.transfer(batch_of(task), CPU)
    right = F.one_hot(batch["masks"], 3).permute(0, 1, 4, 2, 3) * 20.0
    losses = [task.loss({"logits": logits}, batch, 1.0).item() for logits in (right, right * 0, -right)]
    assert losses[0] < 1e-3 < 1 < losses[1] < losses[2]


@pytest.mark.parametrize("name", make().edge_cases(2))
def test_degenerate_batches_have_a_finite_loss_and_gradient(name: str) -> None:
    task, model = make(), Nothing(0.3)
    batch = task.transfer(task.edge_cases(2)[name], CPU)
    loss = task.loss(model(**{field: batch[field] for field in task.input_fields}), batch, progress=0.9)
    loss.backward()
    assert loss.isfinite()
    assert model.value.grad.isfinite()


def test_wrong_outputs_are_named() -> None:
    task = make()
    batch = task.transfer(batch_of(task, 2), CPU)
    with pytest.raises(ValueError, match="forward must return the key 'logits', got masks"):
        task.loss({"masks": batch["masks"]}, batch)
    with pytest.raises(ValueError, match=r"logits must be \[B, F, 1 \+ O, H, W\] = \[2, 4, 3, 32, 32\], got \[2, 4, 2"):
        task.loss({"logits": torch.zeros(2, 4, 2, 32, 32)}, batch)
