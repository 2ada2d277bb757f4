import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from models.layers.conv_attention import (
    ConvEmbed,
    ConvProjection,
    DropPath,
    KeysValues,
    LayerNorm,
    Maps,
    MixedAttention,
    MixedBlock,
    QuickMLP,
    TokenBatchNorm,
    embed_flops,
    mixed_block_flops,
    to_maps,
    to_tokens,
)
from tests.models.helpers import randomise

LAYOUT = (Maps(2, 3), Maps(1, 5))
TOKENS, KEYS = 2 * 9 + 25, 2 * 4 + 9


def attention(asymmetric=True, width=12, heads=3):
    return randomise(MixedAttention(width, heads, asymmetric, False)).eval()


# --- maps and tokens -----------------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
def test_maps_become_tokens_and_maps_again(count, template, search):
    layout = (Maps(count, template), Maps(1, search))
    x = torch.randn(2, sum(maps.tokens for maps in layout), 4)
    templates, of_search = to_maps(x, layout)
    assert templates.shape == (2 * count, 4, template, template)
    assert of_search.shape == (2, 4, search, search)
    assert torch.equal(of_search[1, :, 0, -1], x[1, count * template**2 + search - 1])
    assert torch.equal(to_tokens([templates, of_search], 2), x)


@given(st.integers(1, 20))
def test_keys_are_counted_as_the_convolution_leaves_them(size):
    maps = Maps(2, size)
    projection = ConvProjection(4, 2, True)
    assert projection(to_maps(torch.randn(1, maps.tokens, 4), [maps]), 1).shape == (1, maps.keys, 4)


@pytest.mark.parametrize(("kernel", "stride", "expected"), [(7, 4, [1, 8, 24, 24, 25]), (3, 2, [2, 16, 48, 49, 50])])
def test_edges_of_embedded_maps(kernel, stride, expected):
    embed = ConvEmbed(3, 4, kernel, stride)
    for size, edge in zip((3, 32, 96, 97, 99), expected, strict=True):
        assert embed.size(size) == edge
        assert embed([torch.randn(1, 3, size, size)], 1).shape == (1, edge**2, 4)


# --- attention by hand ---------------------------------------------------------------------------------------------


def test_the_scale_is_that_of_the_width():
    """Two channels in two heads and maps of one cell, where the convolution is its middle weight."""
    module = MixedAttention(2, 2, True, True)
    with torch.no_grad():
        for name in "qkv":
            convolution = getattr(module, f"conv_proj_{name}")
            convolution.conv.weight.zero_()[:, :, 1, 1] = 1.0
            convolution.bn.running_var.fill_(1 - 1e-5)
            linear = getattr(module, f"proj_{name}")
            linear.weight.copy_(torch.eye(2))
            linear.bias.zero_()
        module.proj.weight.copy_(torch.eye(2))
        module.proj.bias.zero_()
    x = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    out, _ = module(x, (Maps(1, 1), Maps(1, 1)))
    assert out[0, 0].tolist() == pytest.approx([1.0, 2.0])
    # Search reads both: head 0 scores 3*1 and 3*3, head 1 scores -1*2 and -1*-1, times 2^-0.5 and not times 1.
    weight = [1 / (1 + 2.718281828 ** ((own - other) * 2**-0.5)) for own, other in ((9, 3), (1, -2))]
    expected = [weight[0] * 1 + (1 - weight[0]) * 3, weight[1] * 2 + (1 - weight[1]) * -1]
    assert out[0, 1].tolist() == pytest.approx(expected, abs=1e-5)


