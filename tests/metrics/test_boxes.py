"""Agreement of boxes: by hand, against slow definitions and torchvision, and finite with its gradient for any boxes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from bench.metrics import boxes

corner = st.floats(-1, 2, width=32)
side = st.floats(0.015625, 1, width=32)
proper = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)
large = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, *[st.floats(0.125, 1, width=32)] * 2)
anything = st.lists(st.one_of(corner, st.sampled_from([0.0, 0.5, -1e4, 1e4])), min_size=4, max_size=4)


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def slow_iou(first: list[float], second: list[float], margin: float = 0.0) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0]) + margin
    height = min(first[3], second[3]) - max(first[1], second[1]) + margin
    shared = width * height if width > 0 and height > 0 else 0.0
    areas = [(box[2] - box[0] + margin) * (box[3] - box[1] + margin) for box in (first, second)]
    return shared / (sum(areas) - shared)


@given(proper, proper)
def test_iou_is_the_slow_one_in_both_conventions(first: list[float], second: list[float]) -> None:
    pair = tensor(first), tensor(second)
    assert float(boxes.iou(*pair)) == pytest.approx(slow_iou(first, second), abs=1e-9)
    assert float(boxes.iou(*pair, inclusive=True)) == pytest.approx(slow_iou(first, second, 1.0), abs=1e-9)
    assert float(boxes.iou(*pair)) == float(boxes.iou(*reversed(pair)))


def test_inclusive_pixels_add_one_to_each_side() -> None:
    pair = tensor([0, 0, 9, 9]), tensor([5, 0, 14, 9])
    assert float(boxes.iou(*pair)) == pytest.approx(36 / 126)
    assert float(boxes.iou(*pair, inclusive=True)) == pytest.approx(50 / 150)


@given(large, large)
def test_giou_and_ciou_are_those_of_torchvision(first: list[float], second: list[float]) -> None:
    pair = tensor(first), tensor(second)
    # Theirs adds 1e-7 to every area.
    assert 1 - float(boxes.giou(*pair)) == pytest.approx(float(generalized_box_iou_loss(*pair)), abs=3e-5)
    assert 1 - float(boxes.ciou(*pair)) == pytest.approx(float(complete_box_iou_loss(*pair)), abs=3e-5)


def test_values_by_hand() -> None:
    first, second = tensor([0, 0, 2, 2]), tensor([1, 1, 3, 3])
    assert float(boxes.iou(first, second)) == pytest.approx(1 / 7)
    assert float(boxes.giou(first, second)) == pytest.approx(1 / 7 - 2 / 9)
    assert float(boxes.ciou(first, second)) == pytest.approx(1 / 7 - 2 / 18)
    wide = tensor([0, 0, 4, 1])
    v = 4 / math.pi**2 * (math.atan(4) - math.atan(1)) ** 2
    overlap = 2 / 6
    expected = overlap - (1 + 0.25) / 20 - v**2 / (1 - overlap + v)
    assert float(boxes.ciou(first, wide)) == pytest.approx(expected)
    for agreement in (boxes.iou, boxes.giou, boxes.ciou):
        assert float(agreement(first, first)) == pytest.approx(1)


@settings(max_examples=200)
@given(anything, proper)
def test_any_prediction_is_finite_and_so_is_its_gradient(predicted: list[float], target: list[float]) -> None:
    for agreement in (boxes.giou, boxes.ciou):
        leaf = torch.tensor([predicted], requires_grad=True)
        value = agreement(leaf, torch.tensor([target]))
        value.sum().backward()
        assert value.isfinite().all()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert float(value.detach()) <= 1 + 1e-5


@pytest.mark.parametrize("box", [[0.5, 0.5, 0.5, 0.5], [0.7, 0.7, 0.3, 0.3], [0.4, 0.6, 0.6, 0.4]])
@pytest.mark.parametrize("agreement", [boxes.giou, boxes.ciou])
def test_a_box_without_area_agrees_with_nothing_and_a_target_without_area_is_no_error(agreement, box) -> None:
    target = torch.tensor([[0.2, 0.2, 0.8, 0.8]])
    assert float(boxes.iou(torch.tensor([box]), target)) == 0
    for pair in ((torch.tensor([box]), target), (target, torch.tensor([box])), (torch.tensor([box]),) * 2):
        leaf = pair[0].clone().requires_grad_()
        agreement(leaf, pair[1]).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("agreement", [boxes.giou, boxes.ciou])
def test_descent_turns_a_box_of_negative_size_into_the_target(agreement) -> None:
    """With L1 beside it, as the task's loss has it."""
    target = torch.tensor([[0.3, 0.4, 0.6, 0.5]])
    box = torch.tensor([[0.9, 0.9, 0.8, 0.8]], requires_grad=True)
    optimizer = torch.optim.Adam([box], lr=0.02)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 400)
        optimizer.zero_grad()
        (2 * (1 - agreement(box, target)).mean() + 5 * (box - target).abs().mean()).backward()
        optimizer.step()
    assert float(boxes.iou(box, target).detach()) > 0.97


def test_corners_of_centres_keep_the_sign_of_a_size() -> None:
    assert boxes.corners_of_centres(tensor([0.5, 0.25, 0.5, -0.25])).tolist() == [[0.25, 0.375, 0.75, 0.125]]
