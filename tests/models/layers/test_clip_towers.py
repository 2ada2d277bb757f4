import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.clip_towers import CLIPImage, CLIPTowers
from tests.models.helpers import randomise
from tests.models.small_clip import shaken, small_clip

__all__ = ["small_clip"]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def models(name, own_residual=False):
    """open_clip's model, and ours with the same weights."""
    clip = shaken(open_clip.create_model(name)).eval()
    return clip, CLIPTowers(copy.deepcopy(clip), own_residual)


def dense(clip, image, own_residual):
    """What the reference sheet says, from open_clip's own blocks; patches on their own grid."""
    visual, blocks = clip.visual, clip.visual.transformer.resblocks
    x = visual.conv1((image - MEAN) / STD).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x, outputs = visual.ln_pre(x), []
    for block in blocks[:-1]:
        x = block(x)
        outputs.append(x[:, 1:])
    last, width = blocks[-1], x.shape[-1]
    qkv = F.linear(last.ln_1(x), last.attn.in_proj_weight, last.attn.in_proj_bias)
    y = last.attn.out_proj(qkv[..., 2 * width :]) + (x if own_residual else x[:, :1])
    y = y + last.mlp(last.ln_2(y))
    return (visual.ln_post(y) @ visual.proj)[:, 1:], outputs


@pytest.mark.parametrize("own_residual", [False, True])
def test_dense_features_follow_the_sheet(small_clip, own_residual):
    clip, towers = models(small_clip, own_residual)
    image = torch.rand(2, 3, 16, 16)
    expected, outputs = dense(clip, image, own_residual)
    found, maps = towers.dense(image, (4, 4), layers=(0, 2))
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    for map_, layer in zip(maps, (0, 2), strict=True):
        torch.testing.assert_close(map_.flatten(2).transpose(1, 2), outputs[layer], atol=1e-5, rtol=1e-5)


def test_another_grid_resizes_picture_and_position_table(small_clip):
    clip, towers = models(small_clip)
    image = torch.rand(1, 3, 40, 40)
    found, _ = towers.dense(image, (6, 6))
    table = clip.visual.positional_embedding
    patches = F.interpolate(table[1:].view(1, 4, 4, -1).permute(0, 3, 1, 2), size=(6, 6), mode="bicubic")
    clip.visual.positional_embedding = torch.nn.Parameter(
        torch.cat([table[:1], patches.permute(0, 2, 3, 1).reshape(36, -1)])
    )
    smaller = F.interpolate(image, size=(24, 24), mode="bilinear", align_corners=False)
    expected, _ = dense(clip, smaller, own_residual=False)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_text_features_are_those_of_clip_without_its_padding(small_clip):
    clip, towers = models(small_clip)
    tokens = torch.randint(1, 98, (5, 7))
    tokens[torch.arange(5), torch.tensor([2, 6, 4, 3, 1])] = 98  # the end of the text has the highest id
    found = towers.encode(tokens)
    torch.testing.assert_close(found, clip.encode_text(F.pad(tokens, (0, 5))), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="12 tokens of CLIP's context, got 13"):
        towers.encode(torch.ones(1, 13, dtype=torch.long))


def test_guidance_comes_from_blocks_at_a_third_and_at_two_thirds(small_clip):
    _, towers = models(small_clip)
    image = torch.rand(1, 3, 16, 16)
    net = randomise(CLIPImage(towers, (4, 4), None, (20, 6, 5)))
    features, guidance = net(image)
    assert net.layers == (0, 1)
    _, maps = towers.dense(image, (4, 4), net.layers)
    assert guidance[0] is features
    for found, up, map_ in zip(guidance[1:], (net.upsample1, net.upsample2), maps, strict=True):
        torch.testing.assert_close(found, up(map_))
    assert [tuple(found.shape[1:]) for found in guidance[1:]] == [(6, 8, 8), (5, 16, 16)]
    assert not [name for name in net.state_dict() if not name.startswith("upsample")]
    off = CLIPImage(towers, (4, 4), None, (0, 0, 5))(image)
    assert [found is None for found in off.guidance] == [True, True, False]


@pytest.mark.parametrize("layers", [(0, 3), (-1, 2), (5, 1)])
def test_a_tower_must_have_the_blocks_that_guide(small_clip, layers):
    with pytest.raises(ValueError, match="before the last of the image tower's 4, 0 to 2"):
        CLIPImage(models(small_clip)[1], (4, 4), layers, (0, 6, 5))


@pytest.mark.parametrize(("depth", "blocks"), [(24, (7, 15)), (12, (3, 7))])
def test_published_towers_guide_with_the_published_blocks(small_clip, depth, blocks):
    towers = models(small_clip)[1]
    towers.visual.transformer.resblocks = torch.nn.ModuleList(list(towers.visual.transformer.resblocks) * (depth // 4))
    assert towers.guidance_layers(None) == blocks


@pytest.mark.parametrize("what", ["qv", "attention", "full", "all", "none"])
def test_what_is_trained(small_clip, what):
    towers = models(small_clip)[1]

    def trained(image, text):
        towers.train_only(what, image=image, text=text)
        return {name for name, weight in towers.named_parameters() if weight.requires_grad}

    both = trained(True, True)
    assert {name.startswith("visual.") for name in trained(True, False)} <= {True}
    assert trained(True, False) | trained(False, True) == both
    kinds = {name.split("resblocks.")[-1].split(".", 1)[-1] for name in both if "resblocks" in name}
    others = {name for name in both if "resblocks" not in name}
    attention = {f"attn.{part}_proj_weight" for part in "qkv"} | {"attn.in_proj_bias", "attn.out_proj.weight"}
    if what == "qv":
        assert (kinds, others) == ({"attn.q_proj_weight", "attn.v_proj_weight"}, set())
    elif what == "attention":
        assert kinds == attention | {"attn.out_proj.bias"}
        assert others == {"visual.positional_embedding", "positional_embedding"}
    elif what == "full":
        assert (len(both), others) == (6 * 14, set())
    else:
        assert len(both) == (len(list(towers.parameters())) - 1 if what == "all" else 0)


def test_declared_weights_get_no_gradient(small_clip):
    towers = models(small_clip)[1]
    (
        towers.dense(torch.rand(1, 3, 16, 16), (4, 4))[0].square().sum()
        + towers.encode(torch.ones(1, 3, dtype=torch.long)).sum()
    ).backward()
    idle = {name for name, weight in towers.named_parameters() if weight.grad is None}
    assert idle == set(towers.unused_parameters())


def test_flops(small_clip):
    towers = models(small_clip)[1]
    net = CLIPImage(towers, (6, 6), None, (20, 6, 5))
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(2, 3, 40, 40))
    assert counter.get_total_flops() == 2 * net.flops()
    with FlopCounterMode(display=False) as counter:
        towers.encode(torch.ones(3, 7, dtype=torch.long))
    assert counter.get_total_flops() == 3 * towers.encode_flops(7)