def read(queries, keys, values, heads):
    """Softmax attention of one sample, head by head."""
    parts = zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True)
    return torch.cat([(q @ k.T / queries.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], dim=-1)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_who_reads_what(asymmetric):
    module, x = attention(asymmetric), torch.randn(2, TOKENS, 12)
    parts = to_maps(x, LAYOUT)
    queries = module.proj_q(module.conv_proj_q(parts, 2))
    keys, values = module.proj_k(module.conv_proj_k(parts, 2)), module.proj_v(module.conv_proj_v(parts, 2))
    seen = 8 if asymmetric else KEYS
    expected = [
        torch.cat([read(q[:18], k[:seen], v[:seen], 3), read(q[18:], k, v, 3)])
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    out, own = module(x, LAYOUT)
    torch.testing.assert_close(out, module.proj(torch.stack(expected)))
    assert torch.equal(own.keys, keys)
    assert torch.equal(own.values, values)


def test_kept_keys_and_values_are_as_good_as_the_templates():
    module, x = attention(), torch.randn(2, TOKENS, 12)
    full, _ = module(x, LAYOUT)
    of_templates, kept = module(x[:, :18], LAYOUT[:1])
    of_search, _ = module(x[:, 18:], LAYOUT[1:], kept)
    torch.testing.assert_close(torch.cat([of_templates, of_search], 1), full, atol=1e-6, rtol=0)
    halved, _ = module(x[:, 18:], LAYOUT[1:], KeysValues(kept.keys, kept.values / 2))
    assert (halved - of_search).abs().max() > 1e-3


def test_templates_do_not_mix_in_the_convolutions():
    """Neighbours in the tensor are not neighbours in the picture."""
    module, x = attention(), torch.randn(1, TOKENS, 12)
    changed = x.clone()
    changed[:, 9:18] += 1
    first, second = (module.conv_proj_q(to_maps(one, LAYOUT), 1) for one in (x, changed))
    assert torch.equal(first[:, :9], second[:, :9])
    assert torch.equal(first[:, 18:], second[:, 18:])
    assert not torch.equal(first[:, 9:18], second[:, 9:18])


# --- batch norm ----------------------------------------------------------------------------------------------------


def test_a_frozen_batch_norm_is_a_fixed_map_of_buffers():
    norm = TokenBatchNorm(3, frozen=True).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.weight.fill_(2.0)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(norm(x), 2 * (x - norm.running_mean) / (1 + 1e-5) ** 0.5)
    assert not list(norm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_a_learning_batch_norm_takes_all_tokens_together():
    norm, x = TokenBatchNorm(3, frozen=False).train(), 4 + 3 * torch.randn(2, 400, 3)
    out = norm(x).flatten(0, 1)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean((0, 1)))
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]
    kept = norm.running_mean.clone()
    norm.eval()(x)
    assert torch.equal(norm.running_mean, kept)


def test_both_forms_share_their_state():
    frozen, learning = TokenBatchNorm(3, frozen=True), randomise(TokenBatchNorm(3, frozen=False))
    assert list(frozen.state_dict()) == list(learning.state_dict())
    frozen.load_state_dict(learning.state_dict())
    x = torch.randn(2, 4, 3)
    assert torch.equal(frozen(x), learning.eval()(x))


# --- parts of a block ----------------------------------------------------------------------------------------------


def test_layer_norm_is_computed_in_single_precision():
    norm = randomise(LayerNorm(8))
    assert norm.eps == 1e-5
    x = (100 + torch.randn(5, 8)).bfloat16()
    out = norm(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, torch.nn.functional.layer_norm(x.float(), (8,), norm.weight, norm.bias).bfloat16())


def test_gelu_is_quick():
    mlp, x = randomise(QuickMLP(8)), torch.randn(3, 8)
    hidden = mlp.fc1(x)
    torch.testing.assert_close(mlp(x), mlp.fc2(hidden / (1 + (-1.702 * hidden).exp())))
    assert mlp.fc1.weight.shape == (32, 8)


def test_a_block_adds_its_parts_in_order():
    block = randomise(MixedBlock(12, 3, asymmetric=True, freeze_batch_norm=True))
    x = torch.randn(2, TOKENS, 12)
    middle = x + block.attn(block.norm1(x), LAYOUT)[0]
    torch.testing.assert_close(block(x, LAYOUT)[0], middle + block.mlp(block.norm2(middle)))


def test_drop_path_drops_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    out = drop(x)
    kept = out[:, 0, 0] != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 4 / 3))
    assert not out[~kept].any()
    assert drop.eval()(x) is x
    assert DropPath(0.0).train()(x) is x


# --- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("layout", [LAYOUT, LAYOUT[:1]])
def test_closed_forms_equal_the_counter(asymmetric, layout):
    with torch.device("meta"):
        block = MixedBlock(12, 3, asymmetric=asymmetric, freeze_batch_norm=True)
        x = torch.empty(2, sum(maps.tokens for maps in layout), 12)
        embed, parts = ConvEmbed(12, 20, 3, 2), to_maps(x, layout)
    with FlopCounterMode(display=False) as counter:
        block(x, layout)
    assert counter.get_total_flops() == 2 * mixed_block_flops(12, layout, asymmetric=asymmetric)
    with FlopCounterMode(display=False) as counter:
        embed(parts, 2)
    made = [Maps(maps.number, embed.size(maps.size)) for maps in layout]
    assert counter.get_total_flops() == 2 * embed_flops(embed, made)
