"""What reading a memory of four frames costs at ConvMAE-B's shapes, 384 px: 576 tokens a frame, 12 heads of 64 channels.

Run by ``make bench-micro``; ``ARGS="-k memory_read"`` runs these alone, which takes about 3 minutes. Two bars: the read from
cached keys and values is at least 3 times as fast as one that makes the memory's tokens anew in every block, and the usage
costs a fused attention call at most 30 %.
"""

import shutil

import pytest
import torch
import torch.nn.functional as F

from models.convmae import PRESETS, ConvMAEMemoryBackbone
from models.layers.block_sparse import COMPILERS
from models.layers.memory_read import TOPK_IMPLEMENTATIONS, MemoryRead
from tests.micro.paired import interleaved_ratio
from tests.micro.test_view_synthesis import note

TOKENS, FRAMES, HEADS, HEAD_DIM, KEPT = 576, 4, 12, 64, 60


def recompute_read(model, tokens, memory):
    """Read tokens of memory frames [T, hw, C] as the published code does: they go through every block with the query's.

    The query's attention is a fused call here, so that what is timed is the waste and nothing else.
    """
    for block in model.blocks3:
        queries, keys, values = block.project(tokens)
        own_queries, own_keys, own_values = block.project(memory)
        own = F.scaled_dot_product_attention(own_queries, own_keys, own_values)
        keys, values = (
            torch.cat([part, kept.transpose(0, 1).flatten(1, 2)[None]], dim=2)
            for part, kept in ((keys, own_keys), (values, own_values))
        )
        tokens = block.finish(tokens, F.scaled_dot_product_attention(queries, keys, values))
        memory = block.finish(memory, own)
    return tokens


@pytest.mark.benchmark(group="memory read")
@torch.inference_mode()
def test_memory_read_from_the_cache_against_recomputing(benchmark, record):
    torch.manual_seed(0)
    model = ConvMAEMemoryBackbone(PRESETS["paper"]).eval()
    image, picture, masks = (
        torch.randn(1, 3, 384, 384),
        torch.randn(FRAMES, 3, 384, 384),
        torch.rand(FRAMES, 1, 384, 384),
    )
    query = model.encode_query(image)
    written = [model.write(picture[frame, None], masks[frame, None]) for frame in range(FRAMES)]
    memory = model.trunk("patch_embed1_memory", torch.cat([picture, masks, torch.zeros_like(masks)], dim=1)).tokens

    def cached():
        return model.read(query, written, FRAMES).f16

    def anew():
        return model.to_map(recompute_read(model, query.tokens, memory), query.f8)

    torch.testing.assert_close(cached()[:, 0], anew(), atol=1e-5, rtol=1e-5)
    ratio = interleaved_ratio(anew, cached, rounds=3, warmups=1)
    note(benchmark, record, f"read of {FRAMES} frames, tokens made anew / keys and values cached", ratio)
    benchmark.pedantic(cached, rounds=1, warmup_rounds=0)
    assert ratio.high >= 3, "the cache saves significantly less than it should"


def attention_inputs():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, HEADS, TOKENS, HEAD_DIM, generator=generator)
    keys, values = torch.randn(2, 1, HEADS, (1 + FRAMES) * TOKENS, HEAD_DIM, generator=generator)
    return queries, keys, values, FRAMES


@pytest.mark.benchmark(group="memory read")
@torch.inference_mode()
def test_memory_read_with_usage_against_without(benchmark, record):
    inputs, read = attention_inputs(), MemoryRead()
    usage = read(*inputs, usage=True).usage
    own = (inputs[0] @ inputs[1].transpose(-2, -1) / HEAD_DIM**0.5).softmax(-1)[..., :TOKENS].mean(1).sum()
    assert abs(usage.sum() + own - TOKENS) <= 1e-5 * TOKENS
    ratio = interleaved_ratio(lambda: read(*inputs, usage=True), lambda: read(*inputs), rounds=25)
    note(benchmark, record, f"attention to {FRAMES} frames, with usage / without", ratio)
    benchmark.pedantic(lambda: read(*inputs, usage=True), rounds=3, warmup_rounds=1)
    assert ratio.low <= 1.3, "the usage costs significantly more than it should"


READS = {f"topk {name}": MemoryRead("topk", KEPT, "all", name) for name in TOPK_IMPLEMENTATIONS}
READS |= {"topk each": MemoryRead("topk", KEPT, "each"), "shared-subset": MemoryRead("shared-subset")}
READS |= {"flex": MemoryRead("flex")}


@pytest.mark.benchmark(group="memory read")
@pytest.mark.parametrize("name", READS)
@torch.inference_mode()
def test_memory_read_against_dense(benchmark, record, name):
    """Without a bar for what has to make all logits to choose from them: that cannot win against a fused call."""
    if name == "flex" and not any(map(shutil.which, COMPILERS)):
        pytest.skip("flex needs a C++ compiler")
    inputs, dense = attention_inputs(), MemoryRead()
    ratio = interleaved_ratio(lambda: READS[name](*inputs), lambda: dense(*inputs), rounds=9)
    note(benchmark, record, f"attention to {FRAMES} frames, {name} / dense", ratio)
    benchmark.pedantic(lambda: READS[name](*inputs), rounds=1, warmup_rounds=0)
    if name in ("shared-subset", "flex"):
        assert ratio.low < 1, "fewer keys cost significantly more than all"
