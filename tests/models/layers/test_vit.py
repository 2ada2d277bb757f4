import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.vit import (
    MLP,
    Block,
    CrossAttention,
    CrossBlock,
    SelfAttention,
    block_flops,
    cross_block_flops,
    xavier_init,
)
from tests.models.helpers import randomise


def softmax_attention(queries, keys, values, heads):
    """[N, D], [M, D], [M, D] -> [N, D], head by head."""
    parts = zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True)
    return torch.cat([(q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], dim=-1)


def test_self_attention_is_what_the_name_says():
    module, x = randomise(SelfAttention(12, 3)), torch.randn(2, 5, 12)
    expected = [module.proj(softmax_attention(*module.qkv(one).chunk(3, dim=-1), 3)) for one in x]
    torch.testing.assert_close(module(x), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_cross_attention_reads_another_width():
    module, x, source = randomise(CrossAttention(12, 20, 3)), torch.randn(2, 5, 12), torch.randn(2, 7, 20)
    expected = [
        module.proj(softmax_attention(module.q(one), *module.kv(read).chunk(2, dim=-1), 3))
        for one, read in zip(x, source, strict=True)
    ]
    torch.testing.assert_close(module(x, source), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_blocks_add_their_parts_in_order():
    x, source = torch.randn(2, 5, 12), torch.randn(2, 7, 20)
    block = randomise(Block(12, 3))
    middle = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.mlp(block.norm2(middle)))
    block = randomise(CrossBlock(12, 20, 3))
    middle = x + block.cross_attn(block.norm1(x), source)
    torch.testing.assert_close(block(x, source), middle + block.mlp(block.norm2(middle)))
    block = randomise(CrossBlock(12, 20, 3, self_attention=True))
    first = x + block.self_attn(block.norm0(x))
    middle = first + block.cross_attn(block.norm1(first), source)
    torch.testing.assert_close(block(x, source), middle + block.mlp(block.norm2(middle)))


def test_masked_tokens_are_as_if_they_were_not_there():
    x, source = torch.randn(2, 5, 12), torch.randn(2, 7, 20)
    x_seen, source_seen = torch.arange(5) < 3, torch.arange(7) < 4
    block = randomise(Block(12, 3))
    torch.testing.assert_close(block(x, x_seen[None, None, None])[:, :3], block(x[:, :3]))
    block = randomise(CrossBlock(12, 20, 3, self_attention=True))
    ours = block(x, source, source_seen[None, None, None], x_seen[None, None, None])
    torch.testing.assert_close(ours[:, :3], block(x[:, :3], source[:, :4]))
    assert (ours - block(x, source))[:, :3].abs().max() > 1e-3


def test_gelu_is_exact():
    mlp, x = randomise(MLP(8)), torch.randn(3, 8)
    assert torch.equal(mlp(x), mlp.fc2(F.gelu(mlp.fc1(x), approximate="none")))
    assert mlp.fc1.weight.shape == (32, 8)


def test_xavier_sets_linear_maps_and_norms():
    torch.manual_seed(0)
    block = randomise(CrossBlock(96, 64, 4, self_attention=True))
    xavier_init(block)
    for name, value in block.named_parameters():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        else:
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.98 * bound < value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.03), name


@pytest.mark.parametrize("make", [lambda: SelfAttention(10, 4), lambda: CrossBlock(10, 8, 4), lambda: Block(3, 4)])
def test_heads_must_divide_the_width(make):
    with pytest.raises(ValueError, match=r"width must be a multiple of its 4 heads, got (10: try 8|3: try 4)"):
        make()


@pytest.mark.parametrize("self_attention", [False, True])
def test_closed_forms_equal_the_counter(self_attention):
    with torch.device("meta"):
        x, source = torch.empty(2, 5, 12), torch.empty(2, 7, 20)
        block, cross = Block(12, 3), CrossBlock(12, 20, 3, self_attention)
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() == 2 * block_flops(5, 12)
    with FlopCounterMode(display=False) as counter:
        cross(x, source)
    assert counter.get_total_flops() == 2 * cross_block_flops(5, 7, 12, 20, self_attention)
