"""The hydrology model on a CUDA device: padded, packed and with packed attention, against the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from models.layers.packed import varlen_problem
from tests.models.hydrology_batches import VARIANTS, build, ragged_batch, random_batch

pytestmark = pytest.mark.gpu

HEADS_OF_8 = {"width": 32, "heads": 4, "decoder_width": 16, "decoder_heads": 2}


def moved(batch, device):
    return {name: value.to(device) for name, value in batch.items()}


def loss(outputs):
    return sum(value.square().sum() for value in outputs.values())


@pytest.mark.parametrize("ragged", ["padded", "packed", "auto"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_outputs_and_gradients_agree_with_the_cpu(device, variant, ragged):
    here = build(variant, ragged=ragged)
    there = copy.deepcopy(here).to(device)
    for batch in (random_batch(here.config), ragged_batch(here.config)):
        expected, found = here(**batch), there(**moved(batch, device))
        for name in expected:
            torch.testing.assert_close(found[name].cpu(), expected[name], atol=1e-4, rtol=1e-3)
        here.zero_grad()
        there.zero_grad()
        loss(expected).backward()
        loss(found).backward()
        for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
            if one.grad is not None:
                assert (other.grad.cpu() - one.grad).norm() <= 1e-2 * one.grad.norm() + 1e-6, name


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_packed_attention_agrees_with_padded(device, variant):
    if problem := varlen_problem(device, torch.bfloat16, 8):
        pytest.skip(f"no packed attention: {problem}")
    outputs, gradients = [], []
    for ragged in ("padded", "varlen"):
        model = build(variant, ragged=ragged, **HEADS_OF_8).to(device)
        with torch.autocast("cuda", torch.bfloat16):
            outputs.append(model(**moved(ragged_batch(model.config), device)))
        loss(outputs[-1]).backward()
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for padded, packed in (outputs, gradients):
        for name, value in padded.items():
            assert packed[name].isfinite().all(), name
            assert (packed[name] - value).norm() <= 0.03 * value.norm() + 1e-3, name


def test_packed_attention_in_single_precision_is_refused(device):
    model = build(ragged="varlen", **HEADS_OF_8).to(device)
    with pytest.raises(ValueError, match="fp16 or bf16"):
        model(**moved(ragged_batch(model.config), device))
