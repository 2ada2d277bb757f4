import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.layers import memory_read
from models.layers.memory_read import TOPK_IMPLEMENTATIONS, MemoryRead, attend_frames, shared_subset

TOPK = [
    pytest.param(MemoryRead("topk", 5, scope, implementation), id=f"{scope}-{implementation}")
    for scope in ("all", "each")
    for implementation in TOPK_IMPLEMENTATIONS
]
READS = [
    pytest.param(MemoryRead(), id="dense"),
    *TOPK,
    pytest.param(MemoryRead("shared-subset", subset_ratio=0.3), id="shared-subset"),
]


def tensors(frames=3, tokens=12, streams=2, heads=3, width=8, seed=0, sharpness=2.0):
    """Queries, keys and values of a query frame and ``frames`` memory frames."""
    generator = torch.Generator().manual_seed(seed)
    queries = sharpness * torch.randn(streams, heads, tokens, width, generator=generator)
    keys, values = torch.randn(2, streams, heads, (1 + frames) * tokens, width, generator=generator)
    return queries, keys, values


def logits_of(queries, keys):
    return queries.double() @ keys.double().transpose(-2, -1) / queries.shape[-1] ** 0.5


def kept_keys(read, queries, keys, frames):
    """Which keys a query may read, [N, h, hw, M], by the words of the contract alone, one row at a time."""
    tokens = queries.shape[2]
    logits = logits_of(queries, keys)[..., tokens:]
    kept = torch.ones(*logits.shape[:-1], tokens + logits.shape[-1], dtype=torch.bool)
    if read.kind == "shared-subset":
        mean = logits.mean((1, 2))  # [N, T * hw]
        rows = [frame >= frame.topk(read.share(tokens)).values.min() for row in mean for frame in row.split(tokens)]
        kept[..., tokens:] = torch.cat(rows).view(len(mean), 1, 1, -1)
    elif read.kind == "topk":
        parts = logits.split(tokens if read.scope == "each" else frames * tokens, dim=-1)
        best = [part >= part.topk(min(read.topk, part.shape[-1])).values[..., -1:] for part in parts]
        kept[..., tokens:] = torch.cat(best, dim=-1)
    return kept


def by_the_matrix(read, queries, keys, values, frames):
    """Read-out and usage from the whole matrix of weights, in double precision."""
    tokens = queries.shape[2]
    weights = logits_of(queries, keys).masked_fill(~kept_keys(read, queries, keys, frames), -torch.inf).softmax(-1)
    usage = weights[..., tokens:].mean(1).unflatten(-1, (frames, tokens)).sum((1, 3))
    return weights @ values.double(), usage, weights[..., :tokens].mean(1).sum((1, 2))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("frames", [1, 3])
