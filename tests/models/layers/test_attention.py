import torch

from models.layers.attention import CrossAttention, HeadRMSNorm, SelfAttention
from tests.models.helpers import randomise


def test_norm_is_computed_in_fp32():
    norm = randomise(HeadRMSNorm(64))
    x = torch.randn(2, 5, 3, 64, dtype=torch.bfloat16)
    exact = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5) * norm.weight
    assert torch.equal(norm(x), exact.to(torch.bfloat16))


def test_cross_attention_to_itself_is_self_attention():
    own, cross = randomise(SelfAttention(64, 32)), CrossAttention(64, 32)
    q, k, v = own.to_qkv.weight.chunk(3)
    cross.load_state_dict(
        {**{key: value for key, value in own.state_dict().items() if key != "to_qkv.weight"}}
        | {"to_q.weight": q, "to_kv.weight": torch.cat([k, v])}
    )
    x = torch.randn(2, 7, 64)
    torch.testing.assert_close(cross(x, *cross.keys_values(x)), own(x), atol=1e-6, rtol=0)


def test_keys_and_values_of_views_can_be_made_one_by_one():
    cross = randomise(CrossAttention(64, 32))
    x, first, second = torch.randn(2, 7, 64), torch.randn(2, 4, 64), torch.randn(2, 5, 64)
    kept = [cross.keys_values(first), cross.keys_values(second)]
    keys, values = (torch.cat(part, dim=1) for part in zip(*kept, strict=True))
    joint = cross(x, *cross.keys_values(torch.cat([first, second], dim=1)))
    torch.testing.assert_close(cross(x, keys, values), joint, atol=1e-6, rtol=0)
