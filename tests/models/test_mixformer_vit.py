import dataclasses
import math

import pytest
import torch

from bench.engine.flops import triangulate
from models.layers.mixed_tracker import ATTENTIONS
from models.layers.sincos import sincos_grid
from models.mixformer_vit import HEADS, PRESETS, VIT_L, MixFormerViT, MixFormerViTConfig
from tests.models.helpers import randomise
from tests.models.test_mixformer import INPUTS, million, random_batch, train_once

SMALL = {
    "search_size": 40,
    "template_size": 24,
    "patch_size": 8,
    "width": 24,
    "layers": 3,
    "heads": 3,
    "head_width": 16,
    "drop_path": 0.0,
}


def build(**options):
    """A small model in evaluation mode with weights that all matter."""
    model = randomise(MixFormerViT(MixFormerViTConfig(**{**SMALL, **options}))).eval()
    with torch.no_grad():
        for weight in model.box_head.parameters():
            weight.mul_(1 / 3 if weight.shape[2:] == (3, 3) else 1)  # scores in the hundreds would magnify rounding
    return model


# --- the published implementation ----------------------------------------------------------------------------------


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


# --- who reads whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_templates_read_the_search_picture_in_the_symmetric_design_alone(attention):
    model = build(attention=attention)
    batch, other = random_batch(model.config), random_batch(model.config, seed=1)
    plain = model(**batch)
    changed = model(**{**batch, "search": other["search"]})["template_features"]
    assert torch.equal(plain["template_features"], changed) == (attention == "asymmetric")
    online = model(**{**batch, "online_template": other["online_template"]})
    for name in plain:
        assert (online[name] - plain[name]).abs().max() > 1e-4, name


def test_both_templates_have_the_same_positions_and_only_the_first_is_returned():
    model = build()
    batch = random_batch(model.config)
    swapped, straight = model(batch["online_template"], batch["template"], batch["search"]), model(**batch)
    torch.testing.assert_close(swapped["boxes_cxcywh"], straight["boxes_cxcywh"])
    assert not torch.allclose(swapped["template_features"], straight["template_features"])


def test_search_and_templates_of_one_size_have_tables_of_their_own():
    model = build(search_size=24)
    batch = random_batch(model.config)
    before = model(**batch)["template_features"]
    model.backbone.pos_embed_s.zero_()
    assert torch.equal(model(**batch)["template_features"], before)
    model.backbone.pos_embed_t.zero_()
    assert not torch.allclose(model(**batch)["template_features"], before)


# --- templates kept over frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("online", [None, 1, 3])
@pytest.mark.parametrize("sizes", [{}, {"search_size": 35, "template_size": 15, "patch_size": 5}])
def test_kept_templates_equal_the_full_forward(attention, online, sizes):
    model = build(attention=attention, **sizes)
    batch = random_batch(model.config, online=online)
    with torch.inference_mode():
        cache = model.set_templates(batch["template"], batch["online_template"])
        for seed in range(2):
            search = random_batch(model.config, seed=seed)["search"]
            full = model(batch["template"], batch["online_template"], search)
            torch.testing.assert_close(model.track(search, cache), full["boxes_cxcywh"], atol=1e-5, rtol=0)
            for name, value in model.read(search, cache).items():
                torch.testing.assert_close(value, full[name], atol=1e-5, rtol=1e-5)


def test_queries_are_not_kept():
    model = build()
    batch = random_batch(model.config)
    cache = model.set_templates(batch["template"], batch["online_template"])
    held = {
        part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for kept in cache.blocks for part in kept
    }
    assert sum(held.values()) == 3 * 2 * (2 * 2 * 9 * 24) * 4  # blocks, keys and values, samples x tokens x channels


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("online", [1, 4])
def test_costs_of_kept_templates_are_as_counted(attention, head, online):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = MixFormerViT(MixFormerViTConfig(**SMALL, attention=attention, head=head)).eval()
    batch = {name: value.to("meta") for name, value in random_batch(model.config, online=online).items()}
    with FlopCounterMode(display=False) as counter:
        cache = model.set_templates(batch["template"], batch["online_template"])
    assert counter.get_total_flops() == 2 * model.flops_templates(online)
    with FlopCounterMode(display=False) as counter:
        model.track(batch["search"], cache)
    assert counter.get_total_flops() == 2 * model.flops_track(online)
    assert model.flops_templates(online) + model.flops_track(online) == model.flops(batch) // 2


