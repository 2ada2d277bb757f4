"""Memory read-outs, vos-memory and MixFormer on a CUDA device, against the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from models.mixformer import PRESETS as ON_CVT
from models.mixformer import MixFormerCvT
from models.mixformer_vit import PRESETS as ON_VIT
from models.mixformer_vit import MixFormerViT
from models.vos_memory import PRESETS, VOSMemory
from tests.models.memory_clips import READS, build, clip

pytestmark = pytest.mark.gpu

EXACT = [read for read in READS if not read.startswith("topk") and read != "flex"]
"""Read-outs that do not depend on which of two nearly equal scores is the larger."""


def moved(batch, device):
    return {name: value.to(device) for name, value in batch.items()}


def frames(samples=2, count=5, size=64):
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(samples, 2, size, size)
    masks[:, 0, 8:30, 8:30] = masks[:, 1, 34:60, 20:50] = 1
    return {
        "frames": torch.randn(samples, count, 3, size, size, generator=generator),
        "first_masks": masks,
        "start": torch.zeros(samples, 2, dtype=torch.int64),
    }


@pytest.mark.parametrize("read", EXACT)
def test_outputs_and_gradients_of_the_backbone_agree_with_the_cpu(device, read):
    here = build(read)
    there, batch = copy.deepcopy(here).to(device), clip()
    expected, found = here(**batch), there(**moved(batch, device))
    for name in expected:
        torch.testing.assert_close(found[name].cpu(), expected[name], atol=1e-4, rtol=1e-3)
    for outputs in (expected, found):
        sum(value.square().sum() for value in outputs.values()).backward()
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        if one.grad is not None:
            assert (other.grad.cpu() - one.grad).norm() <= 1e-2 * one.grad.norm() + 1e-5, name


@pytest.mark.parametrize("read", list(READS))
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_read_out_tells_its_usage(device, read, precision):
    model, batch = build(read).to(device), moved(clip(frames=3), device)
    with torch.inference_mode(), torch.autocast("cuda", precision, enabled=precision is not torch.float32):
        query = model.encode_query(batch["query_image"])
        written = [model.write(batch["memory_images"][:, t], batch["memory_masks"][:, t]) for t in range(3)]
        result = model.read(query, written, 3, usage=True)
    assert result.f16.isfinite().all()
    tokens = query.tokens.shape[1]
    usage = result.usage.float()
    assert (usage >= -1e-3).all()
    assert (usage.sum(-1) <= tokens * 1.01).all()
    assert usage.sum() > 0


@pytest.mark.parametrize("scope", ["all", "each"])
def test_top_k_keeps_as_much_however_it_is_computed(device, scope):
    batch, usages = moved(clip(), device), []
    for name in ("scatter", "mask", "gather", "bag"):
        model = build(f"topk {scope} {name}").to(device)
        written = [model.write(batch["memory_images"][:, t], batch["memory_masks"][:, t]) for t in range(3)]
        usages.append(model.read(model.encode_query(batch["query_image"]), written, 3, usage=True).usage)
    for other in usages[1:]:
        torch.testing.assert_close(other, usages[0], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory_read": "topk", "topk": 8, "topk_scope": "all"},
        {"eviction": "usage", "max_memory_frames": 2, "memory_every": 1},
    ],
)
def test_a_clip_is_followed_and_trained_on(device, options):
    torch.manual_seed(0)
    model, batch = VOSMemory(replace(PRESETS["tiny"], **options)).to(device), moved(frames(), device)
    with torch.autocast("cuda", torch.bfloat16):
        logits = model.train()(**batch)["logits"]
    logits.float().square().mean().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    with torch.inference_mode():
        assert model.eval()(**batch)["logits"].isfinite().all()


@pytest.mark.parametrize("attention", ["asymmetric", "symmetric"])
@pytest.mark.parametrize(("tracker", "presets"), [(MixFormerCvT, ON_CVT), (MixFormerViT, ON_VIT)])
def test_a_tracker_with_kept_templates_agrees_with_the_cpu(device, tracker, presets, attention):
    torch.manual_seed(0)
    here = tracker(replace(presets["tiny"], attention=attention)).eval()
    there = copy.deepcopy(here).to(device)
    template, search = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        expected = here(template=template, online_template=template, search=search)["boxes_cxcywh"]
        cache = there.set_templates(template.to(device), template.to(device))
        torch.testing.assert_close(there.track(search.to(device), cache).cpu(), expected, atol=1e-3, rtol=1e-3)
