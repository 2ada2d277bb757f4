"""Sequences of unequal length: padded, packed, and with packed attention where it can be had."""

import re
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.layers.attention import attend
from models.layers.packed import Packed, Padded, layout, varlen_problem
from models.layers.vit import Block, CrossBlock

CUDA = torch.device("cuda")
LENGTHS = ([3, 0, 5, 1], [2, 4, 0, 6])


def mask_of(lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.fixture
def modern(monkeypatch):
    """A machine that has all that packed attention needs, as far as one can ask."""
    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = fake_varlen
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def fake_varlen(*, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """The kernel's contract, sequence by sequence."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert cu_seq_q.diff().max() <= max_q
    assert cu_seq_k.diff().max() <= max_k
    out = torch.zeros_like(query)
    for sample in range(len(cu_seq_q) - 1):
        rows, source = (slice(int(starts[sample]), int(starts[sample + 1])) for starts in (cu_seq_q, cu_seq_k))
        parts = (part[None].transpose(1, 2) for part in (query[rows], key[source], value[source]))
        out[rows] = F.scaled_dot_product_attention(*parts)[0].transpose(0, 1)
    return out


# --- whether packed attention can be had ---------------------------------------------------------------------------


def test_a_modern_device_has_packed_attention(modern):
    assert varlen_problem(CUDA, torch.bfloat16, 16) is None
    assert varlen_problem(CUDA, torch.float16, 64) is None


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "reason"),
    [
        ("cpu", torch.bfloat16, 16, "a CUDA device, got cpu"),
        ("cuda", torch.float32, 16, r"fp16 or bf16 \(autocast\), got float32"),
        ("cuda", torch.bfloat16, 12, "multiple of 8 channels, got 12"),
    ],
)
def test_what_is_missing_is_said(modern, device, dtype, head_dim, reason):
    problem = varlen_problem(torch.device(device), dtype, head_dim)
    assert re.search(reason, problem)


def test_an_old_torch_or_an_old_device_is_said(modern, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0 or newer, got 7.5" in varlen_problem(CUDA, torch.bfloat16, 16)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert "which torch" in varlen_problem(CUDA, torch.bfloat16, 16)


def test_the_layout_follows_the_request_and_the_device():
    tokens, mask = torch.zeros(4, 5, 16), mask_of(LENGTHS[0])
    assert isinstance(layout(None, tokens, 8, "varlen"), Padded), "without a mask there is nothing to pack"
    assert isinstance(layout(mask, tokens, 8, "padded"), Padded)
    for ragged in ("auto", "packed"):
        packed = layout(mask, tokens, 8, ragged)
        assert isinstance(packed, Packed)
        assert packed.starts is None, "no packed attention on a CPU"
        assert isinstance(layout(mask.to("meta"), tokens.to("meta"), 8, ragged), Padded)
    with pytest.raises(
        ValueError, match="ragged 'varlen' cannot be had here, it needs a CUDA device, got cpu: use 'auto'"
    ):
        layout(mask, tokens, 8, "varlen")


# --- what the blocks compute ---------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_unpacking_undoes_packing(lengths):
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    packed = Packed(mask, varlen=True)
    padded = torch.randn(len(lengths), 7, 3, requires_grad=True)
    tokens = packed.pack(padded)
    assert tokens.shape == (sum(lengths), 3)
    assert packed.starts.tolist() == [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    assert torch.equal(packed.unpack(tokens), padded.masked_fill(~mask[..., None], 0))
    tokens.sum().backward()
    assert torch.equal(padded.grad, mask[..., None].expand_as(padded).float())


def layouts(mask, readers=None):
    return {
        "padded": lambda: Padded(mask),
        "packed": lambda: Packed(mask, readers),
        "packed attention": lambda: Packed(mask, readers, varlen=True),
    }


@pytest.mark.parametrize("self_attention", [False, True])
@pytest.mark.parametrize("kind", ["padded", "packed", "packed attention"])
def test_blocks_are_what_they_are_on_each_sequence_alone(modern, kind, self_attention):
    torch.manual_seed(0)
    lengths, sources = LENGTHS[0], [length + 1 for length in LENGTHS[1]]
    block, cross = Block(16, 2), CrossBlock(16, 24, 2, self_attention)
    x, source = torch.randn(4, max(lengths), 16), torch.randn(4, max(sources), 24)
    tokens = layouts(mask_of(lengths))[kind]()
    keys = layouts(mask_of(sources), tokens)[kind]()
    own = tokens.unpack(tokens.block(block, tokens.pack(x)))
    read = tokens.unpack(tokens.cross_block(cross, tokens.pack(x), keys.pack(source), keys))
    assert own.isfinite().all()
    assert read.isfinite().all()
    for sample, (length, width) in enumerate(zip(lengths, sources, strict=True)):
        alone = x[sample : sample + 1, :length]
        expected = cross(alone, source[sample : sample + 1, :width])[0]
        torch.testing.assert_close(read[sample, :length], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(own[sample, :length], block(alone)[0], atol=1e-6, rtol=1e-5)


def test_the_padding_is_not_computed_when_packed():
    block, mask = Block(16, 2), mask_of([1, 8])
    seen = []
    block.mlp.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    packed = Packed(mask)
    packed.block(block, packed.pack(torch.randn(2, 8, 16)))
    assert seen == [(9, 16)]


masks = st.integers(1, 5).flatmap(
    lambda samples: st.tuples(
        *(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=samples, max_size=samples) for n in (6, 4))
    )
)


@given(masks=masks)
def test_grouped_attention_is_exact_whatever_stands_where(masks):
    """Gaps anywhere, sequences without a token, one sequence alone, all alike: results and gradients."""
    torch.manual_seed(0)
    mask, source_mask = map(torch.tensor, masks)
    source_mask[:, 0] = True  # what reads needs something to read
    block, cross = Block(8, 2).double(), CrossBlock(8, 12, 2, self_attention=True).double()
    x = torch.randn(*mask.shape, 8, dtype=torch.double)
    source = torch.randn(*source_mask.shape, 12, dtype=torch.double)
    x, source = x.masked_fill(~mask[..., None], torch.nan), source.masked_fill(~source_mask[..., None], torch.nan)
    x.requires_grad_()
    source.requires_grad_()
    tokens = Packed(mask)
    sources = Packed(source_mask, tokens)
    read = tokens.cross_block(cross, tokens.block(block, tokens.pack(x)), sources.pack(source), sources)
    alone = [
        cross(block(own[None, own_mask]), other[None, other_mask])[0]
        for own, own_mask, other, other_mask in zip(x, mask, source, source_mask, strict=True)
        if own_mask.any()
    ]
    expected = torch.cat(alone) if alone else read.detach()
    torch.testing.assert_close(read, expected)
    if alone:
        weights = [x, source, *block.parameters(), *cross.parameters()]
        found = torch.autograd.grad(read.square().sum(), weights)
        torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), weights))


def test_a_short_sequence_is_padded_to_its_group_only(monkeypatch):
    mask = mask_of([9, 2, 8, 3])
    mask[0, [1, 4]] = False  # a gap is no padding either
    tokens = Packed(mask)
    sources = Packed(mask_of([1, 6, 2, 5]), tokens)
    seen = []

    def seeing(queries, keys, values, mask):
        seen.append((*queries.shape[:2], *keys.shape[:2]))
        return attend(queries, keys, values, mask)

    monkeypatch.setattr("models.layers.packed.attend", seeing)
    block = CrossBlock(16, 24, 2, self_attention=True)
    tokens.cross_block(block, torch.randn(20, 16), torch.randn(14, 24), sources)
    assert seen == [(2, 3, 2, 3), (2, 8, 2, 8), (2, 3, 2, 6), (2, 8, 2, 2)]


def test_sources_in_other_groups_are_refused():
    tokens, sources = Packed(mask_of([1, 2])), Packed(mask_of([2, 1]))
    with pytest.raises(ValueError, match="sources must be laid out for those that read them"):
        tokens.cross_block(CrossBlock(16, 16, 2), torch.randn(3, 16), torch.randn(3, 16), sources)