# --- sizes and counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "head"), [("asymmetric", "pyramid"), ("symmetric", "corner")])
def test_flops_agree_three_ways(attention, head):
    config = MixFormerViTConfig(**{**SMALL, "search_size": 56, "template_size": 8}, attention=attention, head=head)
    report = triangulate(lambda: MixFormerViT(config), random_batch(config), INPUTS, require_closed_form=True)
    assert len(set(report.counters.values())) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = PRESETS[name]
    with torch.device("meta"):
        outputs = MixFormerViT(config)(**{k: v.to("meta") for k, v in random_batch(config, 1).items()})
    assert outputs["search_features"].shape[-1] == config.search_size // config.patch_size
    assert MixFormerViTConfig(**dataclasses.asdict(config)) == config
    assert len({config, MixFormerViTConfig(**dataclasses.asdict(config))}) == 1


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_all_weights(attention, head):
    model = build(attention=attention, head=head)
    assert train_once(model, random_batch(model.config)).isfinite()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(dict(model.named_parameters())) - set(weights) == {"box_head.conv5_tl.bias", "box_head.conv5_br.bias"}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights.values())
    # A batch norm takes the bias before it away again.
    idle = {name for name, weight in weights.items() if not weight.grad.any()}
    assert all(name.startswith("box_head") and name.endswith(".0.bias") for name in idle)


def test_drop_path_grows_linearly():
    model = build(drop_path=0.2)
    assert [block.drop_path.rate for block in model.backbone.blocks] == [0.0, pytest.approx(0.1), pytest.approx(0.2)]
    assert build(layers=1, drop_path=0.2).backbone.blocks[0].drop_path.rate == 0.0
    batch = random_batch(model.config, samples=8)
    assert torch.equal(model(**batch)["search_features"], model(**batch)["search_features"])
    model.train()
    assert not torch.equal(model(**batch)["search_features"], model(**batch)["search_features"])


def test_bf16_is_finite_and_boxes_are_single_precision():
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_once(model, random_batch(model.config))
        boxes = model.eval()(**random_batch(model.config))["boxes_cxcywh"]
    assert loss.isfinite()
    assert boxes.dtype == torch.float32
    assert boxes.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)


# --- scores --------------------------------------------------------------------------------------------------------


def test_scores_are_of_what_is_in_the_box_and_trained_apart():
    model = build(score_branch=True, search_size=80)
    batch = random_batch(model.config, samples=1)
    outputs = model(**batch)
    template, search = outputs["template_features"], outputs["search_features"].clone()
    box = torch.tensor([[0.15, 0.35, 0.1, 0.1]])  # cells 1 to 2 across, 3 to 4 down, of 10
    score = model.score(template, search, box)
    search[..., 6:, :], search[..., 4:] = 0, 0
    assert torch.equal(model.score(template, search, box), score)
    search[..., 3, 1] = 0
    assert not torch.equal(model.score(template, search, box), score)
    train_once(model, batch)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert names == model.unused_parameters() == {name for name in names if name.startswith("score_branch.")}
    state = published_state() | {
        name: value for name, value in build(score_branch=True).state_dict().items() if name in names
    }
    for branch in (True, False):
        assert (MixFormerViT.from_reference(state, **SMALL, score_branch=branch).score_branch is None) != branch


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search_size": 45}, "search_size must be a multiple of patch_size 8, got 45: try 40"),
        ({"template_size": 7}, "template_size must be a multiple of patch_size 8, got 7: try 8"),
        ({"patch_size": 0}, "patch_size must be an integer >= 1, got 0"),
        ({"width": 30}, "width must be a multiple of 4 and of its 3 heads, got 30: try 24"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"head_width": 20}, "head_width must be a multiple of 8, got 20: try 16"),
        ({"head": "centre"}, "head must be one of pyramid, corner, got 'centre'"),
        ({"attention": "full"}, "attention must be one of asymmetric, symmetric, got 'full'"),
        ({"drop_path": 1.0}, "drop_path must be a number >= 0 and below 1, got 1.0"),
        ({"score_branch": 1}, "score_branch must be true or false, got 1"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MixFormerViTConfig(**{**SMALL, **change})


def test_pictures_that_cannot_be_are_refused():
    model = build()
    batch = random_batch(model.config)
    cache = model.set_templates(batch["template"], batch["online_template"])
    with pytest.raises(ValueError, match=r"search must be \[2, 3, 40, 40\], got \[2, 3, 24, 24\]"):
        model.track(batch["template"], cache)
    with pytest.raises(ValueError, match=r"online_template must be .* got \[1, 3, 24, 24\]"):
        model(batch["template"], batch["online_template"][:1], batch["search"])