def test_read_outs_against_the_whole_matrix(read, frames):
    queries, keys, values = tensors(frames)
    out, usage, own = by_the_matrix(read, queries, keys, values, frames)
    plain, none = read(queries, keys, values, frames)
    assert none is None
    told, tally = read(queries, keys, values, frames, usage=True)
    torch.testing.assert_close(plain.double(), out, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(told.double(), out, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(tally.double(), usage, atol=1e-5, rtol=0)
    torch.testing.assert_close(tally.sum(1).double() + own, torch.full((2,), 12.0).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("read", READS)
def test_gradients_are_those_of_the_whole_matrix(read):
    queries, keys, values = (part.requires_grad_() for part in tensors())
    direction = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((read(queries, keys, values, 3).out * direction).sum(), (queries, keys, values))
    out, _, _ = by_the_matrix(read, queries, keys, values, 3)
    exact = torch.autograd.grad((out * direction).sum(), (queries, keys, values))
    for name, mine, expected in zip(("queries", "keys", "values"), ours, exact, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("read", READS)
def test_the_order_of_memory_frames_is_no_matter(read):
    queries, keys, values = tensors(frames=3)
    out, usage = read(queries, keys, values, 3, usage=True)
    order = torch.tensor([2, 0, 1])
    shuffled = (
        part.unflatten(2, (4, 12))[:, :, torch.cat([torch.zeros(1).long(), order + 1])] for part in (keys, values)
    )
    again, moved = read(queries, *(part.flatten(2, 3) for part in shuffled), 3, usage=True)
    torch.testing.assert_close(again, out, atol=2e-6, rtol=0)
    torch.testing.assert_close(moved, usage[:, order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", TOPK_IMPLEMENTATIONS)
def test_exact_identities_of_topk(implementation):
    queries, keys, values = tensors(frames=3)
    dense = MemoryRead()(queries, keys, values, 3, usage=True)
    for topk, scope in [(36, "all"), (12, "each"), (1000, "all"), (1000, "each")]:  # all there are, and more than that
        kept_all = MemoryRead("topk", topk, scope, implementation)(queries, keys, values, 3, usage=True)
        torch.testing.assert_close(kept_all.out, dense.out, atol=2e-6, rtol=0)
        torch.testing.assert_close(kept_all.usage, dense.usage, atol=1e-5, rtol=0)
    one = tensors(frames=1)
    of_all, of_each = (MemoryRead("topk", 4, scope, implementation)(*one, 1).out for scope in ("all", "each"))
    assert torch.equal(of_all, of_each)


@pytest.mark.parametrize("read", TOPK)
def test_memory_keys_that_are_not_kept_have_no_weight_at_all(read):
    """The worst memory keys' values may be anything finite, and their gradient is zero."""
    read = dataclasses.replace(read, topk=1)
    queries, keys, values = tensors()
    kept = kept_keys(read, queries, keys, 3).any(2)  # by any query of the head
    assert not kept.all()
    assert kept[..., :12].all()
    poisoned = values.masked_fill(~kept[..., None], 1e30).requires_grad_()
    out = read(queries, keys, poisoned, 3).out
    torch.testing.assert_close(out, read(queries, keys, values, 3).out, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(out.square().sum(), poisoned)
    assert torch.equal(gradient.abs().sum(-1) > 0, kept)


@given(
    frames=st.integers(1, 4),
    tokens=st.integers(1, 9),
    topk=st.integers(1, 12),
    scope=st.sampled_from(["all", "each"]),
    seed=st.integers(0, 999),
)
def test_implementations_of_topk_keep_the_same_mass(frames, tokens, topk, scope, seed):
    """Compared by what they keep: at near-ties of rank K another key may be chosen, of nearly the same weight."""
    queries, keys, values = tensors(frames, tokens, streams=1, heads=2, width=4, seed=seed)
    reads = [
        MemoryRead("topk", topk, scope, name)(queries, keys, values, frames, usage=True)
        for name in TOPK_IMPLEMENTATIONS
    ]
    dense = MemoryRead()(queries, keys, values, frames, usage=True).usage.sum()
    for read in reads:
        assert 0 < read.usage.sum() <= dense + 1e-5
        assert (read.usage <= tokens + 1e-5).all()
        torch.testing.assert_close(read.usage, reads[0].usage, atol=1e-4, rtol=0)


def test_the_shared_subset_is_chosen_by_frame_and_ascending():
    queries, keys, _ = tensors(frames=3)
    chosen = shared_subset(queries, keys, 3, 4)
    assert chosen.shape == (2, 12 + 3 * 4)
    assert torch.equal(chosen[:, :12], torch.arange(12).expand(2, -1))
    assert (chosen.diff(dim=1) > 0).all()
    assert torch.equal((chosen[0, 12:] // 12).bincount(), torch.tensor([0, 4, 4, 4]))


@pytest.mark.parametrize(
    ("ratio", "count", "kept"), [(0.1, 30, 3), (0.25, 12, 3), (0.25, 13, 4), (0.001, 5, 1), (1, 7, 7)]
)
def test_shares_are_exact(ratio, count, kept):
    assert MemoryRead("shared-subset", subset_ratio=ratio).share(count) == kept


def test_usage_carries_no_gradient_and_leaves_that_of_the_output():
    queries, keys, values = (part.requires_grad_() for part in tensors())
    for read in (MemoryRead(), MemoryRead("topk", 5, "all")):
        out, usage = read(queries, keys, values, 3, usage=True)
        assert not usage.requires_grad
        (mine,) = torch.autograd.grad(out.sum(), queries, retain_graph=True)
        (plain,) = torch.autograd.grad(read(queries, keys, values, 3).out.sum(), queries)
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("read", "frames", "columns"),
    [
        (MemoryRead(), 3, 3),
        (MemoryRead("shared-subset"), 5, 5),
        (MemoryRead("topk", 5, "all", "mask"), 3, 3),
        (MemoryRead("topk", 5, "all", "scatter"), 3, 0),
        *((MemoryRead("flex"), frames, columns) for frames, columns in [(1, 16), (9, 16), (16, 16), (17, 32)]),
    ],
)
def test_how_many_columns_the_usage_takes(monkeypatch, read, frames, columns):
    """As many as are told, zeros beyond the last frame's; what is compiled, in ``flex``, is the same at most T."""
    seen = []

    def attention(queries, keys, values, **options):
        seen.append((queries, keys, values))
        return F.scaled_dot_product_attention(queries, keys, values, scale=options["scale"])

    def read_out(queries, keys, values, frames, columns, ignored=None):
        return attend_frames(queries, keys, values, frames, columns, attention)

    monkeypatch.setattr(memory_read, "attend_frames", read_out)
    queries, keys, values = tensors(frames)
    _, usage = read(queries, keys, values, frames, usage=True)
    assert usage.shape == (2, frames)
    assert read.columns(frames) == columns
    assert [[part.shape[-1] for part in parts] for parts in seen] == ([[8 + columns] * 3] if columns else [])
    for parts in seen:
        assert not parts[0][..., 8:].any()
        assert not parts[1][..., 8:].any()
        assert (parts[2][..., 8 : 8 + frames].sum((-1, -2)) == parts[2].shape[2] - 12).all()
        assert not parts[2][..., 8 + frames :].any()


@pytest.mark.parametrize("read", READS)
def test_bf16_stays_close(read):
    queries, keys, values = (part.bfloat16() for part in tensors(sharpness=1.0))
    out, usage = read(queries, keys, values, 3, usage=True)
    assert out.dtype == torch.bfloat16
    assert usage.dtype == torch.float32
    exact = read(queries.float(), keys.float(), values.float(), 3, usage=True)
    # Ranks near K fall otherwise in bf16, so what is kept is compared, not every number.
    torch.testing.assert_close(usage, exact.usage, atol=0.3, rtol=0)
    assert (out.float() - exact.out).abs().mean() < 0.05
