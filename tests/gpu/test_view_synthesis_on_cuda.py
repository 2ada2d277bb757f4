"""View synthesis on a CUDA device: masks, caches, image encoders and skipped steps give what they give on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.engine.step import StepSettings, make_optimizer
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
from models.layers.image_encoder import ImageEncoderConfig
from tests.models.helpers import VARIANTS, build, random_batch, select

pytestmark = pytest.mark.gpu

SIZE = (32, 32)


def moved(batch, device):
    return {name: value.to(device) for name, value in batch.items()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_outputs_and_gradients_agree_with_the_cpu(device, variant, masked):
    batch = random_batch(input_views=3, size=SIZE)
    if masked:
        batch["input_mask"] = torch.tensor([[True, False, True], [False, True, True]])
    here = build(variant).eval()
    there = copy.deepcopy(here).to(device)
    expected, found = here(**batch)["images"], there(**moved(batch, device))["images"]
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-3)
    expected.square().mean().backward()
    found.square().mean().backward()
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        if one.grad is not None:
            assert (other.grad.cpu() - one.grad).norm() <= 1e-2 * one.grad.norm() + 1e-7, name


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_bf16_is_finite_with_masks(device, variant):
    batch = moved(random_batch(input_views=3, size=SIZE), device)
    batch["input_mask"] = torch.tensor([[True, False, True], [False, True, True]], device=device)
    model = build(variant).to(device).train()
    with torch.autocast("cuda", torch.bfloat16):
        images = model(**batch)["images"]
    images.float().square().mean().backward()
    assert images.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_views_added_one_by_one_are_those_encoded_at_once(device):
    batch = moved(random_batch(input_views=3, size=SIZE), device)
    model = build("efficient-lvsm").to(device).eval()
    inputs = ("input_images", "input_c2w", "input_intrinsics")
    target = (batch["target_c2w"], batch["target_intrinsics"])
    with torch.inference_mode():
        cache = None
        for view in range(3):
            seen = model.encode(*(select(batch, "input", [view])[name] for name in inputs))
            cache = seen if cache is None else cache.append(seen)
        joint = model(**batch)["images"]
        torch.testing.assert_close(model.render(cache, *target)["images"], joint, atol=1e-5, rtol=1e-4)


def test_a_frozen_encoder_follows_its_model(device):
    config = EfficientLVSMConfig(width=64, layers=1, encoder=ImageEncoderConfig("alexnet", input_size=64))
    model = EfficientLVSM(config).eval()
    batch = random_batch(size=(64, 64))
    expected = model(**batch)["images"]
    found = model.to(device)(**moved(batch, device))["images"]
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(model.to("cpu")(**batch)["images"], expected)


def test_the_device_decides_to_skip_a_step(device):
    weight = torch.nn.Linear(4, 4, device=device)
    settings = StepSettings(learning_rate=0.1, gradient_skip=10.0)
    optimizer = make_optimizer(weight, settings)
    for value, skips in ((1.0, False), (float("nan"), True), (1.0, False)):
        before = weight.weight.detach().clone()
        weight.weight.grad = torch.full_like(weight.weight, value)
        weight.bias.grad = torch.zeros_like(weight.bias)
        optimizer.found_inf = torch.tensor(float(skips), device=device)
        optimizer.step()
        assert torch.equal(before, weight.weight) == skips
    assert optimizer.state[weight.weight]["step"].item() == 2
