"""What is the tracker's own; what holds for both is in test_trackers.py."""

import math

import pytest
import torch

from models.layers.mixed_tracker import ATTENTIONS
from models.layers.sincos import sincos_grid
from models.mixformer_vit import PRESETS, VIT_L, MixFormerViT, MixFormerViTConfig
from tests.models.trackers import VIT, million, random_batch

SMALL, build = VIT.small, VIT.build


def published_shapes(width, layers, patch, search, template, head):
    """Keys and shapes of a published checkpoint, written down from the published code."""
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    shapes = {
        "backbone.cls_token": (1, 1, width),
        "backbone.pos_embed": (1, 14 * 14 + 1, width),
        "backbone.pos_embed_t": (1, (template // patch) ** 2, width),
        "backbone.pos_embed_s": (1, (search // patch) ** 2, width),
        "backbone.patch_embed.proj.weight": (width, 3, patch, patch),
        "backbone.patch_embed.proj.bias": (width,),
        "backbone.head.weight": (1000, width),
        "backbone.head.bias": (1000,),
    }
    norms = ["backbone.norm"]
    for layer in range(layers):
        block = f"backbone.blocks.{layer}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        for name, (rows, columns) in linear.items():
            shapes[f"{block}.{name}.weight"] = (rows * width, columns * width)
            shapes[f"{block}.{name}.bias"] = (rows * width,)
    for corner in ("tl", "br"):
        c = head
        convolutions = {
            "conv1_{}": (width, c), "conv2_{}": (c, c // 2), "conv3_{}": (c // 2, c // 4), "conv4_{}": (c // 4, c // 8),
            "adjust1_{}": (width, c // 2), "adjust2_{}": (width, c // 4),
            "adjust3_{}.0": (c // 2, c // 4), "adjust3_{}.1": (c // 4, c // 8), "adjust3_{}.2": (c // 8, 1),
            "adjust4_{}.0": (c // 4, c // 8), "adjust4_{}.1": (c // 8, 1),
        }  # fmt: skip
        for template_name, (before, after) in convolutions.items():
            name = f"box_head.{template_name.format(corner)}"
            shapes |= {f"{name}.0.weight": (after, before, 3, 3), f"{name}.0.bias": (after,)}
            shapes |= {f"{name}.1.{part}": (after,) for part in ("weight", "bias", "running_mean", "running_var")}
            shapes[f"{name}.1.num_batches_tracked"] = ()
        shapes |= {f"box_head.conv5_{corner}.weight": (1, c // 8, 1, 1), f"box_head.conv5_{corner}.bias": (1,)}
    return shapes | {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}


def published_state(seed=0, **options):
    """Random weights in the published layout; NaN where nothing reads them."""
    known = {**SMALL, **options}
    generator, state = torch.Generator().manual_seed(seed), {}
    shapes = published_shapes(
        *(known[name] for name in ("width", "layers", "patch_size", "search_size", "template_size", "head_width"))
    )
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif "pos_embed_" in name:
            edge = math.isqrt(shape[1])
            state[name] = sincos_grid(edge, edge, shape[2])[None]
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.2
        else:
            scale = 0.3 if len(shape) < 2 else math.prod(shape[1:]) ** -0.5
            state[name] = (len(shape) < 2 and name.endswith("weight")) + scale * torch.randn(shape, generator=generator)
    dead = ("backbone.cls_token", "backbone.pos_embed", "backbone.norm.", "backbone.head.")
    for name in state:
        if name in dead[:2] or name.startswith(dead[2:]):
            state[name].fill_(float("nan"))
    return state


def oracle(state, template, online, search, *, layers, heads, patch, asymmetric):
    """Published model in published names, one sample and one head at a time; features of template and search picture."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-6).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    def tokens(picture, table):
        edge = picture.shape[-1] // patch
        kernel = state["backbone.patch_embed.proj.weight"].flatten(1)
        cut = [
            kernel @ picture[:, patch * row : patch * (row + 1), patch * column : patch * (column + 1)].flatten()
            for row in range(edge)
            for column in range(edge)
        ]
        return torch.stack(cut) + state["backbone.patch_embed.proj.bias"] + state[f"backbone.pos_embed_{table}"][0]

    found = []
    for first, second, picture in zip(template, online, search, strict=True):
        x = torch.cat([tokens(first, "t"), tokens(second, "t"), tokens(picture, "s")])
        templates = 2 * (first.shape[-1] // patch) ** 2
        blocked = torch.zeros(len(x), len(x))
        if asymmetric:
            blocked[:templates, templates:] = float("-inf")
        for layer in range(layers):
            name = f"backbone.blocks.{layer}"
            queries, keys, values = linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)).chunk(3, dim=-1)
            split = [part.chunk(heads, dim=-1) for part in (queries, keys, values)]
            read = [(q @ k.T / q.shape[-1] ** 0.5 + blocked).softmax(-1) @ v for q, k, v in zip(*split, strict=True)]
            x = x + linear(f"{name}.attn.proj", torch.cat(read, dim=-1))
            hidden = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            x = x + linear(f"{name}.mlp.fc2", hidden)
        maps = [part.T.unflatten(1, (-1, math.isqrt(len(part)))) for part in (x[: templates // 2], x[templates:])]
        found.append(maps)
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_published_weights_give_the_features_of_the_published_model(attention):
    state, batch = published_state(), random_batch(MixFormerViTConfig(**SMALL))
    model = MixFormerViT.from_reference({"net": state}, **SMALL, attention=attention).eval()
    outputs = model(**batch)
    template, search = oracle(state, *batch.values(), layers=3, heads=3, patch=8, asymmetric=attention == "asymmetric")
    torch.testing.assert_close(outputs["template_features"], template, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs["search_features"], search, atol=1e-4, rtol=1e-4)
    assert search.std() > 0.1
    boxes = outputs["boxes_cxcywh"]
    # The head against its own oracle: tests/models/layers/test_corner_head.py.
    torch.testing.assert_close(boxes, model.box_head(search), atol=1e-4, rtol=1e-4)
    assert boxes.std() > 0.01


@pytest.mark.parametrize("wrap", [lambda s: {"model": s}, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_wrapped_weights_load_too(wrap):
    batch = random_batch(MixFormerViTConfig(**SMALL))
    plain, wrapped = (
        MixFormerViT.from_reference(state, **SMALL).eval()(**batch)["boxes_cxcywh"]
        for state in (published_state(), wrap(published_state()))
    )
    assert torch.equal(wrapped, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("box_head.adjust3_br.1.0.weight"), "missing key 'box_head.adjust3_br.1.0.weight'"),
        (lambda s: s.pop("backbone.pos_embed_s"), "missing key 'backbone.pos_embed_s'"),
        (lambda s: s.update({"backbone.norms.weight": torch.zeros(1)}), "unexpected key 'backbone.norms.weight'"),
        (lambda s: s.update({"backbone.head_dist.bias": torch.zeros(1)}), "unexpected key 'backbone.head_dist.bias'"),
        (
            lambda s: s.update({"backbone.pos_embed_t": torch.zeros(1, 4, 24)}),
            r"'backbone.pos_embed_t' must be \[1, 9, 24\], got \[1, 4, 24\]",
        ),
    ],
)
def test_only_the_dead_weights_are_dropped(change, message):
    state = published_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        MixFormerViT.from_reference(state, **SMALL)


def test_published_sizes_and_costs():
    with torch.device("meta"):
        model, large = MixFormerViT(PRESETS["paper"]), MixFormerViT(MixFormerViTConfig(**VIT_L))
    shapes = published_shapes(768, 12, 16, 288, 128, 384)
    counted = [name for name in shapes if "running" not in name and "num_batches" not in name]
    assert round(sum(math.prod(shapes[name]) for name in counted) / 1e6, 1) == 98.4  # dead weights and tables included
    assert million(model.parameters()) == 97.18
    assert million(model.box_head.parameters()) == 11.54
    assert million(large.parameters()) == 317.73
    batch = {"online_template": torch.empty(1, 3, 128, 128), "search": torch.empty(1, 3, 288, 288)}
    costs = (model.flops(batch), model.flops_templates(), model.flops_track())
    assert [round(cost / 1e9, 1) for cost in costs] == [92.4, 22.5, 69.9]


def test_search_and_templates_of_one_size_have_tables_of_their_own():
    model = build(search_size=24)
    batch = random_batch(model.config)
    before = model(**batch)["template_features"]
    model.backbone.pos_embed_s.zero_()
    assert torch.equal(model(**batch)["template_features"], before)
    model.backbone.pos_embed_t.zero_()
    assert not torch.allclose(model(**batch)["template_features"], before)


def test_queries_are_not_kept():
    model = build()
    batch = random_batch(model.config)
    cache = model.set_templates(batch["template"], batch["online_template"])
    held = {
        part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for kept in cache.blocks for part in kept
    }
    assert sum(held.values()) == 3 * 2 * (2 * 2 * 9 * 24) * 4  # blocks, keys and values, samples x tokens x channels
