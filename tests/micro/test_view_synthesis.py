"""Forward and backward of the view-synthesis arms, whole and in parts: 64 px, width 128, 4 layers, one CPU thread.

Run by ``make bench-micro``. The columns of pytest-benchmark are the times of our code; what is compared is a ratio from
interleaved runs, kept in the JSON under ``extra_info`` and printed at the end.
"""

import pytest
import torch
import torch.nn.functional as F

from baselines.lvsm import PRESETS as LVSM_PRESETS
from baselines.lvsm import LVSMDecoderOnly
from models.efficient_lvsm import PRESETS as EFFICIENT_PRESETS
from models.efficient_lvsm import EfficientLVSM
from models.layers.attention import CrossAttention, SelfAttention
from models.layers.blocks import SelfBlock, SelfCrossBlock
from tests.micro.paired import interleaved_ratio
from tests.models.helpers import random_batch
from tests.models.oracle import Oracle

ROUNDS = 15
WIDTH, HEAD_DIM, PATCHES = 128, 64, 64
VIEWS = [pytest.param(2, 2, 4, id="2to2"), pytest.param(8, 6, 1, id="8to6")]
"""Input views, target views, scenes."""


def make_model(name):
    torch.manual_seed(0)
    if name == "lvsm-decoder-only":
        return LVSMDecoderOnly(LVSM_PRESETS["tiny"])
    return EfficientLVSM(EFFICIENT_PRESETS["tiny"])


def training_step(module, forward):
    """Forward and backward of ``forward()``; the gradients of ``module`` are dropped at once."""

    def step():
        forward().square().mean().backward()
        module.zero_grad(set_to_none=True)

    return step


def plain_forward(model, batch):
    config = model.config
    oracle = Oracle(
        dict(model.named_parameters()),
        layers=config.layers,
        head_dim=config.head_dim,
        patch_size=config.patch_size,
        fast_attention=True,
    )
    arm = oracle.decoder_only if isinstance(model, LVSMDecoderOnly) else oracle.dual_stream
    return lambda: arm(batch)


def note(benchmark, record, text, ratio):
    benchmark.extra_info[text] = {"median": ratio.median, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}
    benchmark.extra_info["threads"] = torch.get_num_threads()
    record(f"{text}: {ratio}")


# --- whole models --------------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="model")
@pytest.mark.parametrize(("input_views", "target_views", "scenes"), VIEWS)
@pytest.mark.parametrize("name", ["lvsm-decoder-only", "efficient-lvsm"])
def test_ours_is_no_slower_than_plain(benchmark, record, name, input_views, target_views, scenes):
    model, batch = make_model(name), random_batch(scenes, input_views, target_views, (64, 64))
    ours = training_step(model, lambda: model(**batch)["images"])
    plain = training_step(model, plain_forward(model, batch))
    ratio = interleaved_ratio(ours, plain, rounds=ROUNDS)
    note(benchmark, record, f"{name}, {input_views} -> {target_views}, ours / plain", ratio)
    benchmark.pedantic(ours, rounds=3, warmup_rounds=0)
    assert ratio.low <= 1.0, "significantly slower than the plain implementation"


@pytest.mark.benchmark(group="model")
@pytest.mark.parametrize(("input_views", "target_views", "scenes"), VIEWS)
def test_dual_stream_against_decoder_only(benchmark, record, input_views, target_views, scenes):
    batch = random_batch(scenes, input_views, target_views, (64, 64))
    steps = []
    for name in ("efficient-lvsm", "lvsm-decoder-only"):
        model = make_model(name)
        steps.append(training_step(model, lambda model=model: model(**batch)["images"]))
    ratio = interleaved_ratio(*steps, rounds=ROUNDS)
    note(benchmark, record, f"dual stream / decoder-only, {input_views} -> {target_views}", ratio)
    benchmark.pedantic(steps[0], rounds=3, warmup_rounds=0)
    assert ratio.low <= (0.35 if input_views == 8 else 1.2)


# --- kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="attention")
@pytest.mark.parametrize("tokens", [PATCHES, 3 * PATCHES, 9 * PATCHES])
def test_self_attention(benchmark, tokens):
    module = SelfAttention(WIDTH, HEAD_DIM)
    x = torch.randn(4, tokens, WIDTH, requires_grad=True)
    benchmark.pedantic(training_step(module, lambda: module(x)), rounds=10, warmup_rounds=2)


@pytest.mark.benchmark(group="attention")
@pytest.mark.parametrize("input_views", [2, 8])
def test_cross_attention(benchmark, input_views):
    module = CrossAttention(WIDTH, HEAD_DIM)
    x = torch.randn(1, 6 * PATCHES, WIDTH, requires_grad=True)
    source = torch.randn(1, input_views * PATCHES, WIDTH, requires_grad=True)
    benchmark.pedantic(
        training_step(module, lambda: module(x, *module.keys_values(source))), rounds=10, warmup_rounds=2
    )


@pytest.mark.benchmark(group="attention")
def test_sdpa_against_written_out(benchmark, record):
    q, k, v = (torch.randn(6, 2, 9 * PATCHES, HEAD_DIM, requires_grad=True) for _ in range(3))
    holder = torch.nn.ParameterList([q, k, v])
    ours = training_step(holder, lambda: F.scaled_dot_product_attention(*holder))

    def written_out():
        q, k, v = holder
        return torch.softmax(q @ k.transpose(-1, -2) / HEAD_DIM**0.5, dim=-1) @ v

    ratio = interleaved_ratio(ours, training_step(holder, written_out), rounds=ROUNDS)
    note(benchmark, record, "attention over 576 tokens, SDPA / written out", ratio)
    benchmark.pedantic(ours, rounds=3, warmup_rounds=0)


@pytest.mark.benchmark(group="block")
@pytest.mark.parametrize("input_views", [2, 8])
def test_decoder_only_block(benchmark, input_views):
    block = SelfBlock(WIDTH, HEAD_DIM, affine_norm=True)
    x = torch.randn(6, (input_views + 1) * PATCHES, WIDTH, requires_grad=True)
    benchmark.pedantic(training_step(block, lambda: block(x)), rounds=10, warmup_rounds=2)


@pytest.mark.benchmark(group="block")
@pytest.mark.parametrize("input_views", [2, 8])
def test_dual_stream_pair_of_blocks(benchmark, input_views):
    pair = torch.nn.ModuleList([SelfBlock(WIDTH, HEAD_DIM, affine_norm=False), SelfCrossBlock(WIDTH, HEAD_DIM)])
    inputs = torch.randn(input_views, PATCHES, WIDTH, requires_grad=True)
    targets = torch.randn(1, 6, PATCHES, WIDTH, requires_grad=True)
    step = training_step(pair, lambda: pair[1](targets, pair[0](inputs).reshape(1, -1, WIDTH)))
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
