import shutil

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.cpu_vec_isa import VecISA

from models.layers import block_sparse
from models.layers.block_sparse import BLOCK, block_counts
from models.layers.memory_read import MemoryRead
from tests.models.layers.test_memory_read import logits_of, tensors

FLEX = MemoryRead("flex", subset_ratio=0.4)


def block_mask(queries, keys):
    """Which keys each query may read under `FLEX`, [N, h, hw, M], one pair of blocks at a time."""
    own, others = block_counts(queries.shape[2], keys.shape[2])
    mask = torch.zeros(*queries.shape[:3], keys.shape[2], dtype=torch.bool)
    mask[..., : own * BLOCK] = True
    for rows in range(0, queries.shape[2], BLOCK):
        logits = logits_of(queries[:, :, rows : rows + BLOCK], keys)
        means = torch.stack([block.mean((2, 3)) for block in logits.split(BLOCK, dim=3)], dim=-1)[..., own:]
        best = means.topk(FLEX.share(others)).indices + own
        for block in range(own, own + others):
            read = (best == block).any(-1)[..., None, None]
            mask[:, :, rows : rows + BLOCK, block * BLOCK : (block + 1) * BLOCK] = read
    return mask


def flex_by_the_matrix(queries, keys, values, frames):
    weights = logits_of(queries, keys).masked_fill(~block_mask(queries, keys), -torch.inf).softmax(-1)
    memory = weights[..., queries.shape[2] :].mean(1).unflatten(-1, (frames, -1))
    return (weights @ values.double()).float(), memory.sum((1, 3)).float()


@pytest.mark.parametrize(("tokens", "frames"), [(144, 4), (128, 2), (20, 1), (20, 9)])
def test_blocks_are_read_as_documented(tokens, frames):
    """With gradients, on a CPU, the blocks are fetched."""
    queries, keys, values = (part.requires_grad_() for part in tensors(frames, tokens, sharpness=4.0))
    out, usage = FLEX(queries, keys, values, frames, usage=True)
    expected, tally = flex_by_the_matrix(queries, keys, values, frames)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(usage, tally, atol=1e-4, rtol=0)
    inputs = (queries, keys, values)
    for mine, exact in zip(
        torch.autograd.grad(out.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_flex_attention_is_the_same(monkeypatch):
    """Compiles a kernel, where there is a compiler; that it takes the processor's instructions is not tried out first."""
    if not any(map(shutil.which, block_sparse.COMPILERS)):
        pytest.skip("no C++ compiler")
    queries, keys, values = tensors(4, 144, streams=1, heads=2, width=24)
    monkeypatch.setattr(block_sparse, "attend_tiles", None)
    monkeypatch.setattr(VecISA, "_probe_load", lambda *_: True, raising=False)
    with inductor.patch(**{"cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}):
        out, usage = FLEX(queries, keys, values, 4, usage=True)
    expected, tally = flex_by_the_matrix(queries, keys, values, 4)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(usage, tally, atol=1e-4, rtol=0)


def test_flex_where_it_cannot_run_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        ValueError, match=r"'flex' cannot run on cpu: compiling it needs one of g\+\+, .* or choose dense"
    ):
        FLEX(*tensors(), 3)
